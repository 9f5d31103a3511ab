"""The command line: `focalnet COMMAND`, one function per command.

Options come from the same frozen dataclasses that the library uses, through tyro; those of
`focalnet train` stand in `training`.

Exit codes: 0; 2 for a mistake of the user, said in one sentence; 1 for a bug of ours, with its traceback; 130 for
Ctrl-C, and 143 and 129 where SIGTERM and SIGHUP ended a run (`engine.signals`).
"""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

import tyro

from focalnet._version import __version__
from focalnet.cli.reading import AS_TRAINED, Reading
from focalnet.cli.training import parse_train, said_first
from focalnet.errors import UserError, unknown
from focalnet.machine import keep_memory
from focalnet.reading import brief, shown, write_json

HELP = """\
focalnet: Focal Modulation Networks

  focalnet check       look at a data set: counts, bad files, duplicates, labels drawn
  focalnet train       train a network to classify, detect, segment; without --data, on handwritten digits
  focalnet resume      go on with a run that was stopped
  focalnet evaluate    metrics of a run or released weights on images
  focalnet predict     say what is on images and videos
  focalnet explain     show where a model looks: kernels, gates, modulators
  focalnet embed       images as vectors, to search and to cluster
  focalnet similar     images that are alike, and duplicates
  focalnet convert     change the layout of a weight file: official, timm, transformers, mmdet, …
  focalnet export      one file for other programs: ONNX, OpenVINO, torch.export; it is checked before it is kept
  focalnet app         a page that shows a network in the browser; no image leaves the reader's computer
  focalnet models      list the networks, their sizes and their weights
  focalnet recipes     list the training recipes, what they cost and what they give
  focalnet bench       time this library beside timm and transformers, in one run

`focalnet COMMAND --help` explains a command. A first try, with no download:

  focalnet train --out runs/digits
  focalnet explain runs/digits
"""


