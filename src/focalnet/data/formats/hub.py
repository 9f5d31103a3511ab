"""Data sets of the `datasets` package: from the hub, saved to disk, parquet files, images with a metadata file.

The image is the column of type Image (one called "image" or "img" where there are several). The label is the column
called "label", "labels" or "class", of class labels, numbers or text, or else the first column of type ClassLabel.
Images are decoded here and not by `datasets`, so that all sources treat a broken, CMYK or 16-bit image alike.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from focalnet.data.base import Part, choose_splits, preview, sort_labels
from focalnet.errors import MissingExtraError, UserError
from focalnet.inputs.image import BadImageError, load_image

log = logging.getLogger(__name__)

LABELS = ("label", "labels", "class")


@dataclass(frozen=True)
class Rows:
    """Reads images out of a `datasets.Dataset` whose Image column is not decoded; `where` is a row."""

    table: Any
    column: str
    source: str

    def name(self, where: int) -> str:
        return f"{self.source}[{where}]"

    def read(self, where: int) -> Image.Image:
        cell = self.table[where][self.column]
        if cell is None:
            raise BadImageError(f"{self.name(where)} has no image: remove the row.")
        return load_image(cell["bytes"] or cell["path"], name=self.name(where))


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `datasets`, or is one that only `datasets` can read."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return True
    return any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")) or _has_metadata(path)


def _has_metadata(path: Path) -> bool:
    for folder in (path, path / "train"):
        for name in ("metadata.csv", "metadata.jsonl"):
            if (folder / name).is_file():
                with open(folder / name, encoding="utf-8", errors="replace") as file:
                    if "file_name" in file.readline():
                        return True
    return False


def open_saved(path: Path) -> tuple[Part, Part | None]:
    """Open a local folder of `datasets`.

    Raises:
        UserError: it cannot be read, or has no column of images or of labels.
    """
    datasets = _datasets()
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(str(path))
        else:
            loaded = datasets.load_dataset(str(path))
    except Exception as error:  # whatever lies in a folder of somebody else's making
        raise UserError(f"{path.absolute()} cannot be read as a data set ({_first_line(error)}).") from error
    return _parts(loaded, str(path))


def open_hub(name: str) -> tuple[Part, Part | None]:
    """Download, or take from the cache, a data set of the hub.

    Args:
        name: "org/name", or "org/name:configuration".

    Raises:
        UserError: it does not exist, there is no network, or it has no column of images or of labels.
    """
    datasets = _datasets()
    repository, _, configuration = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, configuration or None)
    except Exception as error:  # network, hub and scripts fail in many ways
        raise UserError(
            f"The data set {name!r} cannot be loaded from the hub ({_first_line(error)}), and there is no folder "
            f"{Path(name).absolute()}: check the name and the network."
        ) from error
    return _parts(loaded, name)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("a data set of the hub", "train") from error
    return datasets


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _parts(loaded: Any, source: str) -> tuple[Part, Part | None]:
    if not isinstance(loaded, dict):
        return _part(loaded, source), None
    train, val = choose_splits(loaded)
    if train is None and len(loaded) > 1:
        raise UserError(f"{source} has the splits {', '.join(loaded)} but no train; save the one that you mean.")
    if train is None:
        return _part(next(iter(loaded.values())), source), None
    if val is not None and _unlabelled(loaded[val]):
        log.warning("%s: the split %s has no labels (a contest's test side?); left out", source, val)
        val = None
    return _part(loaded[train], f"{source}/{train}"), _part(loaded[val], f"{source}/{val}") if val else None


def _part(table: Any, source: str) -> Part:
    datasets = _datasets()
    columns = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in table.features.items())
    images = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    image = next((name for name in ("image", "img") if name in images), images[0] if len(images) == 1 else None)
    if image is None:
        raise UserError(f"{source} needs one column of type Image, or one called image; it has {columns}.")
    labels = _label_columns(table)
    if not labels:
        raise UserError(f"{source} needs a column of type ClassLabel, or one called label; it has {columns}.")
    if _unlabelled(table):
        raise UserError(f"{source} has rows without a label (column {labels[0]}): save it without them.")
    if len(labels) > 1:
        log.info("%s: the label is the column %s; there is also %s", source, labels[0], preview(labels[1:]))
    values, kind = list(table[labels[0]]), table.features[labels[0]]
    listed = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else ()
    names = [str(listed[value] if listed else value) for value in values]
    rows = Rows(table.select_columns(image).cast_column(image, datasets.Image(decode=False)), image, source)
    return Part(rows, range(len(names)), names, listed or sort_labels(names))


def _label_columns(table: Any) -> list[str]:
    datasets = _datasets()
    kinds = table.features
    named = [name for name in LABELS if isinstance(kinds.get(name), datasets.ClassLabel | datasets.Value)]
    typed = [name for name, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)]
    return list(dict.fromkeys(named[:1] + typed))


def _unlabelled(table: Any) -> bool:
    labels = _label_columns(table)
    values = list(table[labels[0]]) if labels else []
    return None in values or -1 in values
