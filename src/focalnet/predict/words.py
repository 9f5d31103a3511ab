"""A prediction as an object for JSON, and as files beside it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from focalnet.errors import UserError
from focalnet.reading import defined
from focalnet.tasks.base import Prediction


def told(name: str, prediction: Prediction) -> dict[str, Any]:
    """The content of a prediction.

    Raises:
        UserError: a number in it is none.
    """
    row = prediction.to_dict()
    if not defined(row):
        raise UserError(f"{name}: the network gives NaN; its weights are damaged or overflow: take other ones.")
    return row


def stem(number: Iterator[int], name: str) -> str:
    """What the files of the next source are called: its number and name."""
    return f"{next(number):04d}_{re.sub(r'[^A-Za-z0-9]+', '_', Path(name).stem)}"


def draw(prediction: Prediction, signal: Any, folder: Path, name: str) -> dict[str, str]:
    """Write the drawing, maps and other `files` of one prediction, called `name`; returns the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    prediction.draw(signal).save(folder / f"{name}.png")
    maps = prediction.maps()
    for kind, image in maps.items():
        image.save(folder / f"{name}_{kind}.png")
    files: dict[str, bytes] = getattr(prediction, "files", dict)()
    for file, content in files.items():
        (folder / f"{name}_{file}").write_bytes(content)
    return {
        "drawn": f"{name}.png",
        **{kind: f"{name}_{kind}.png" for kind in maps},
        **{Path(file).stem: f"{name}_{file}" for file in files},
    }