LONGEST = 2000
"""Most characters of a sentence: names in hostile files have no end."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _take_any_name()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("focalnet").setLevel(logging.INFO)
    try:
        _check_text(arguments)
        if not arguments or arguments[0] in ("-h", "--help"):
            print(HELP, end="")
        elif arguments[0] == "--version":
            print(__version__)
        elif arguments[0] not in COMMANDS:
            raise unknown("command", arguments[0], COMMANDS)
        else:
            COMMANDS[arguments[0]](arguments[1:])
    except UserError as error:
        print(f"focalnet: {brief(str(error), LONGEST)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        where = _closed(Path(os.fsdecode(error.filename))) if isinstance(error, PermissionError) else error.filename
        place = brief(str(where), LONGEST)
        print(f"focalnet: {place}: {error.strerror.lower()}; check the path and its rights.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nfocalnet: stopped; a run goes on with `focalnet resume RUN`.", file=sys.stderr)
        sys.exit(130)


def _check_text(arguments: Sequence[str]) -> None:
    """Raises UserError where an argument is no text and no name of a file: Python alone can make such ones."""
    for argument in arguments:
        try:
            whole = b"\0" not in os.fsencode(argument)
        except UnicodeEncodeError:
            whole = False
        if not whole:
            raise UserError(f"the argument {shown(argument)} is no text; write it again.")


def _closed(path: Path) -> Path:
    """The outermost folder around a path that may not be read; the path itself where all may."""
    folders = [folder for folder in path.parents if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK)]
    return folders[-1] if folders else path


def _take_any_name() -> None:
    """File names may hold bytes that are no text, or signs that the terminal does not have: they are escaped where
    they are printed, and taken as they are where they are read."""
    for stream, errors in (
        (sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace"),
    ):  # fmt: skip
        if isinstance(stream, TextIOWrapper):  # not where a notebook or a test puts something else
            stream.reconfigure(errors=errors)


def _parse(arguments: Sequence[str], command: str, function: Callable[..., Any]) -> Any:
    return tyro.cli(function, prog=f"focalnet {command}", args=list(arguments))


def _train(arguments: Sequence[str]) -> None:
    chosen = parse_train(arguments)
    from focalnet.api import train_chosen
    from focalnet.engine.choice import leaves_model

    left = leaves_model(said_first(arguments))
    again = (lambda model: parse_train([*arguments, "--model", model])) if left else None
    train_chosen(*chosen, command=shlex.join(["focalnet", "train", *arguments]), again=again)


def _resume(arguments: Sequence[str]) -> None:
    def resume(
        run: tyro.conf.Positional[Path],
        epochs: int | None = None,
        checkpoint: str = "last",
        data: str | None = None,
        device: str | None = None,
    ) -> None:
        """Go on with a run that was stopped, as if it had not been.

        Args:
            run: The run folder.
            epochs: A new total number of epochs.
            checkpoint: Which checkpoint to go on from: last or best.
            data: Where the data of the run is now, if it was moved.
            device: Where to compute: cpu, cuda, cuda:1, mps or xpu; without it, the GPU if there is one.
        """
        from focalnet.api import resume

        resume(run, epochs=epochs, checkpoint=checkpoint, data=data, device=device)

    _parse(arguments, "resume", resume)


def _evaluate(arguments: Sequence[str]) -> None:
    def evaluate(
        model: tyro.conf.Positional[str],
        data: str | None = None,
        split: Literal["train", "val", "test"] | None = None,
        weights: str | None = None,
        batch_size: int = 64,
        workers: int | None = None,
        tta: bool = False,
        window: int | None = None,
        detections: int | None = None,
        dice: bool = False,
        json: Path | None = None,
        results: Path | None = None,
        device: str | None = None,
        reading: Reading = AS_TRAINED,
    ) -> None:
        """Evaluate a run, or a network with released weights: accuracy, AP, F1, mIoU or PQ, samples per second.

        Args:
            model: A run folder, or the name of a network with --weights.
            data: What to evaluate on; without it, the run's own data. If that was moved, say where it is now.
            split: Which of its splits; without it the validation split, or all where the data has none.
            weights: "official", "timm", "transformers", a file or a hub id.
            batch_size: Samples per forward pass, at most: detectors and segmenters take large images a few at a time,
                and those of unequal size one by one.
            workers: Processes that prepare samples; without it, as many as suit the machine.
            tta: Average over mirrored and resized images (detection and semantic segmentation).
            window: Side in pixels of overlapping squares to see images in (semantic segmentation); whole without it.
            detections: Most objects of an image that a detector tells; above 100, COCO's table counts so many too.
            dice: Measure Dice and the 95th percentile of surface distances of every image too (semantic segmentation).
            json: Also write the metrics to this file.
            results: Write every detection into this folder, in COCO's results format with the ids of the data
                (detectors); on data of YOLO, also as CSV and text files.
            device: Where to compute: cpu, cuda, cuda:1, mps or xpu; without it, the GPU if there is one.
        """
        from focalnet.api import evaluate
        from focalnet.engine.run import write_atomically

        keep_memory()
        evaluation = evaluate(
            model, data=data, split=split, weights=weights, batch_size=batch_size, workers=workers, tta=tta,
            window=window, detections=detections, dice=dice, results=results, device=device, **vars(reading),
        )  # fmt: skip
        _table(["metric", "value"], [[name, f"{value:.4f}"] for name, value in evaluation.items()])
        if json:
            write_atomically(json, write_json(dict(evaluation), 2).encode())

    _parse(arguments, "evaluate", evaluate)


def _predict(arguments: Sequence[str]) -> None:
    from focalnet.cli.prediction import predict

    _parse(arguments, "predict", predict)


def _check(arguments: Sequence[str]) -> None:
    from focalnet.cli.checking import check

    _parse(arguments, "check", check)


def _explain(arguments: Sequence[str]) -> None:
    from focalnet.cli.explaining import explain

    _parse(arguments, "explain", explain)


def _embed(arguments: Sequence[str]) -> None:
    from focalnet.cli.embedding import embed

    _parse(arguments, "embed", embed)


def _similar(arguments: Sequence[str]) -> None:
    from focalnet.cli.embedding import similar

    _parse(arguments, "similar", similar)


def _convert(arguments: Sequence[str]) -> None:
    def convert(source: tyro.conf.Positional[str], out: tyro.conf.Positional[Path], to: str) -> None:
        """Change the layout of a weight file, losslessly.

        Classifiers and backbones: official, timm, transformers. Mask R-CNN, Cascade Mask R-CNN, ATSS, Sparse R-CNN:
        mmdet, focalnet. DINO: official, detrex. UPerNet: mmseg, focalnet. Mask2Former: facebookresearch, focalnet.
        Sounds: speechbrain, focalnet. U-Nets: official, focalnet. Films: official.

        Args:
            source: A .pth, .bin or .safetensors file of any layout, a run folder or a hub id.
            out: The file to write; its suffix says the format.
            to: The layout to write.
        """
        from focalnet.models.convert import convert_file

        print(convert_file(source, out, to=to))

    _parse(arguments, "convert", convert)


def _export(arguments: Sequence[str]) -> None:
    from focalnet.cli.exporting import export

    _parse(arguments, "export", export)


def _app(arguments: Sequence[str]) -> None:
    from focalnet.cli.page import app

    _parse(arguments, "app", app)


def _models(arguments: Sequence[str]) -> None:
    def models(pattern: tyro.conf.Positional[str] = "*", json: bool = False) -> None:
        """List the networks: parameters, GFLOPs, published figures, weights.

        Any other pairing of a head with a variant has a name too, for example dino_focalnet_tiny_srf_4scale.

        Args:
            pattern: A shell pattern, for example "*lrf*" or "dino*".
            json: Print JSON.
        """
        from focalnet.models.catalogue import describe_dense, describe_models

        tables = [rows for rows in (describe_models(pattern), describe_dense(pattern)) if rows]
        if not tables:
            raise UserError(f"No network is called {pattern!r}; put * around it, or leave it out to see all.")
        if json:
            print(write_json([row for rows in tables for row in rows], 2))
            return
        for rows in tables:
            cells = [["" if value is None else _cell(value) for value in row.values()] for row in rows]
            _table(list(rows[0]), cells)

    _parse(arguments, "models", models)


def _recipes(arguments: Sequence[str]) -> None:
    def recipes(model: tyro.conf.Positional[str] = "focalnet_tiny_lrf") -> None:
        """List the training recipes: what they are for, cost and give.

        Args:
            model: The network that the numbers are for.
        """
        from focalnet.engine.recipes import RECIPES, get_recipe

        rows = [get_recipe(name, model) for name in RECIPES]
        _table(["recipe", "for", "costs", "gives"], [[row.name, row.summary, row.cost, row.result] for row in rows])

    _parse(arguments, "recipes", recipes)


def _bench(arguments: Sequence[str]) -> None:
    from focalnet.bench import BenchOptions, bench

    bench(_parse(arguments, "bench", BenchOptions))


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column, name in enumerate(head):
        table.add_column(name, no_wrap=column == 0)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "check": _check,
    "train": _train, "resume": _resume, "evaluate": _evaluate, "predict": _predict, "explain": _explain,
    "embed": _embed, "similar": _similar,
    "convert": _convert, "export": _export, "app": _app, "models": _models, "recipes": _recipes, "bench": _bench,
}  # fmt: skip
