"""Films for training: a random frame of each part, and the same crop, flip and colors for all frames.

The numbers of "kinetics" are Video-FocalNet's (`datasets/build.py`): a crop of 0.08 to 1 of the area, a flip in half of
the films, colors in 0.8, grey in 0.2. All randomness comes from torch's global generator.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from focalnet.inputs.films import Film, Video
from focalnet.inputs.image import pixels_of

AREA = {"light": (0.35, 1.0), "kinetics": (0.08, 1.0)}


def train_film(how: Video, film: Film, augment: str) -> Tensor:
    """(frames, 3, H, W), float32: what training sees of a film.

    Args:
        how: the network's input.
        film: of any size.
        augment: "none", "light" or "kinetics"; "none" draws the frames and no more.
    """
    frames = film.take(how.numbers(len(film), lambda: float(torch.rand(()))))
    if augment == "none":
        return how.seen(frames)
    return _steps(how, augment)(torch.stack([pixels_of(frame) for frame in frames]))


@cache
def _steps(how: Video, augment: str) -> Callable[[Any], Tensor]:
    colors = [
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
        v2.RandomGrayscale(0.2),
    ]
    return v2.Compose([
        v2.RandomResizedCrop(how.input_size, AREA[augment], interpolation=InterpolationMode(how.interpolation)),
        v2.RandomHorizontalFlip(),
        *(colors if augment == "kinetics" else []),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(how.mean), list(how.std)),
    ])  # fmt: skip
