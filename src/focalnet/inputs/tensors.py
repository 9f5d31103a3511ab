"""Images as tensors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from focalnet.inputs.values import Bands, Signal

if TYPE_CHECKING:
    from torch import Tensor


def pixels_of(signal: Signal) -> "Tensor":
    """The pixels of an image: (C, H, W), uint8."""
    import torch
    from torchvision.transforms.v2 import functional as V

    if isinstance(signal, Bands):
        return torch.tensor(signal.values).permute(2, 0, 1).contiguous()
    return V.pil_to_tensor(signal)


def floats_of(pixels: "Tensor", mean: Sequence[float], std: Sequence[float]) -> "Tensor":
    """What `to_tensor` makes of (..., C, H, W), uint8: a classifier's input, to the bit."""
    from torchvision.transforms.v2 import functional as V

    return V.normalize_image(V.to_dtype_image(pixels, scale=True), list(mean), list(std), inplace=True)
