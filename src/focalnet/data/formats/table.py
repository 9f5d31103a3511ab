"""CSV files with a row per image, which names its label or its labels.

    file      the image: relative to the CSV or to a folder beside it, with or without its ending
    labels    one column, several labels apart by | ; , or blanks; or a column per class with 0 and 1
    split     train, val, test; or is_valid, true of validation. Without it, and without a val.csv, a share is set aside

Names of columns are taken in their usual spellings (`FILES` and so on), in upper or lower case. A table without a
header has a file and its labels in two columns. Classes are in the order of the columns, or that of their names.
Several rows of one image are its labels together.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from focalnet.data.base import Openers, Request, Split
from focalnet.data.formats.folder import Files, is_class_folders
from focalnet.data.problems import Problems, preview
from focalnet.data.splits import choose_splits, sort_labels, split_of
from focalnet.errors import UserError
from focalnet.inputs.folders import UNREAD, files_in, folders_in, is_ignored, locate
from focalnet.inputs.image import EXTENSIONS
from focalnet.reading import read_header, read_table, shown

log = logging.getLogger(__name__)

ENDINGS = (".csv", ".tsv")
FILES = ("file", "filename", "filepath", "fname", "image", "imagefile", "imagename", "imagepath", "imageid",
         "imageindex", "img", "imgname", "imgpath", "path", "id")  # fmt: skip
LABELS = ("labels", "label", "tags", "tag", "classes", "class", "classname", "categories", "category", "targets",
          "target", "findinglabels")  # fmt: skip
SPLITS = ("split", "set", "subset", "partition", "phase")
HELD_OUT = ("isvalid", "isval", "isvalidation", "valid", "val", "validation")
BOXES = frozenset({"xmin", "x1", "bbox", "xmax", "x2"})
"""Columns of a table of objects, which is none of these."""
BITS = {
    "0": False,
    "0.0": False,
    "false": False,
    "no": False,
    "": False,
    "1": True,
    "1.0": True,
    "true": True,
    "yes": True,
}
SEPARATORS = ("|", ";", ",")
"""Of labels in a cell: the first of them that occurs in the table; else blanks."""
MOST_FOLDERS = 16
"""Folders beside a table in which its images are looked for."""


class Row(NamedTuple):
    """One row of a table; `split` is None where it tells none that is known."""

    where: str
    name: str
    labels: tuple[str, ...]
    split: str | None


@dataclass(frozen=True)
class Columns:
    """Places of the columns; `labels` has one, or with `bits` one per class."""

    file: int
    labels: tuple[int, ...]
    bits: bool = False
    split: int | None = None
    held_out: bool = False


def is_table(source: str) -> bool:
    """Whether a source is a CSV file, or a folder without class folders that has one of files and labels."""
    path = Path(source).expanduser()
    if path.is_file():
        return path.suffix.lower() in ENDINGS
    return bool(_tables_in(path)) and not is_class_folders(source)


def find_table(source: str, request: Request) -> Openers:
    """Read a table, or those of a folder, and find the splits.

    Args:
        source: a CSV file, or a folder with one, or with one per split.
        request: of kind "class" an image has one label.

    Raises:
        UserError: no table, several of which none is called train, or one without files or labels.
    """
    path = Path(os.path.abspath(Path(source).expanduser()))
    by_split = _tables(path)
    raw = {split: read_table(table) for split, table in by_split.items()}
    columns = {split: _columns(rows, by_split[split]) for split, rows in raw.items()}
    if len(by_split) > 1:  # the names of the files tell the splits
        columns = {split: replace(found, split=None) for split, found in columns.items()}
    separator = _separator(raw, columns, request.kind, path)
    rows: dict[str | None, list[Row]] = {}
    classes: dict[str, tuple[str, ...]] = {}
    for split, table in by_split.items():
        found = _rows(raw[split], columns[split], table, separator, split, request.problems)
        names = [raw[split][0][place] for place in columns[split].labels]
        classes[split] = tuple(names) if columns[split].bits else sort_labels(n for row in found for n in row.labels)
        for row in found:
            rows.setdefault(row.split, []).append(row)
    if not any(classes.values()):
        raise UserError(f"{path} names no label at all: fill the column of the labels.")

    def open_split(split: str) -> Split:
        if split == "train" and (strange := rows.get(None)):
            request.problems.add(
                "rows of no known split, left out", strange[0].where, lost="images", count=len(strange)
            )
        if split not in rows:
            raise UserError(f"{path} has no images of the split {split}.")
        table = by_split.get(split) or next(iter(by_split.values()))
        known = classes.get(split) or next(iter(classes.values()))
        return _split(rows[split], known, request, partial(_find, split=split, beside=table.parent))

    val, test = (partial(open_split, split) if split in rows else None for split in ("val", "test"))
    return Openers(partial(open_split, "train"), val or test, test)


def _tables_in(folder: Path) -> list[Path]:
    """The tables of a folder; those that only give the form of an answer to a contest are left out."""
    if not folder.is_dir():
        return []
    files = (path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and not is_ignored(path.name))
    named = (path for path in files if path.stem.lower() != "metadata" and "submission" not in path.stem.lower())
    return sorted(path for path in named if _is_header(read_header(path)))


def _tables(path: Path) -> dict[str, Path]:
    """The table of each split; one that is alone is that of training."""
    if not path.is_dir():
        return {"train": path}
    tables = _tables_in(path) or [file for file in (path / "metadata.csv",) if file.is_file()]
    if not tables:
        raise UserError(f"{path} has no CSV file with a column of images and one of labels, such as file,labels.")
    names = {table.stem: table for table in tables}
    train, val, test = choose_splits(names, place=path)
    if len(tables) == 1:
        return {"train": tables[0]}
    if train is None and not (val and len(tables) == len({val, test} - {None})):
        raise UserError(f"{path} has several tables, {preview([table.name for table in tables])}: name one of them.")
    chosen = {"train": train, "val": val if val != test else None, "test": test}
    if others := sorted(set(names) - {train, val, test}):
        log.warning("%s: tables left out: %s", path, preview(others))
    return {split: names[name] for split, name in chosen.items() if name}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _is_header(cells: Sequence[str]) -> bool:
    names = [_plain(cell) for cell in cells]
    if BOXES & set(names) or not set(FILES) & set(names):
        return False
    return bool(set(LABELS) & set(names)) or len(names) > 2


def _columns(rows: Sequence[Sequence[str]], table: Path) -> Columns:
    """Which column is which.

    Raises:
        UserError: it cannot be told.
    """
    if not rows:
        raise UserError(f"{table} is empty: it needs a header and a row per image.")
    header = list(rows[0])
    names = [_plain(cell) for cell in header]

    def place(known: Sequence[str]) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    file, label, split, held_out = map(place, (FILES, LABELS, SPLITS, HELD_OUT))
    if file is None and len(header) == 2 and os.path.splitext(header[0])[1].lower() in EXTENSIONS:
        return Columns(0, (1,))
    mend = "name them in the first row, for example file,labels"
    if file is None:
        raise UserError(f"{table} has no column of images (its columns: {preview(header)}); {mend}.")
    flags = held_out if split is None else None
    if label is not None:
        others = [names[i] for i in range(len(names)) if i not in (file, label, split, flags)]
        if others:
            log.info("%s: the labels are the column %s; left out: %s", table, header[label], preview(others))
        return Columns(file, (label,), False, split if flags is None else flags, flags is not None)
    rest = [i for i in range(len(header)) if i not in (file, split, flags) and names[i] not in ("", "unnamed0")]
    whole = [row for row in rows[1:] if len(row) == len(header)]
    bits = tuple(i for i in rest if whole and all(row[i].lower() in BITS for row in whole))
    if not bits:
        raise UserError(f"{table} has no column of labels, nor one of 0 and 1 per class ({preview(header)}); {mend}.")
    if twice := [header[i] for i in bits if header.count(header[i]) > 1]:
        raise UserError(f"{table} has two columns called {twice[0]}: rename or remove one.")
    if others := [header[i] for i in rest if i not in bits]:
        log.warning("%s: columns with other values than 0 and 1 left out: %s", table, preview(others))
    return Columns(file, bits, True, split if flags is None else flags, flags is not None)


def _separator(
    raw: Mapping[str, Sequence[Sequence[str]]], columns: Mapping[str, Columns], kind: str, path: Path
) -> str | None:
    """What stands between labels: a sign, "" for blanks, None where a cell is one label.

    Of data with one label per image, names of classes may have commas and blanks in them: cells that have some are
    lists where they are made of fewer labels than there are cells.

    Raises:
        UserError: lists, where an image is to have one label.
    """
    cells = set()
    for split, rows in raw.items():
        if not columns[split].bits:
            place = columns[split].labels[0]
            cells |= {row[place] for row in rows[_first(rows, columns[split]) :] if place < len(row)}
    for sign in (*SEPARATORS, ""):
        lists = [cell for cell in cells if len(_parts(cell, sign)) > 1]
        if not lists:
            continue
        if kind != "class":
            log.info("%s: labels are apart by %s, as in %s", path, sign or "blanks", min(lists)[:60])
            return sign
        if sign in ("|", ";") or len({part for cell in cells for part in _parts(cell, sign)}) < len(cells):
            raise UserError(
                f"{path} has images with several labels ({shown(min(lists))}): --task multilabel learns all of them."
            )
    return None


def _parts(cell: str, sign: str | None) -> list[str]:
    """The labels in a cell; a list may have brackets and quotes around it, as Python writes it."""
    if sign is None:
        return [cell] if cell else []
    parts = (part.strip(" \t\n'\"") for part in cell.strip("[](){} ").split(sign or None))
    return [part for part in parts if part]


def _first(rows: Sequence[Sequence[str]], columns: Columns) -> int:
    """The first row that is no header."""
    header = columns.bits or os.path.splitext(rows[0][columns.file])[1].lower() not in EXTENSIONS
    return int(header)


def _rows(
    raw: Sequence[Sequence[str]], columns: Columns, table: Path, separator: str | None, split: str, problems: Problems
) -> list[Row]:
    found, header = [], raw[0]
    for number, cells in enumerate(raw[_first(raw, columns) :], 1):
        where = f"{table.name} row {number}"
        if len(cells) != len(header):
            kind = "rows with more or fewer cells than the first one (a list without quotes?), left out"
            problems.add(kind, where, lost="images")
            continue
        if columns.bits:
            labels = [header[place] for place in columns.labels if BITS[cells[place].lower()]]
        else:
            labels = _parts(cells[columns.labels[0]], separator)
        told: str | None = split
        if columns.split is not None:
            cell = cells[columns.split]
            told = split_of(cell)
            if columns.held_out:
                told = {True: "val", False: "train", None: None}[BITS.get(cell.lower())]
        found.append(Row(where, cells[columns.file], tuple(dict.fromkeys(labels)), told))
    return found


def _find(names: Sequence[str], note: Callable[[str, str], object], *, split: str, beside: Path) -> list[str | None]:
    """The files of a split; those of names without an ending are told by the rest, where one alone has it."""
    inner = [place for folder in folders_in(beside) for place in (folder, *folders_in(folder))]
    inner = sorted(inner, key=lambda folder: (split_of(folder.name) != split, folder))[:MOST_FOLDERS]
    found = locate(names, [beside, *inner], note)
    bare = [i for i, path in enumerate(found) if path is None and not _has_ending(names[i])]
    if bare:
        stems: dict[str, str] = {}
        for folder in (beside, *reversed(inner)):  # the likeliest comes last
            there: dict[str, list[str]] = {}
            for path in map(str, files_in(folder, EXTENSIONS)):
                there.setdefault(os.path.splitext(os.path.basename(path))[0], []).append(path)
            stems |= {stem: paths[0] for stem, paths in there.items() if len(paths) == 1}
        for index in bare:
            found[index] = path = stems.get(os.path.basename(names[index]))
            if path is not None:
                note("names without an ending, found by the rest", f"{names[index]} is {path}")
    return found


def _has_ending(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _split(
    rows: Sequence[Row], classes: tuple[str, ...], request: Request,
    find: Callable[[Sequence[str], Callable[[str, str], object]], list[str | None]],
) -> Split:  # fmt: skip
    problems, labels = request.problems, dict[str, set[str]]()
    for row, path in zip(rows, find([row.name for row in rows], problems.note), strict=True):
        if path is None:
            problems.add("missing images, left out", f"{shown(row.name)}, {row.where}", lost="images")
        elif os.path.splitext(path)[1].lower() in UNREAD:
            problems.note("images of formats that are not read, left out", path, lost="images")
        elif (path := os.path.normpath(path)) in labels:
            problems.note("rows of an image that has one already, whose labels are taken together", row.where)
            labels[path] |= set(row.labels)
        else:
            labels[path] = set(row.labels)
    if request.kind == "class":
        for path, names in list(labels.items()):
            if len(names) != 1:
                lack = "without a label" if not names else "with several labels (--task multilabel learns them)"
                problems.add(f"images {lack}, left out", path, lost="images")
                del labels[path]
        return Split(reader=Files(), entries=list(labels), classes=classes, names=[*(n for (n,) in labels.values())])
    index = {name: label for label, name in enumerate(classes)}
    return Split(
        reader=Files(), entries=list(labels), classes=classes,
        labels=[sorted(index[name] for name in names) for names in labels.values()],
    )  # fmt: skip
