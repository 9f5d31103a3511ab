"""CSV files with a row per image, sound or film, which names its label or its labels.

    file      relative to the CSV or to a folder beside it, with or without its ending
    labels    one column, several labels apart by | ; , or blanks; or a column per class with 0 and 1
    split     train, val, test; or is_valid, true of validation; of sounds also their folds. Without it, and without a
              val.csv, a share is set aside

`table_columns` says which column is which. Classes are in the order of the columns, or that of their names. Several
rows of one image are its labels together. The tables of ESC-50 lie in a folder of their own, meta/, and those of
Kinetics in annotations/; the files are then beside it.
"""

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from focalnet.data.base import Openers, Request, Split
from focalnet.data.formats.folder import Files, is_class_folders
from focalnet.data.formats.table_columns import BITS, Columns, columns_of, fits, read_rows
from focalnet.data.kinds import input_of, noun_of
from focalnet.data.problems import Problems, preview
from focalnet.data.splits import choose_splits, sort_labels, split_of
from focalnet.errors import UserError
from focalnet.inputs.folders import UNREAD, files_in, folders_in, is_ignored, locate
from focalnet.reading import shown

log = logging.getLogger(__name__)

ENDINGS = (".csv", ".tsv", ".txt")
NOTES = ("meta", "metadata", "annotations")
"""Folders of tables, beside those of the files."""
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


def is_table(source: str) -> bool:
    """Whether a source is a CSV file, or a folder without class folders that has one of files and labels.

    Folders beside one of tables are no classes, unless they are splits that hold class folders.
    """
    path = Path(source).expanduser()
    if path.is_file():
        ending = path.suffix.lower()
        return ending in ENDINGS and (ending != ".txt" or fits(path))
    tables = _tables_in(path)
    if not tables or tables[0].parent == path:
        return bool(tables) and not is_class_folders(source)
    return not any(split_of(folder.name) and folders_in(folder) for folder in folders_in(path))


def find_table(source: str, request: Request) -> Openers:
    """Read a table, or those of a folder, and find the splits.

    Args:
        source: a CSV file, or a folder with one, or with one per split.
        request: of kind "class" an image has one label.

    Raises:
        UserError: no table, several of which none is called train, or one without files or labels.
    """
    path = Path(os.path.abspath(Path(source).expanduser()))
    noun = noun_of(request.kind)
    by_split = _tables(path, noun)
    raw = {split: read_rows(table) for split, table in by_split.items()}
    columns = {split: columns_of(rows, by_split[split], noun) for split, rows in raw.items()}
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
            raise UserError(f"{path} has no {noun}s of the split {split}.")
        table = by_split.get(split) or next(iter(by_split.values()))
        known = classes.get(split) or next(iter(classes.values()))
        places = [table.parent, *([table.parent.parent] if table.parent.name in NOTES else [])]
        find = partial(_find, split=split, places=places, suffixes=input_of(request.kind).suffixes)
        return _split(rows[split], known, request, find)

    val, test = (partial(open_split, split) if split in rows else None for split in ("val", "test"))
    return Openers(partial(open_split, "train"), val or test, test)


def _tables_in(root: Path) -> list[Path]:
    """The tables of a folder, or of the one inside it that is for tables."""
    folders = (folder for folder in (root, *(root / name for name in NOTES)) if folder.is_dir())
    return next((tables for folder in folders if (tables := _fitting(folder))), [])


