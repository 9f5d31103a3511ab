"""`focalnet predict`."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, TextIO

import tyro

from focalnet.cli.reading import AS_TRAINED, Reading
from focalnet.errors import UserError
from focalnet.machine import keep_memory
from focalnet.reading import write_json

OWN_FILES: dict[str, Literal["npz", "wav", "html"]] = {".npz": "npz", ".wav": "wav", ".html": "html"}
"""Endings of `--out` that say the format."""


def predict(
    model: tyro.conf.Positional[str],
    images: tyro.conf.Positional[tuple[str, ...]] = (),
    weights: str | None = None,
    json: bool = False,
    draw: Path | None = None,
    threshold: float | None = None,
    window: int | None = None,
    detections: int | None = None,
    format: Literal["csv", "coco", "yolo", "counts", "npz", "wav", "html"] | None = None,  # noqa: A002
    out: Path | None = None,
    batch_size: int | None = None,
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32",
    threads: int | None = None,
    stride: int = 1,
    track: bool = False,
    on_bad_image: Literal["fail", "skip"] = "fail",
    device: str | None = None,
    reading: Reading = AS_TRAINED,
) -> None:
    """Say what is on images and videos.

    Args:
        model: A run folder, or the name of a network with --weights.
        images: Files, folders, globs, URLs, or - for a list on standard input; without any, some of the images
            that the run was not trained on. Videos are taken frame by frame, and so are webcam:0 and RTSP streams,
            until Ctrl-C.
        weights: "official", "timm", "transformers", a file or a hub id.
        json: Print one JSON object per image.
        draw: Write the images with their predictions into this folder, and predictions.jsonl, the JSON objects.
        threshold: Least score of an object or label; without it what was best on the validation data, else 0.5, and
            0.8 in panoptic segmentation.
        window: Side in pixels of overlapping squares to see images in (semantic segmentation); whole without it.
        detections: Most objects of an image that a detector tells; without it, what the network has.
        format: Write the predictions as csv, as a coco file or as text files of yolo, with the classes' own ids; or
            counts, a line of CSV per image or frame with the number of objects of each class. Of a speech codec, npz,
            the tokens of a sound, wav, what they give back, or html, a page to hear both; files of tokens are taken
            like sounds.
        out: Where to write them: a file, a folder for yolo, npz and wav; without it, csv, coco and counts are printed.
            Without --format, NAME.npz, NAME.wav or NAME.html, or NAME.jsonl, which gets the JSON objects; the same
            command goes on with that where it was stopped.
        batch_size: Images per forward pass, at most; large ones go through the network a few at a time. Without it 16,
            and up to 64 where the network sees less than 224 x 224 pixels.
        precision: Arithmetic of the network; tf32, bf16 and fp16 are faster on GPUs, and round more.
        threads: How many decode images and write drawings; without it, one per core.
        stride: Take every so many frames of a video one.
        track: Give the objects of a video numbers, by ByteTrack (pip install 'focalnet[track]').
        on_bad_image: What cannot be read is named when all the others have their predictions; the exit code is
            then 2, or 0 with "skip".
        device: Where to compute: cpu, cuda, cuda:1, mps or xpu; without it, the GPU if there is one.
    """
    from focalnet.inputs.video import is_live
    from focalnet.predict import Predictor, find_files, held_out
    from focalnet.predict.progress import Progress
    from focalnet.predict.rows import Rows

    keep_memory()
    if format is None and out is not None:
        format = OWN_FILES.get(out.suffix.lower())  # noqa: A001
    rows_out = out if format is None and out is not None and out.suffix == ".jsonl" else None
    if out is not None and format is None and rows_out is None:
        raise UserError(
            "--out is where --format writes; give --format csv, coco, yolo or counts with it, or a name that ends in "
            ".jsonl (of a speech codec .npz, .wav or .html)."
        )
    predictor = Predictor(
        model, weights=weights, device=device, threshold=threshold, window=window, detections=detections,
        precision=precision, threads=threads, **vars(reading),
    )  # fmt: skip
    unreadable: dict[str, UserError] = {}
    if images:
        sources: list[tuple[str, Any]] = [(file, file) for file in find_files(images, predictor.input.kind, unreadable)]
    else:
        sources = held_out(model, load=predictor.input.read, unreadable=unreadable)
    total = len(sources) + len(unreadable)
    live = any(is_live(source) for _, source in sources)
    printed = not (rows_out and not json) and (format is None or out is not None)
    made_by = {**predictor.made_by(), "stride": stride, "track": track} if rows_out else {}
    with (
        Rows(rows_out, made_by) if rows_out else nullcontext() as rows,
        _opened(draw / "predictions.jsonl") if draw and not rows else nullcontext() as file,
        predictor.writer(format, out, sys.stdout) if format else nullcontext() as writer,
    ):
        first = sum(rows.done.values()) if rows else 0
        if rows:
            if live and (first or rows.path.stat().st_size):
                raise UserError(f"{rows.path} has predictions, and what is live begins anew; give another --out.")
            sources = [(name, source) for name, source in sources if not rows.take(name)]
        found = predictor.predictions(
            sources, draw, batch_size, unreadable, **({"keep": writer.add} if writer else {}), first=first,
            stride=stride, track=track,
        )  # fmt: skip
        shown = not (printed and sys.stdout.isatty()) and (rows is not None or sys.stderr.isatty())
        told = _with_last(found) if rows and not live else ((row, line, False) for row, line in found)
        with (
            _until_stopped(live, rows_out),
            closing(found),
            Progress(None if live else total, first, shown=shown) as progress,
        ):
            for row, line, last in told:
                if printed:
                    print(write_json(row) if json else line, flush=live)
                if file:
                    print(write_json(row), file=file, flush=live)
                if rows:
                    rows.add({**row, "last": True} if last and row["source"] not in unreadable else row)
                progress.step(row["source"])
        if rows:
            before = f", {first:,} of {total:,} sources were there" if first else ""
            print(f"{rows.path}: {progress.predictions:,} predictions{before}", file=sys.stderr)
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


def _with_last(found: Iterator[tuple[dict[str, Any], str]]) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """Rows with their lines, and whether it is the last one of a film."""
    held = None
    for row, line in found:
        if held:
            yield *held, row["source"] != held[0]["source"] or row.get("frame", -1) <= held[0]["frame"]
        held = None
        if "frame" in row:
            held = row, line
        else:
            yield row, line, False
    if held:
        yield *held, True


@contextmanager
def _until_stopped(live: bool, rows: Path | None) -> Iterator[None]:
    """Let Ctrl-C end what is live, and everything else with its exit code, SIGTERM and SIGHUP with theirs; files, films
    among them, are closed either way."""
    from focalnet.engine.signals import raised

    again = f"; the same command goes on with {rows}" if rows else ""
    try:
        with raised():
            yield
    except KeyboardInterrupt:
        if not live:
            print(f"\nfocalnet: stopped{again}.", file=sys.stderr)
            raise SystemExit(130) from None
    except SystemExit:
        print(f"\nfocalnet: stopped{again}.", file=sys.stderr)
        raise
