"""Images as tensors."""

from typing import TYPE_CHECKING

import PIL.Image

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


def planes_of(image: PIL.Image.Image) -> "Tensor":
    """The pixels of an image with 8 bits per channel: (C, H, W), uint8, contiguous; sooner than `pixels_of` copied."""
    import torch

    packed = bytearray().join([band.tobytes() for band in image.split()])
    return torch.frombuffer(packed, dtype=torch.uint8).view(-1, image.height, image.width)
