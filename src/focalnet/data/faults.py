"""What is wrong with data, out of the facts of a look at all of it (`check.py`): a sentence each, with how to mend it.

A fault is fatal where a training would be wrong: it would stop at an image, its metrics would say nothing, or it would
learn other classes than those that are meant.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from focalnet.data.base import OnBadImage
from focalnet.data.check import (
    ALONE,
    BARE,
    EMPTY,
    OUTSIDE,
    SMALL,
    STRANGE,
    TINY,
    UNREADABLE,
    VOID,
    Facts,
    SplitFacts,
    TwinFacts,
)
from focalnet.data.problems import WORDS, Finding, preview

LEAKED = 0.01
"""Of the validation images: if more are in the training split too, its metrics say nothing."""
UNKNOWN = 0.01
"""Of the label maps: if more have values that mean nothing, the classes are other ones than those of the maps."""
UNEVEN = 10
"""Images or objects of the commonest class for one of the rarest, from which on that is worth saying."""
MANY = 0.5
"""Of all images: so many of one color, or without an object, are no exception."""


class Fault(NamedTuple):
    """One thing that is wrong, in a sentence; `fatal` where training would be wrong too."""

    text: str
    fatal: bool = False


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        data: where the data is.
        task: what it was checked for.
        description: the data in one sentence.
        facts: what is there.
        faults: what is wrong, the worst first.
        left_out: what was left out or mended when the data was opened.
    """

    data: str
    task: str
    description: str
    facts: Facts
    faults: tuple[Fault, ...]
    left_out: tuple[Finding, ...]

    @property
    def errors(self) -> list[str]:
        """What would make a training wrong, a sentence each."""
        return [fault.text for fault in self.faults if fault.fatal]

    @property
    def warnings(self) -> list[str]:
        """What is worth knowing, a sentence each."""
        return [fault.text for fault in self.faults if not fault.fatal]

    def to_dict(self) -> dict[str, Any]:
        """The content, for JSON."""
        return {
            "data": self.data, "task": self.task, "description": self.description, "errors": self.errors,
            "warnings": self.warnings, "left_out": [str(finding) for finding in self.left_out], **asdict(self.facts),
        }  # fmt: skip


def judge(facts: Facts, *, on_bad_image: OnBadImage = "stop", set_aside: bool = False) -> tuple[Fault, ...]:
    """What is wrong, the worst first.

    Args:
        facts: of `look`.
        on_bad_image: whether training stops at an image that cannot be read, or goes on without.
        set_aside: whether the validation split was drawn from the training images: what both have is then nobody's
            mistake in splitting them, and not fatal.
    """
    found = [fault for split in facts.splits for fault in _of_split(split, on_bad_image)]
    found += [*_doubles(facts, set_aside), *_classes(facts)]
    return tuple(sorted(found, key=lambda fault: not fault.fatal))


def _of_split(split: SplitFacts, on_bad_image: OnBadImage) -> Iterator[Fault]:
    images, maps = (f"of {split.images} {WORDS[split.split]} {what}" for what in ("images", "label maps"))

    def first(kind: str) -> tuple[int, str]:
        return split.found.get(kind, (0, ""))

    count, error = first(UNREADABLE)
    if count:
        stop = on_bad_image == "stop"
        text = f"{count} {images} cannot be read; the first: {error}"
        yield Fault(
            f"{text} To go on without: --on-bad-image skip." if stop else text, stop or 2 * count > split.images
        )
    count, name = first(STRANGE)
    if count:
        yield Fault(
            f"{count} {maps} with values that no class has, which are not learned (first: {name}): list every class, "
            "in the order of the values.",
            count > UNKNOWN * split.images,
        )
    count, name = first(VOID)
    if count:
        yield Fault(f"{count} {maps} without a pixel of any class (first: {name}).", count == split.images)
    count, name = first(BARE)
    if count > MANY * split.images:
        yield Fault(f"{count} {images} without an object (first: {name}).", count == split.images)
    for kind, what in (
        (EMPTY, "of no area"),
        (OUTSIDE, "reaching out of the image"),
        (SMALL, f"with a side of less than {TINY} pixels, which is hardly learned"),
    ):
        count, name = first(kind)
        if count:
            yield Fault(f"{count} {WORDS[split.split]} {'box' if count == 1 else 'boxes'} {what} (first: {name}).")
    count, name = first(ALONE)
    if count:
        yield Fault(f"{count} {images} of a single color (first: {name}).")


def _doubles(facts: Facts, set_aside: bool) -> Iterator[Fault]:
    train, val = facts.splits

    def example(fits: Callable[[TwinFacts], bool]) -> str:
        return next((f"first: {twin.names[1]} is {twin.names[0]}" for twin in facts.twins if fits(twin)), "")

    def count(kind: str) -> tuple[int, str]:
        return facts.repeats.get(kind, 0), example(lambda twin: twin.kind == kind)

    both, first = count("same both")
    if both:
        text = f"{both} of {val.images} validation images {_be(both)} in training too, pixel by pixel ({first})"
        mend = "remove one of each" if set_aside else "keep each image in one split"
        yield Fault(f"{text}: {mend}, or the validation is too good.", not set_aside and both > LEAKED * val.images)
    near, first = count("near both")
    if near:
        yield Fault(
            f"{near} of {val.images} validation images {_be(near)} nearly in training too ({first}): copies, or frames "
            "of one film, on two splits make the validation too good."
        )
    if torn := facts.repeats.get("same classes"):
        first = example(lambda twin: twin.contradict and twin.kind.startswith("same"))
        images = "image has" if torn == 1 else "images have"
        yield Fault(f"{torn} {images} the pixels of one of another class ({first}): keep one of each.")
    for kind, how in (("same train", "the same as another one, pixel by pixel"), ("near train", "nearly another one")):
        repeated, first = count(kind)
        if repeated:
            yield Fault(f"{repeated} of {train.images} training images {_be(repeated)} {how} ({first}).")


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _classes(facts: Facts) -> Iterator[Fault]:
    train, val = ([(row.name, row.objects or row.images) for row in split.classes] for split in facts.splits)
    for rows, use in ((train, "train"), (val, "validate")) if facts.kind == "semantic" else ():
        if lacking := [name for name, count in rows if not count]:
            yield Fault(f"no pixel to {use} on of {preview(lacking)}.")
    there = sorted((count, name) for name, count in train if count)
    if facts.kind == "semantic" or len(there) < 2 or there[-1][0] < UNEVEN * there[0][0]:
        return
    unit = "objects" if any(row.objects for row in facts.splits[0].classes) else "images"
    mend = ": --class-weights balanced counts them alike" if facts.kind == "class" else ""
    (least, rare), (most, common) = there[0], there[-1]
    yield Fault(f"the classes are uneven, {common} has {most} training {unit} and {rare} {least}{mend}.")
