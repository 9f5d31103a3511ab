"""Convolution along a sequence of frames, channels last, as networks of sound have it.

PyTorch's convolutions on CPUs bring their weight into another order at every call. Over many frames that is nothing;
over the four of a chunk of a stream it takes up to twenty times as long as the convolution itself. So over few frames
the windows become rows of a matrix, and the weight is read once, as it lies.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 64
"""Frames up to which the windows are rows of a matrix."""


def convolve(frames: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, groups: int = 1) -> Tensor:
    """Convolve without padding.

    Args:
        frames: (B, N, C).
        weight: (C', C / groups, k).
        bias: (C',) or None.
        stride: frames from one window to the next.
        groups: of channels that see each other.

    Returns:
        (B, (N - k) // stride + 1, C').
    """
    if _is_many(frames, weight, stride):
        return F.conv1d(frames.mT, weight, bias, stride, groups=groups).mT
    windows = frames.unfold(1, weight.shape[2], stride)  # (B, N', C, k)
    rows = windows.unflatten(2, (groups, -1)).movedim(2, 0).flatten(3).flatten(1, 2)
    columns = weight.unflatten(0, (groups, -1)).flatten(2).mT
    y = rows @ columns if bias is None else torch.baddbmm(bias.view(groups, 1, -1), rows, columns)
    return y.movedim(0, 1).reshape(*windows.shape[:2], -1)


def _is_many(frames: Tensor, weight: Tensor, stride: int) -> bool:
    if frames.device.type != "cpu" or torch.compiler.is_compiling() or weight.shape[1] == 1:
        return True
    learns = torch.is_grad_enabled() and (frames.requires_grad or weight.requires_grad)
    return learns or len(frames) * ((frames.shape[1] - weight.shape[2]) // stride + 1) > FEW
