"""What is wrong with data, and how it is told: in one line of the log, or in one sentence that stops the run."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

from focalnet.errors import UserError

log = logging.getLogger(__name__)

OnBadAnnotation = Literal["skip", "stop"]

LOOKED_AT = 50
"""About so many files of each split are looked at when the data is opened."""

Entry = TypeVar("Entry")


class Problems:
    """What is wrong with the annotations of one place: counted by kind, with the first example of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, kind: str, example: str) -> None:
        """Count one. `kind` is a plural with what became of them: "boxes of no area, left out"."""
        self.counts[kind] += 1
        self.examples.setdefault(kind, example)

    def report(self, place: str, on_bad_annotation: OnBadAnnotation) -> None:
        """Tell all in one line of the log, or stop.

        Raises:
            UserError: something is wrong and `on_bad_annotation` is "stop".
        """
        if not self.counts:
            return
        found = "; ".join(f"{count} {kind} (first: {self.examples[kind]})" for kind, count in self.counts.items())
        if on_bad_annotation == "stop":
            raise UserError(f"{place} has broken annotations: {found}. Mend them, or --on-bad-annotation skip.")
        log.warning("%s: broken annotations: %s", place, found)


def some(entries: Sequence[Entry]) -> Sequence[Entry]:
    """About `LOOKED_AT` of them, evenly spread."""
    return entries[:: max(1, len(entries) // LOOKED_AT)]


def preview(names: Sequence[str], most: int = 8) -> str:
    """The first few names, for a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def endings(files: Iterable[str]) -> str:
    """How often each ending occurs among files, for a sentence: ".txt 3, .heic 1"."""
    counts = Counter("." + name.rpartition(".")[2].lower() if "." in name[1:] else name for name in files)
    return preview([f"{ending} {count}" for ending, count in counts.most_common()])
