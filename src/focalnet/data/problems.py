"""What is wrong with data, and how it is told: in one line of the log, or in one sentence that stops the run.

Formats count what they leave out or mend in `Problems`, each by its reason with the first example. The opening step
takes the counts of each split as its `Findings`, tells them, and stops where too little is left (`settle`).
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from focalnet.errors import UserError, agreeing, counted

log = logging.getLogger(__name__)

OnBadAnnotation = Literal["skip", "stop"]
Unit = Literal["images", "annotations"]
"""What can be lost; an annotation is an object or a segment."""

WORDS = {"train": "training", "val": "validation", "test": "test"}
"""What messages call the splits."""

LOOKED_AT = 50
"""About so many files of each split are looked at when the data is opened."""
LARGEST = 10**9
"""Whole numbers beyond are no sizes."""

Entry = TypeVar("Entry")


class Finding(NamedTuple):
    """One kind of thing that was found.

    Attributes:
        kind: a plural with what became of them: "boxes of no area, left out".
        count: how many there are.
        first: the first of them.
        lost: what each costs, if anything.
        broken: False of what is only worth saying, and never stops.
    """

    kind: str
    count: int
    first: str
    lost: Unit | None = None
    broken: bool = True

    def __str__(self) -> str:
        return f"{counted(self.count, self.kind)} (first: {self.first})"


class Problems:
    """Takes in what a format finds, counted by kind, with the first example of each."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Unit | None, bool], tuple[int, str]] = {}

    def add(self, kind: str, example: str, *, lost: Unit | None = None, count: int = 1) -> None:
        """Count something that is wrong. `kind` is a plural with what became of them: "boxes of no area, left out"."""
        self._add(kind, example, lost, count, broken=True)

    def note(self, kind: str, example: str, *, lost: Unit | None = None, count: int = 1) -> None:
        """Count something that is worth saying, but no mistake of the data: "names with blanks, read as a path"."""
        self._add(kind, example, lost, count, broken=False)

    def _add(self, kind: str, example: str, lost: Unit | None, count: int, *, broken: bool) -> None:
        before, first = self._found.get((kind, lost, broken), (0, example))
        self._found[kind, lost, broken] = before + count, first

    @property
    def found(self) -> tuple[Finding, ...]:
        """What was counted so far."""
        return tuple(
            Finding(kind, count, first, lost, broken)
            for (kind, lost, broken), (count, first) in self._found.items()
            if count
        )

    def take(self) -> tuple[Finding, ...]:
        """What was counted since the last call."""
        found = self.found
        self._found = {}
        return found

    def report(self, place: str, on_bad_annotation: OnBadAnnotation) -> None:
        """Tell all in one line of the log, or stop; see `settle`."""
        settle(place, [Findings(split="", images=0, found=self.found)], on_bad_annotation, check=False)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the opening step knows of a split.

    Attributes:
        split: "train", "val" or "test".
        images: how many are kept.
        annotations: objects or segments on them that are kept; None where they are not counted.
        crowd: how many of these are crowd regions.
        found: what was left out, mended, or is worth saying.
    """

    split: str
    images: int
    annotations: int | None = None
    crowd: int = 0
    found: tuple[Finding, ...] = ()

    def lost(self, unit: Unit) -> int:
        """How many images or annotations were left out."""
        return sum(finding.count for finding in self.found if finding.lost == unit)


def settle(place: str, splits: Sequence[Findings], on_bad_annotation: OnBadAnnotation, *, check: bool = True) -> None:
    """Tell what was found in all splits, in one line for what is broken and one for what is worth saying, or stop.

    Args:
        place: what to call the data.
        splits: what is known of them.
        on_bad_annotation: "stop" refuses data with anything broken.
        check: whether to stop where nothing, or less than half, of the images or annotations of a split is left.

    Raises:
        UserError: it is to stop; the counted reasons come first.
    """
    together: dict[tuple[Any, ...], Finding] = {}
    for one in (finding for findings in splits for finding in findings.found):
        before = together.get((one.kind, one.lost, one.broken))
        together[one.kind, one.lost, one.broken] = before._replace(count=before.count + one.count) if before else one
    worth, broken = ("; ".join(str(one) for one in together.values() if one.broken is which) for which in (False, True))
    if broken and on_bad_annotation == "stop":
        raise UserError(f"{place} has broken annotations: {broken}. Mend them, or --on-bad-annotation skip.")
    for findings in splits if check else ():
        _check_left(place, findings)
    if worth:
        log.warning("%s: %s", place, worth)
    if broken:
        log.warning("%s: broken annotations: %s", place, broken)


def _check_left(place: str, findings: Findings) -> None:
    kept: dict[Unit, int | None] = {"images": findings.images, "annotations": findings.annotations}
    for unit, left in kept.items():
        lost = findings.lost(unit)
        if left is not None and lost > left:
            reasons = "; ".join(str(finding) for finding in findings.found if finding.lost == unit)
            raise UserError(
                f"{place}: {reasons}. So {f'only {left}' if left else 'none'} of {counted(lost + left, unit)} "
                f"{agreeing(left, 'are')} left in the {WORDS[findings.split]} split, less than half: mend the data, or "
                "take out what is not meant."
            )


def number(value: Any) -> float | None:
    """A finite number in any spelling, 96, 96.0 or "96"; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def whole(value: Any) -> int | None:
    """A whole number in any spelling; None of anything else."""
    read = number(value)
    return int(read) if read is not None and read == int(read) and abs(read) <= LARGEST else None


def some(entries: Sequence[Entry], most: int = LOOKED_AT) -> Sequence[Entry]:
    """About `most` of them, evenly spread."""
    return entries[:: max(1, len(entries) // most)]


def preview(names: Sequence[str], most: int = 8) -> str:
    """The first few names, for a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def endings(files: Iterable[str]) -> str:
    """How often each ending occurs among files, for a sentence: ".txt 3, .heic 1"."""
    counts = Counter("." + name.rpartition(".")[2].lower() if "." in name[1:] else name for name in files)
    return preview([f"{ending} {count}" for ending, count in counts.most_common()])
