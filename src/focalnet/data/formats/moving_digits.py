"""Films of a handwritten digit that moves in one of eight directions, made when asked for.

Six frames of 16 x 16 pixels: one of scikit-learn's 8 x 8 digits moves by two pixels a frame, comes in again where it
left, and noise lies over all. A frame alone says nothing of the direction, and the same film backwards shows the
opposite one. Film i of a split depends on nothing but (split, i); held-out films show the digits of the validation
split of `digits.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from focalnet.data.base import Load, Openers, Request, Split
from focalnet.data.formats.digits import open_digits

FRAMES, SIDE, SPEED, NOISE = 6, 16, 2, 0.15
TRAIN_FILMS, VAL_FILMS = 4800, 320
DIRECTIONS = {
    "right": (0, 1), "down_right": (1, 1), "down": (1, 0), "down_left": (1, -1),
    "left": (0, -1), "up_left": (-1, -1), "up": (-1, 0), "up_right": (-1, 1),
}  # fmt: skip
CLASSES = tuple(sorted(DIRECTIONS))


@dataclass(frozen=True)
class MovingDigits:
    """Makes films; an entry is the number of one. `digits` are the images to take, `stream` is the split's."""

    digits: np.ndarray
    stream: int

    def name(self, entry: int) -> str:
        return f"moving_digits/{'val' if self.stream else 'train'}[{entry}]"

    def read(self, entry: int, load: Load = lambda film: film) -> Any:
        return load(self.film(entry))

    def film(self, entry: int) -> np.ndarray:
        """(FRAMES, SIDE, SIDE, 3), uint8."""
        rng = np.random.default_rng((self.stream, entry))
        frame = np.zeros((SIDE, SIDE))
        frame[:8, :8] = self.digits[rng.integers(len(self.digits))] / 255
        start, step = rng.integers(SIDE, size=2), SPEED * np.array(DIRECTIONS[direction(entry)])
        moved = [np.roll(frame, start + number * step, (0, 1)) for number in range(FRAMES)]
        noisy = np.stack(moved) + rng.normal(0, NOISE, (FRAMES, SIDE, SIDE))
        return np.repeat((255 * noisy.clip(0, 1)).round().astype(np.uint8)[..., None], 3, 3)


def direction(entry: int) -> str:
    """Where the digit of a film moves; all directions in turn."""
    return CLASSES[entry % len(CLASSES)]


def find_moving_digits(source: str, _: Request) -> Openers:
    """What opens both splits, of `TRAIN_FILMS` and `VAL_FILMS`.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """

    def opener(stream: int, count: int) -> Split:
        half = open_digits()[stream]
        reader: Any = half.reader
        return Split(
            reader=MovingDigits(reader.images[list(half.entries)], stream),
            entries=range(count),
            classes=CLASSES,
            names=[direction(entry) for entry in range(count)],
        )

    return Openers(lambda: opener(0, TRAIN_FILMS), lambda: opener(1, VAL_FILMS))
