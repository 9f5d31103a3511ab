"""Groups of one to four handwritten digits, for multi-label classification: which digits are there?

Each group is an image of 16 x 16 pixels with scikit-learn's 8 x 8 digits (`digits.py`) in some of its quarters, chosen
at random, as the digits are. Group i of a split depends on nothing but (split, i), and held-out groups show the
validation digits only.
"""

from dataclasses import dataclass

import numpy as np

from focalnet.data.base import Load, Openers, Request, Split
from focalnet.data.formats.digits import Digits, open_digits
from focalnet.inputs.image import Signal, load_image

TRAIN_GROUPS = 3000
VAL_GROUPS = 500
SIDE = 8
"""Of a digit."""

Group = tuple[int, tuple[int, ...], tuple[int, ...]]
"""Its number, the quarters that have a digit, and the rows of these digits."""


@dataclass(frozen=True)
class DigitGroups:
    """Lays digits (D, 8, 8) side by side; an entry is a group."""

    digits: np.ndarray
    split: str

    def name(self, entry: Group) -> str:
        return f"digit_groups/{self.split}[{entry[0]}]"

    def read(self, entry: Group, load: Load = load_image) -> Signal:
        pixels = np.zeros((2 * SIDE, 2 * SIDE), np.uint8)
        for quarter, row in zip(*entry[1:], strict=True):
            top, left = (SIDE * part for part in divmod(quarter, 2))
            pixels[top : top + SIDE, left : left + SIDE] = self.digits[row]
        return load(pixels)


def find_digit_groups(source: str, _: Request) -> Openers:
    """What opens both splits; see `open_digit_groups`."""
    train, val = open_digit_groups()
    return Openers(lambda: train, lambda: val)


def open_digit_groups() -> tuple[Split, Split]:
    """The training split (3,000 groups) and the validation split (500), with the digits that occur as labels.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    splits = []
    for stream, (digits, count) in enumerate(zip(open_digits(), (TRAIN_GROUPS, VAL_GROUPS), strict=True)):
        assert isinstance(digits.reader, Digits)
        labels = np.array([int(name) for name in digits.names or ()])
        groups = [_draw(stream, number, len(digits)) for number in range(count)]
        splits.append(
            Split(
                reader=DigitGroups(digits.reader.images[list(digits.entries)], ("train", "val")[stream]),
                entries=groups,
                classes=digits.classes,
                labels=[sorted(set(labels[list(rows)].tolist())) for _, _, rows in groups],
            )
        )
    return splits[0], splits[1]


def _draw(stream: int, number: int, digits: int) -> Group:
    rng = np.random.default_rng((stream, number))
    quarters = np.flatnonzero(rng.permutation(4) < rng.integers(1, 5))
    return number, tuple(quarters.tolist()), tuple(rng.integers(digits, size=len(quarters)).tolist())