def _fitting(folder: Path) -> list[Path]:
    """The tables of a folder; those that only give the form of an answer to a contest are left out."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and not is_ignored(path.name))
    named = (path for path in files if path.stem.lower() != "metadata" and "submission" not in path.stem.lower())
    return sorted(path for path in named if fits(path))


def _tables(path: Path, noun: str) -> dict[str, Path]:
    """The table of each split; one that is alone is that of training."""
    if not path.is_dir():
        return {"train": path}
    tables = _tables_in(path) or [file for file in (path / "metadata.csv",) if file.is_file()]
    if not tables:
        raise UserError(f"{path} has no CSV file with a column of {noun}s and one of labels, such as file,labels.")
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
            cells |= {row[place] for row in rows[int(columns[split].header) :] if place < len(row)}
    for sign in (*SEPARATORS, ""):
        lists = [cell for cell in cells if len(_parts(cell, sign)) > 1]
        if not lists:
            continue
        if kind == "multilabel":
            log.info("%s: labels are apart by %s, as in %s", path, sign or "blanks", min(lists)[:60])
            return sign
        several = f"{path} has {noun_of(kind)}s with several labels ({shown(min(lists))})"
        if kind == "class":
            if sign in ("|", ";") or len({part for cell in cells for part in _parts(cell, sign)}) < len(cells):
                raise UserError(f"{several}: --task multilabel learns all of them.")
        elif sign in ("|", ";"):
            raise UserError(f"{several}: give each one.")
    return None


def _parts(cell: str, sign: str | None) -> list[str]:
    """The labels in a cell; a list may have brackets and quotes around it, as Python writes it."""
    if sign is None:
        return [cell] if cell else []
    parts = (part.strip(" \t\n'\"") for part in cell.strip("[](){} ").split(sign or None))
    return [part for part in parts if part]


def _rows(
    raw: Sequence[Sequence[str]], columns: Columns, table: Path, separator: str | None, split: str, problems: Problems
) -> list[Row]:
    found, header = [], raw[0]
    for number, cells in enumerate(raw[int(columns.header) :], 1):
        where = f"{table.name} row {number}"
        if len(cells) != len(header):
            kind = "rows with more or fewer cells than the first one (a list without quotes?), left out"
            problems.add(kind, where, lost="images")
            continue
        if columns.bits:
            labels = [header[place] for place in columns.labels if BITS[cells[place].lower()]]
        else:
            labels = _parts(cells[columns.labels[0]], separator)
        found.append(Row(where, columns.name(cells), tuple(dict.fromkeys(labels)), columns.split_of(cells, split)))
    return found


def _find(
    names: Sequence[str], note: Callable[[str, str], object], *, split: str, places: Sequence[Path],
    suffixes: Collection[str],
) -> list[str | None]:  # fmt: skip
    """The files of a split; those of names without an ending are told by the rest, where one alone has it."""
    inner = [place for root in places for folder in folders_in(root) for place in (folder, *folders_in(folder))]
    inner = sorted(set(inner), key=lambda folder: (split_of(folder.name) != split, folder))[:MOST_FOLDERS]
    found = locate(names, [*places, *inner], note)
    bare = [
        index
        for index, path in enumerate(found)
        if path is None and os.path.splitext(names[index])[1].lower() not in suffixes
    ]
    if bare:
        stems: dict[str, str] = {}
        for folder in (*reversed(places), *reversed(inner)):  # the likeliest comes last
            there: dict[str, list[str]] = {}
            for path in map(str, files_in(folder, suffixes)):
                there.setdefault(os.path.splitext(os.path.basename(path))[0], []).append(path)
            stems |= {stem: paths[0] for stem, paths in there.items() if len(paths) == 1}
        for index in bare:
            found[index] = path = stems.get(os.path.basename(names[index]))
            if path is not None:
                note("names without an ending, found by the rest", f"{names[index]} is {path}")
    return found


def _split(
    rows: Sequence[Row], classes: tuple[str, ...], request: Request,
    find: Callable[[Sequence[str], Callable[[str, str], object]], list[str | None]],
) -> Split:  # fmt: skip
    problems, noun, labels = request.problems, noun_of(request.kind), dict[str, set[str]]()
    for row, path in zip(rows, find([row.name for row in rows], problems.note), strict=True):
        if path is None:
            problems.add(f"missing {noun}s, left out", f"{shown(row.name)}, {row.where}", lost="images")
        elif os.path.splitext(path)[1].lower() in UNREAD:
            problems.note("images of formats that are not read, left out", path, lost="images")
        elif (path := os.path.normpath(path)) in labels:
            a_noun = f"{'an' if noun == 'image' else 'a'} {noun}"
            problems.note(f"rows of {a_noun} that has one already, whose labels are taken together", row.where)
            labels[path] |= set(row.labels)
        else:
            labels[path] = set(row.labels)
    if request.kind != "multilabel":
        for path, names in list(labels.items()):
            if len(names) != 1:
                several = "with several labels" + " (--task multilabel learns them)" * (request.kind == "class")
                problems.add(f"{noun}s {several if names else 'without a label'}, left out", path, lost="images")
                del labels[path]
        return Split(reader=Files(), entries=list(labels), classes=classes, names=[*(n for (n,) in labels.values())])
    index = {name: label for label, name in enumerate(classes)}
    return Split(
        reader=Files(), entries=list(labels), classes=classes,
        labels=[sorted(index[name] for name in names) for names in labels.values()],
    )  # fmt: skip
