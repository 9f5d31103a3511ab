"""What networks that give maps share: the way from the padded input back to the pixels of each image."""

import torch.nn.functional as F
from torch import Tensor

from focalnet.models.base import pairs

IGNORE = 255
"""The class of pixels that count for nothing."""


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) to another size, bilinearly."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def cut_and_resize(maps: Tensor, size: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """The part of (C, H, W) that is image and no padding, `size`, resized to the size it had before, `original`."""
    return resize(maps[:, : size[0], : size[1]], original)


def probabilities(logits: Tensor, sizes: Tensor, original_sizes: Tensor | None = None) -> list[Tensor]:
    """Probabilities of the classes at every pixel.

    Args:
        logits: (B, K, H, W).
        sizes: (B, 2), height and width of what is image in each padded input.
        original_sizes: (B, 2), of the images before they were resized; `sizes` by default.

    Returns:
        per image (K, H, W), float32, at its original size.
    """
    images = zip(logits.float(), pairs(sizes, original_sizes), strict=True)
    return [cut_and_resize(maps, size, original).softmax(0) for maps, (size, original) in images]
