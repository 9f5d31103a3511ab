"""`focalnet predict`."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, TextIO

import tyro

from focalnet.cli.reading import AS_TRAINED, Reading
from focalnet.errors import UserError
from focalnet.reading import write_json


def predict(
    model: tyro.conf.Positional[str],
    images: tyro.conf.Positional[tuple[str, ...]] = (),
    weights: str | None = None,
    json: bool = False,
    draw: Path | None = None,
    threshold: float | None = None,
    window: int | None = None,
    detections: int | None = None,
    format: Literal["csv", "coco", "yolo"] | None = None,  # noqa: A002
    out: Path | None = None,
    batch_size: int = 16,
    on_bad_image: Literal["fail", "skip"] = "fail",
    device: str | None = None,
    reading: Reading = AS_TRAINED,
) -> None:
    """Say what is on images and videos.

    Args:
        model: A run folder, or the name of a network with --weights.
        images: Files, folders, globs, URLs, or - for a list on standard input; without any, some of the images
            that the run was not trained on. Videos are taken frame by frame.
        weights: "official", "timm", "transformers", a file or a hub id.
        json: Print one JSON object per image.
        draw: Write the images with their predictions into this folder, and predictions.jsonl, the JSON objects.
        threshold: Least score of an object; without it what was best on the validation data, else 0.5, and 0.8 in
            panoptic segmentation.
        window: Side in pixels of overlapping squares to see images in (semantic segmentation); whole without it.
        detections: Most objects of an image that a detector tells; without it, what the network has.
        format: Write the predictions as csv, as a coco file or as text files of yolo, with the classes' own ids.
        out: Where to write them: a file, a folder for yolo; without it, csv and coco are printed.
        batch_size: Images per forward pass, at most; large ones go through the network a few at a time.
        on_bad_image: What cannot be read is named when all the others have their predictions; the exit code is
            then 2, or 0 with "skip".
        device: Where to compute: cpu, cuda, cuda:1, mps or xpu; without it, the GPU if there is one.
    """
    from focalnet.predict import Predictor, find_files, held_out

    if out is not None and format is None:
        raise UserError("--out is where --format writes; give --format csv, coco or yolo with it.")
    predictor = Predictor(
        model, weights=weights, device=device, threshold=threshold, window=window, detections=detections,
        **vars(reading),
    )  # fmt: skip
    unreadable: dict[str, UserError] = {}
    if images:
        sources = [(file, file) for file in find_files(images, predictor.input.kind, unreadable)]
    else:
        sources = held_out(model, load=predictor.input.read, unreadable=unreadable)
    total = len(sources) + len(unreadable)
    quiet = format is not None and out is None  # the predictions themselves are printed
    with (
        _opened(draw / "predictions.jsonl") if draw else nullcontext() as file,
        predictor.writer(format, out, sys.stdout) if format else nullcontext() as writer,
    ):
        keep = {"keep": writer.add} if writer else {}
        for row, line in predictor.predictions(sources, draw, batch_size, unreadable, **keep):
            if not quiet:
                print(write_json(row) if json else line)
            if file:
                print(write_json(row), file=file)
    for error in unreadable.values():
        print(f"focalnet: {error}", file=sys.stderr)
    if unreadable and on_bad_image == "fail":
        raise UserError(
            f"{len(unreadable)} of {total} could not be read; any others have their predictions. With "
            "--on-bad-image skip this is no failure."
        )


def _opened(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8")
