"""RandAugment as FocalNet was trained with it: "rand-m9-mstd0.5-inc1" (the paper's Table 18) in the sense of timm.

    twice: with probability 1/2, one of 15 operations, drawn anew each time (so both may be the same),
    at a level drawn from N(m, mstd) and clipped to 0..10; inc1: the higher the level, the stronger the change

Why it is our own: torchvision's `v2.RandAugment` is another algorithm (14 operations at 31 fixed magnitudes, always
applied), and timm, which the official code calls, draws from Python's and NumPy's generators, so that a resumed run
could not take up where it was; all of ours comes from torch's. The operations are Pillow's own, which v2 calls too for
PIL images; the results equal timm's bit by bit (tested).

As in timm, a shear or translation moves about the upper left corner, and what comes in is filled with one color. What
differs: PosterizeIncreasing keeps one bit at level 10 (one image in 660 at m9-mstd0.5), where timm asks for none,
which was a black image in old versions of Pillow and is an error in new ones.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageEnhance, ImageOps

from focalnet.errors import UserError


class Filling(NamedTuple):
    """How an operation that moves pixels makes new ones."""

    resample: Image.Resampling
    color: tuple[int, int, int]


Operation = Callable[[Image.Image, float, Filling], Image.Image]
"""(image, strength, filling) -> image; strength is level / 10, with a random sign where the operation is signed."""


def _move(image: Image.Image, fill: Filling, *, x: tuple[float, float] = (0, 0), y: tuple[float, float] = (0, 0)):
    """Fetch the pixel (i, j) from (i + x[0] j + x[1], j + y[0] i + y[1])."""
    matrix = (1, x[0], x[1], y[0], 1, y[1])
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fill.resample, fillcolor=fill.color)


def _enhance(enhancer: Callable[[Image.Image], Any], image: Image.Image, strength: float, _: Filling) -> Image.Image:
    return enhancer(image).enhance(max(0.1, 1 + 0.9 * strength))


def _brighten_dark(image: Image.Image, strength: float, _: Filling) -> Image.Image:
    add = min(128, int(strength * 110))
    return image.point([min(255, value + add) if value < 128 else value for value in range(256)] * 3)


SIGNED: dict[str, Operation] = {
    "Rotate": lambda image, s, fill: image.rotate(30 * s, fill.resample, fillcolor=fill.color),
    "ColorIncreasing": partial(_enhance, ImageEnhance.Color),
    "ContrastIncreasing": partial(_enhance, ImageEnhance.Contrast),
    "BrightnessIncreasing": partial(_enhance, ImageEnhance.Brightness),
    "SharpnessIncreasing": partial(_enhance, ImageEnhance.Sharpness),
    "ShearX": lambda image, s, fill: _move(image, fill, x=(0.3 * s, 0)),
    "ShearY": lambda image, s, fill: _move(image, fill, y=(0.3 * s, 0)),
    "TranslateXRel": lambda image, s, fill: _move(image, fill, x=(0, 0.45 * s * image.width)),
    "TranslateYRel": lambda image, s, fill: _move(image, fill, y=(0, 0.45 * s * image.height)),
}
UNSIGNED: dict[str, Operation] = {
    "AutoContrast": lambda image, s, fill: ImageOps.autocontrast(image),
    "Equalize": lambda image, s, fill: ImageOps.equalize(image),
    "Invert": lambda image, s, fill: ImageOps.invert(image),
    "PosterizeIncreasing": lambda image, s, fill: ImageOps.posterize(image, max(1, 4 - int(s * 4))),
    "SolarizeIncreasing": lambda image, s, fill: ImageOps.solarize(image, 256 - min(256, int(s * 256))),
    "SolarizeAdd": _brighten_dark,
}
OPERATIONS = SIGNED | UNSIGNED


class RandAugment:
    """RandAugment on a PIL image in mode RGB; all randomness comes from torch's global generator.

    Args:
        policy: "rand-m9-mstd0.5-inc1": m is the mean level, 0 to 10; mstd its standard deviation (default 0); n the
            number of operations (default 2); p the probability of each (default 0.5); inc1 must be there.
        resample: of the operations that move pixels.
        color: RGB, 0 to 255, of what they bring in from outside.

    Raises:
        UserError: a policy that this class does not know.
    """

    def __init__(self, policy: str, *, resample: Image.Resampling, color: tuple[int, int, int]) -> None:
        self.policy = policy
        kind, *options = policy.split("-")
        found = [re.fullmatch(r"(m|n|p|mstd|inc)(\d+\.?\d*)", option) for option in options]
        values = {match[1]: float(match[2]) for match in found if match}
        if kind != "rand" or None in found or values.get("m", 11) > 10 or values.get("inc") != 1:
            raise UserError(
                f"The augmentation policy {policy!r} is not known; give 'rand-m9-mstd0.5-inc1', with other numbers "
                f"after m (up to 10) and mstd, and if need be -n2 (operations) and -p0.5 (probability of each)."
            )
        self.level, self.deviation = values["m"], values.get("mstd", 0.0)
        self.count, self.probability = int(values.get("n", 2)), values.get("p", 0.5)
        self.fill = Filling(resample, color)

    def __call__(self, image: Image.Image) -> Image.Image:
        names = list(OPERATIONS)
        for _ in range(self.count):
            name = names[int(torch.randint(len(names), ()))]
            apply, negate = torch.rand(2).tolist()
            level = min(max(self.level + self.deviation * float(torch.randn(())), 0.0), 10.0)
            if apply < self.probability:
                strength = -level / 10 if name in SIGNED and negate < 0.5 else level / 10
                image = OPERATIONS[name](image, strength, self.fill)
        return image

    def __repr__(self) -> str:
        return f"RandAugment({self.policy!r})"
