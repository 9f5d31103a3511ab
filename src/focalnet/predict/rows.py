"""A file of predictions, a JSON object per line, that goes on where it was stopped.

Beside `found.jsonl` stands `found.options.json`: which weights made it, with which options. Rows of other ones are not
mixed with these. A row is written when it is known, in one piece: a process that is killed leaves whole rows, and at
most one without its end, which is taken away. An image is done when it has a row, a film when it has its last one
(`"last": true`); the rows of a film that was stopped are taken away, and it is done again.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focalnet.errors import UserError
from focalnet.reading import each_line, parse_json, read_object, shown, write_json

MEND = "give another --out"


class Rows:
    """The file, open for more rows.

    Args:
        path: of the rows; its folder is made.
        made_by: what the rows depend on, for JSON: weights and options.

    Attributes:
        done: sources that have all their rows, and how often.

    Raises:
        UserError: there are rows of other weights or options, or what is there is no such file.
    """

    def __init__(self, path: Path, made_by: Mapping[str, Any]) -> None:
        self.path, self.beside = path, path.with_suffix(".options.json")
        self.done: Counter[str] = Counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size:
            self._check(made_by)
            self._mend(self._unfinished())
        else:
            self.beside.write_text(write_json(made_by, 1) + "\n", encoding="utf-8")
        self.file = path.open("a", encoding="utf-8", errors="surrogateescape")

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row; a kill of this process does not take it away again."""
        self.file.write(write_json(row) + "\n")
        self.file.flush()

    def take(self, source: str) -> bool:
        """Whether a source is done; one that is named twice is done when it was done twice."""
        self.done[source] -= 1
        return self.done[source] >= 0

    def _check(self, made_by: Mapping[str, Any]) -> None:
        if not self.beside.exists():
            raise UserError(f"{self.path} has rows, and {self.beside}, which says what made them, is gone; {MEND}.")
        before = read_object(self.beside, mend=MEND)
        for name, value in parse_json(write_json(made_by), "the options").items():
            if before.get(name) != value:
                other = (
                    "other weights" if name == "weights" else f"{name} {shown(before.get(name))}, not {shown(value)}"
                )
                raise UserError(f"{self.path} was made with {other}; {MEND}, or the same model and options.")

    def _unfinished(self) -> set[int]:
        """Numbers of the lines that are to be made again; the others are counted in `done`."""
        begun: dict[str, list[int]] = {}
        cut = set[int]()
        for number, line in enumerate(each_line(self.path, mend=MEND)):
            if not line.endswith("\n"):
                cut.add(number)
                break
            row = parse_json(line, f"line {number + 1} of {self.path}", mend=MEND)
            if not isinstance(row, dict) or not isinstance(source := row.get("source"), str):
                raise UserError(f"line {number + 1} of {self.path} is no prediction; {MEND}.")
            if "frame" in row:
                begun.setdefault(source, []).append(number)
            if "frame" not in row or row.get("last"):
                self.done[source] += 1
                begun.pop(source, None)
        return cut.union(*begun.values())

    def _mend(self, lines: set[int]) -> None:
        if not lines:
            return
        mended = self.path.with_name(self.path.name + ".new")
        with mended.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            for number, line in enumerate(each_line(self.path, mend=MEND)):
                if number not in lines:
                    file.write(line)
        mended.replace(self.path)
