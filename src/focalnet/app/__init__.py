"""The page: a trained network in a folder of static files that any browser runs, and nothing leaves the reader's
computer.

    index.html  style.css  *.js   written by hand, without a framework
    ort.js  ort.wasm              ONNX Runtime for browsers, and its licence
    model.onnx                    the network, with gates and modulators as outputs
    model.json                    classes, preprocessing, kernels, how outputs become answers
    examples/                     images or sounds that the run was not trained on
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image

from focalnet import inputs
from focalnet.app.description import check_shown, describe
from focalnet.app.runtime import fetch_runtime
from focalnet.app.serving import open_server, serve
from focalnet.engine.run import is_run
from focalnet.errors import UserError
from focalnet.exporting import export
from focalnet.models.create import load_model
from focalnet.predict import held_out
from focalnet.reading import write_json
from focalnet.visualize.signals import wav

__all__ = ["build", "open_server", "serve"]

PAGE = Path(__file__).parent / "page"

LONGEST_EXAMPLE = 1280
"""Pixels of the longer side of an example; larger ones are made smaller."""
DESCRIPTION = "model.json"


def build(
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    weights: str | None = None,
    examples: int = 8,
    image_size: int | tuple[int, int] | None = None,
    tolerance: float = 1e-4,
) -> Path:
    """Write the page of a network into a folder.

    Args:
        model: a run folder, a model folder or a weight file, or a name with `weights`.
        folder: new or empty, or with a page in it, which is written anew.
        weights: as for `create_model`.
        examples: how many images or sounds that the run was not trained on go along; none where `model` is no run.
        image_size: as `size` of `focalnet.export`.
        tolerance: as of `focalnet.export`.

    Returns:
        the folder.

    Raises:
        UserError: the page cannot show the network, the network cannot be exported, the folder holds other files, or
            onnxruntime-web cannot be fetched.
        MissingExtraError: the packages that write ONNX are not installed.
    """
    target, place = Path(folder), os.fspath(model)
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / DESCRIPTION).exists())):
        raise UserError(f"{target} holds something else than a page; name a new folder.")
    network: Any = load_model(place, weights)
    check_shown(network.spec)
    runtime = fetch_runtime()
    shown = held_out(place, examples, network.spec.preprocessing.read) if examples > 0 and is_run(place) else []
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as made:
        page = Path(made)
        signals = [signal for _, signal in shown]
        written = export(
            network, page / "model.onnx", samples=signals, size=image_size, tolerance=tolerance, parts=True
        )
        rows = _write_examples(page, shown, network.spec.preprocessing)
        title = Path(place).resolve().name if Path(place).exists() else place
        description = describe(network, written.record, title, rows)
        (page / DESCRIPTION).write_text(write_json(description), encoding="utf-8")
        for file in (*PAGE.iterdir(), *runtime.iterdir()):
            shutil.copyfile(file, page / file.name)
        _replace(page, target)
    return target


def _write_examples(page: Path, shown: Sequence[tuple[str, Any]], how: inputs.Input) -> list[dict[str, str]]:
    """Images without loss, large ones as JPEG, and sounds; their names in the folder, and what they were called."""
    rows = []
    (page / "examples").mkdir()
    for number, (name, signal) in enumerate(shown):
        if isinstance(how, inputs.Audio):
            file = f"examples/{number}.wav"
            (page / file).write_bytes(wav(signal, how.sample_rate))
        else:
            image = signal.convert("RGB")
            kind = "png" if max(image.size) <= LONGEST_EXAMPLE // 2 else "jpg"
            image.thumbnail((LONGEST_EXAMPLE, LONGEST_EXAMPLE), PIL.Image.Resampling.LANCZOS)
            file = f"examples/{number}.{kind}"
            image.save(page / file, quality=92)
        rows.append({"file": file, "name": Path(name).name})
    return rows


def _replace(page: Path, target: Path) -> None:
    """Put a page where it belongs; the description, by which a page is known, at last."""
    target.mkdir(exist_ok=True)
    shutil.rmtree(target / "examples", ignore_errors=True)
    for file in sorted(page.iterdir(), key=lambda file: file.name == DESCRIPTION):
        os.replace(file, target / file.name)
