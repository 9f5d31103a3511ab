"""Phantoms of slices through a body, painted when asked for: eight organs that grey alone does not tell apart.

A slice of 96 x 96 pixels holds eight ellipses around their usual places. They have three greys (`ORGANS`), so that only
place, shape and neighbours say which is which.

    body        an ellipse; shifted, turned and scaled as a whole, organs and all
    organ       shifted, turned and stretched by itself; later ones lie on top; one in ten of a kind is missing
    grey        of the kind, the same shift for all of an image, and a little of each organ's own
    bias field  a smooth factor from about 0.7 to 1.3 over the image, as of a coil or a beam
    noise       white, then blurred a little

Slice i of a split depends on nothing but (split, i). The truth is exact: the organ on top at each pixel.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter

from focalnet.data.base import DenseSample, Load, Openers, Request, Split
from focalnet.inputs.image import load_image

TRAIN_SLICES, VAL_SLICES = 2000, 100
SIDE = 96
TISSUE, OUTSIDE = 40.0, 5.0
MISSING = 0.1
NOISE = 9.0


class Organ(NamedTuple):
    """A kind of organ: centre (x, y) and half axes in halves of the body's, and grey, 0 to 100."""

    x: float
    y: float
    width: float
    height: float
    grey: float


ORGANS = {
    "liver": Organ(-0.42, -0.18, 0.36, 0.34, 66),
    "spleen": Organ(0.60, -0.05, 0.18, 0.26, 66),
    "stomach": Organ(0.28, -0.36, 0.24, 0.20, 55),
    "pancreas": Organ(0.06, -0.02, 0.24, 0.09, 55),
    "left_kidney": Organ(0.42, 0.42, 0.15, 0.20, 80),
    "right_kidney": Organ(-0.42, 0.42, 0.15, 0.20, 80),
    "aorta": Organ(0.08, 0.24, 0.09, 0.10, 80),
    "gallbladder": Organ(-0.16, -0.46, 0.12, 0.15, 55),
}
CLASSES = ("background", *ORGANS)


@dataclass(frozen=True)
class Organs:
    """Paints slices; an entry is the number of the slice, `stream` 0 for training and 1 for held-out ones."""

    stream: int

    def name(self, entry: int) -> str:
        return f"organs/{'val' if self.stream else 'train'}[{entry}]"

    def read(self, entry: int, load: Load = load_image) -> DenseSample:
        pixels, labels = paint(np.random.default_rng((self.stream, entry)))
        none = torch.zeros(0)
        return DenseSample(
            image=load(pixels),
            path=self.name(entry),
            boxes=none.reshape(0, 4),
            labels=none.long(),
            masks=None,
            crowd=none.bool(),
            area=none,
            semantic=torch.from_numpy(labels),
            image_id=entry,
        )


def find_organs(source: str, request: Request) -> Openers:
    """What opens both splits, of `TRAIN_SLICES` and `VAL_SLICES`."""

    def opener(stream: int, count: int) -> Split:
        return Split(
            reader=Organs(stream),
            entries=range(count),
            classes=CLASSES,
            things=(False,) * len(CLASSES),
            sizes=[(SIDE, SIDE)] * count,
            used=frozenset(CLASSES),
        )

    return Openers(lambda: opener(0, TRAIN_SLICES), lambda: opener(1, VAL_SLICES))


def paint(rng: np.random.Generator, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A slice and its truth: both (side, side), uint8, grey and labels of `CLASSES`."""
    y, x = (np.mgrid[:side, :side] + 0.5) * (2 / side) - 1
    angle, scale = rng.normal(0, np.deg2rad(6)), rng.uniform(0.78, 0.95)
    x, y = x - rng.normal(0, 0.04), y - rng.normal(0, 0.04)
    x, y = _turned(x / scale, y / (scale * rng.uniform(0.75, 0.9)), angle)
    shift = rng.normal(0, 4)
    grey = np.where(x * x + y * y < 1, TISSUE + shift, OUTSIDE)
    labels = np.zeros((side, side), np.uint8)
    for label, organ in enumerate(ORGANS.values(), start=1):
        move, stretch, turn, own = rng.normal(0, 0.05, 2), rng.uniform(0.8, 1.2, 2), rng.normal(0, 0.25), rng.normal()
        if rng.uniform() < MISSING:
            continue
        u, v = _turned(x - organ.x - move[0], y - organ.y - move[1], turn)
        inside = (u / (organ.width * stretch[0])) ** 2 + (v / (organ.height * stretch[1])) ** 2 < 1
        grey[inside], labels[inside] = organ.grey + shift + own, label
    coarse = Image.fromarray(rng.normal(1, 0.15, (3, 3)).astype(np.float32))
    field = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    pixels = np.clip(2.2 * (grey * field + rng.normal(0, NOISE, (side, side))), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.6))), labels


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x
