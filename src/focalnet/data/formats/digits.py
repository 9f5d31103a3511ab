"""The handwritten digits inside scikit-learn: 1,797 real images of 8 x 8 pixels and 17 grey levels, by 13 people.

Every fourth image of each class is the validation split, always: no seed moves it, so figures of different runs
compare, and that quarter is never trained on. The images come writer after writer, so both splits have all writers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from focalnet.data.base import Load, Openers, Request, Split
from focalnet.errors import MissingExtraError
from focalnet.inputs.image import Signal, load_image


@dataclass(frozen=True)
class Digits:
    """Reads from the array in memory; an entry is a row."""

    images: np.ndarray

    def name(self, entry: int) -> str:
        return f"digits[{entry}]"

    def read(self, entry: int, load: Load = load_image) -> Signal:
        return load(self.images[entry])


def find_digits(source: str, _: Request) -> Openers:
    """What opens both splits; see `open_digits`."""
    train, val = open_digits()
    return Openers(lambda: train, lambda: val)


def open_digits() -> tuple[Split, Split]:
    """The training split (1,352 images) and the validation split (445), white on black.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("the handwritten digits", "train") from error
    digits: Any = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    names = [str(label) for label in digits.target]
    classes = tuple(sorted(set(names)))
    whole = Split(reader=Digits(images), entries=range(len(names)), classes=classes, names=names)
    val = sorted(int(row) for name in classes for row in np.flatnonzero(np.array(names) == name)[3::4])
    return whole.take(sorted(set(range(len(names))) - set(val))), whole.take(val)
