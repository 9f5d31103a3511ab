"""Which column of a table is which.

    with a header       columns by their names, in their usual spellings (`FILES` and so on), in upper or lower case
    without             a file and its label, apart by a comma or by blanks: the lists of mmaction and Video-FocalNets

Rows of Kinetics name a part of a film, youtube_id, time_start and time_end: its file is called `id_000010_000020`.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from focalnet.data.kinds import SUFFIXES
from focalnet.data.problems import preview
from focalnet.data.splits import sort_labels, split_of
from focalnet.errors import UserError
from focalnet.reading import read_header, read_lines, read_table

log = logging.getLogger(__name__)

FILES = ("file", "filename", "filepath", "fname", "image", "imagefile", "imagename", "imagepath", "imageid",
         "imageindex", "img", "imgname", "imgpath", "path", "slicefilename", "audio", "video", "youtubeid",
         "id")  # fmt: skip
LABELS = ("labels", "label", "tags", "tag", "classes", "class", "classname", "categories", "category", "targets",
          "target", "findinglabels")  # fmt: skip
SPLITS = ("split", "set", "subset", "partition", "phase")
HELD_OUT = ("isvalid", "isval", "isvalidation", "valid", "val", "validation")
TIMES = ("timestart", "timeend")
"""Of the part of a film, in seconds."""
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


@dataclass(frozen=True)
class Columns:
    """Places of the columns.

    Attributes:
        file: of the names of files.
        labels: one, or with `bits` one per class.
        bits: whether these have 0 and 1.
        split: of what tells the split of a row.
        splits: the split of each value there, but for words that tell it themselves.
        times: of start and end, which belong to the names of files.
        header: whether the first row is one.
    """

    file: int
    labels: tuple[int, ...]
    bits: bool = False
    split: int | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    times: tuple[int, ...] = ()
    header: bool = True

    def name(self, cells: Sequence[str]) -> str:
        """The name of the file of a row."""
        try:
            times = [int(float(cells[place])) for place in self.times]
        except (ValueError, OverflowError):
            times = []
        return "_".join([cells[self.file], *(f"{time:06d}" for time in times)])

    def split_of(self, cells: Sequence[str], usual: str) -> str | None:
        """The split of a row; None where it tells none that is known."""
        if self.split is None:
            return usual
        cell = cells[self.split]
        return self.splits.get(cell.lower()) if self.splits else split_of(cell)


def fits(table: Path) -> bool:
    """Whether a file looks like such a table, by its first row."""
    cells = read_header(table)
    names = [_plain(cell) for cell in cells]
    if _is_list(cells):
        return True
    if BOXES & set(names) or not set(FILES) & set(names):
        return False
    return bool(set(LABELS) & set(names)) or len(names) > 2


def read_rows(table: Path) -> list[list[str]]:
    """The cells of every row."""
    rows = read_table(table)
    if rows and len(rows[0]) == 1 and _is_list(rows[0]):
        return [line.rsplit(None, 1) for line in read_lines(table) if line]
    return rows


def _is_list(cells: Sequence[str]) -> bool:
    """Whether cells are a file and its label, without a header."""
    parts = cells[0].rsplit(None, 1) if len(cells) == 1 else cells
    return len(parts) == 2 and os.path.splitext(parts[0])[1].lower() in SUFFIXES


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def columns_of(rows: Sequence[Sequence[str]], table: Path, noun: str) -> Columns:
    """Which column is which.

    Args:
        rows: of the table.
        table: what to call it.
        noun: what its files are; those of sounds may be in folds.

    Raises:
        UserError: it cannot be told.
    """
    if not rows:
        raise UserError(f"{table} is empty: it needs a header and a row per {noun}.")
    header = list(rows[0])
    names = [_plain(cell) for cell in header]

    def place(known: Sequence[str]) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    file, label, split, held_out = map(place, (FILES, LABELS, SPLITS, HELD_OUT))
    if _is_list(header):
        return Columns(0, (1,), header=False)
    mend = "name them in the first row, for example file,labels"
    if file is None:
        raise UserError(f"{table} has no column of {noun}s (its columns: {preview(header)}); {mend}.")
    times = tuple(names.index(name) for name in TIMES if name in names) if names[file] == "youtubeid" else ()
    splits: dict[str, str] = {}
    if split is None and held_out is not None:
        split, splits = held_out, {cell: "val" if bit else "train" for cell, bit in BITS.items()}
    elif split is None and noun == "sound" and "fold" in names:
        split = names.index("fold")
        splits = _folds([row[split] for row in rows[1:] if len(row) == len(header)], table)
    if label is not None:
        others = [names[i] for i in range(len(names)) if i not in (file, label, split, *times)]
        if others:
            log.info("%s: the labels are the column %s; left out: %s", table, header[label], preview(others))
        return Columns(file, (label,), False, split, splits, times)
    rest = [i for i in range(len(header)) if i not in (file, split, *times) and names[i] not in ("", "unnamed0")]
    whole = [row for row in rows[1:] if len(row) == len(header)]
    bits = tuple(i for i in rest if whole and all(row[i].lower() in BITS for row in whole))
    if not bits:
        raise UserError(f"{table} has no column of labels, nor one of 0 and 1 per class ({preview(header)}); {mend}.")
    if twice := [header[i] for i in bits if header.count(header[i]) > 1]:
        raise UserError(f"{table} has two columns called {twice[0]}: rename or remove one.")
    if others := [header[i] for i in rest if i not in bits]:
        log.warning("%s: columns with other values than 0 and 1 left out: %s", table, preview(others))
    return Columns(file, bits, True, split, splits, times)


def _folds(cells: Sequence[str], table: Path) -> dict[str, str]:
    """The split of each fold, as ESC-50's are used: the last is the test, the one before it validates."""
    folds = sort_labels(cell.lower() for cell in cells if cell)
    if len(folds) < 3:
        return {}
    *train, val, test = folds
    log.info("%s: trained on the folds %s, validated on %s, tested on %s", table, preview(train), val, test)
    return dict.fromkeys(train, "train") | {val: "val", test: "test"}
