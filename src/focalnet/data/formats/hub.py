"""Data sets of the `datasets` package: from the hub, saved to disk, parquet files, files with a metadata file.

The image is the column of type Image (one called "image" or "img" where there are several), the sound that of type
Audio. The label is the column called "label", "labels" or "class", of class labels, numbers or text, or else the first
column of type ClassLabel.
Both are decoded here and not by `datasets`, so that all sources treat a broken, CMYK or 16-bit image alike.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from focalnet.data.base import Load, Openers, Request, Split
from focalnet.data.problems import preview
from focalnet.data.splits import choose_splits, sort_labels
from focalnet.errors import MissingExtraError, UserError
from focalnet.inputs.image import BadImageError, Signal, load_image
from focalnet.reading import shown

log = logging.getLogger(__name__)

MARK = "hf:"
"""Before a name, it says that the name is one of the hub, whatever lies in the folder."""
LABELS = ("label", "labels", "class")
COLUMNS = {"class": ("Image", "image", "img"), "sound": ("Audio", "audio", "sound")}
"""Of each kind of data: the type of its column, and the usual names."""


@dataclass(frozen=True)
class Rows:
    """Reads images or sounds out of a `datasets.Dataset` whose column is not decoded; an entry is a row."""

    table: Any
    column: str
    source: str

    @property
    def content(self) -> str:
        """What the package `datasets` calls the rows: another text for other ones."""
        return str(self.table._fingerprint)

    def name(self, entry: int) -> str:
        return f"{self.source}[{entry}]"

    def read(self, entry: int, load: Load = load_image) -> Signal:
        with _readable(self.name(entry), BadImageError):
            cell = self.table[entry][self.column]
        if cell is None:
            raise BadImageError(f"{self.name(entry)} has no {self.column}: remove the row.")
        return load(cell["bytes"] or cell["path"], name=self.name(entry))


def is_name(source: str) -> bool:
    """Whether a source is org/name where there is no folder org, or begins with "hf:"."""
    path = Path(source).expanduser()
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not {".tar", ".tgz"} & set(path.suffixes)
    return source.startswith(MARK) or bool(named and not path.parent.exists())


def is_saved(source: str) -> bool:
    """Whether a source is a folder that was written by `datasets`, or one that only `datasets` can read."""
    path = Path(source).expanduser()
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return True
    return any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")) or _has_metadata(path)


def _has_metadata(path: Path) -> bool:
    for folder in (path, path / "train"):
        for name in ("metadata.csv", "metadata.jsonl"):
            if (folder / name).is_file():
                with open(folder / name, encoding="utf-8", errors="replace") as file:
                    if "file_name" in file.readline().replace("\0", ""):  # in UTF-16
                        return True
    return False


def find_saved(source: str, request: Request) -> Openers:
    """Load a local folder of `datasets`.

    Raises:
        UserError: it cannot be read, or has no column of images or of labels.
    """
    datasets, path = _datasets(), Path(source).expanduser()
    with _readable(str(path.absolute())):
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(str(path))
        else:
            loaded = datasets.load_dataset(str(path))
        return _splits(loaded, str(path), request.kind)


def find_hub(source: str, request: Request) -> Openers:
    """Download, or take from the cache, a data set of the hub.

    Args:
        source: "org/name", or "org/name:configuration", with or without "hf:" before it.

    Raises:
        UserError: it does not exist, there is no network, or it has no column of images or of labels.
    """
    datasets, name = _datasets(), source.removeprefix(MARK)
    repository, _, configuration = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, configuration or None)
    except Exception as error:  # network, hub and scripts fail in many ways
        raise UserError(
            f"The data set {name!r} cannot be loaded from the hub ({_first_line(error)}), and there is no folder "
            f"{Path(name).absolute()}: check the name and the network."
        ) from error
    return _splits(loaded, name, request.kind)


@contextmanager
def _readable(place: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Whatever `datasets` and pyarrow raise over files of somebody else's making, as a sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise kind(f"{place} cannot be read as a data set ({_first_line(error)}): save or copy it again.") from error


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("a data set of the hub", "train") from error
    return datasets


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _splits(loaded: Any, source: str, kind: str) -> Openers:
    if not isinstance(loaded, dict):
        return Openers(partial(_split, loaded, source, kind), None)
    train, val, test = choose_splits(loaded, place=source)
    if train is None and len(loaded) == 1:
        return Openers(partial(_split, next(iter(loaded.values())), source, kind), None)
    if val is not None and _unlabelled(loaded[val]):
        log.warning("%s: the split %s has no labels (a contest's secret split?); left out", source, val)
        val = None
    if others := [name for name in loaded if name not in (train, val, test)]:
        log.warning("%s: left out the splits %s", source, preview(others))

    def open_split(name: str | None) -> Split:
        if name is None:
            raise UserError(f"{source} has the splits {', '.join(loaded)} but no train; save the one that you mean.")
        return _split(loaded[name], f"{source}/{name}", kind)

    second, third = (partial(open_split, name) if name else None for name in (val, test))
    return Openers(partial(open_split, train), second, third)


def _split(table: Any, source: str, kind: str) -> Split:
    with _readable(source):
        return _labelled(table, source, *COLUMNS[kind])


def _labelled(table: Any, source: str, typed: str, *usual: str) -> Split:
    datasets = _datasets()
    feature = getattr(datasets, typed)
    columns = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in table.features.items())
    found = [name for name, kind in table.features.items() if isinstance(kind, feature)]
    column = next((name for name in usual if name in found), found[0] if len(found) == 1 else None)
    if column is None:
        raise UserError(f"{source} needs one column of type {typed}, or one called {usual[0]}; it has {columns}.")
    labels = _label_columns(table)
    if not labels:
        raise UserError(f"{source} needs a column of type ClassLabel, or one called label; it has {columns}.")
    if _unlabelled(table):
        raise UserError(f"{source} has rows without a label (column {labels[0]}): save it without them.")
    if len(labels) > 1:
        log.info("%s: the label is the column %s; there is also %s", source, labels[0], preview(labels[1:]))
    values, kind = list(table[labels[0]]), table.features[labels[0]]
    listed = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else ()
    if strange := [name for name in listed if not isinstance(name, str)]:
        raise UserError(f"{source} has a class whose name is no text ({shown(strange[0])}): save it again.")
    names = [str(listed[value] if listed else value) for value in values]
    rows = Rows(table.select_columns(column).cast_column(column, feature(decode=False)), column, source)
    return Split(reader=rows, entries=range(len(names)), classes=listed or sort_labels(names), names=names)


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
