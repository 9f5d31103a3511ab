"""The handwritten digits inside scikit-learn: 1,797 real images of 8 x 8 pixels and 17 grey levels, by 13 people.

Every fourth image of each class is the validation side, always: no seed moves it, so figures of different runs
compare, and that quarter is never trained on. The images come writer after writer, so both sides have all writers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from focalnet.data.base import Part
from focalnet.errors import MissingExtraError


@dataclass(frozen=True)
class Digits:
    """Reads from the array in memory; `where` is a row."""

    images: np.ndarray

    def name(self, where: int) -> str:
        return f"digits[{where}]"

    def read(self, where: int) -> Image.Image:
        return Image.fromarray(self.images[where]).convert("RGB")


def open_digits() -> tuple[Part, Part]:
    """The training side (1,352 images) and the validation side (445), white on black.

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
    part = Part(Digits(images), range(len(names)), names, tuple(sorted(set(names))))
    val = sorted(int(row) for name in part.classes for row in np.flatnonzero(np.array(names) == name)[3::4])
    return part.take(sorted(set(range(len(names))) - set(val))), part.take(val)
