"""Product over the channel axis of a channels-last map: `nn.functional.linear`, through the faster library.

PyTorch sends `linear` to MKL and a 1x1 convolution to oneDNN. On Intel CPUs MKL is as fast or faster; on AMD
CPUs it is slower, enough to lose 10 % of a FocalNet. A channels-last map seen as (B, C, H, W) is a
`channels_last` tensor, so the convolution reads and writes it in place. The rule looks at the CPU's name and
never at a clock, so that a resumed run computes the same bits.

On GPUs a row of outputs that is no multiple of 16 bytes makes every later read of its slices narrow: the 2C + L + 1
outputs of `f` are an odd number with two levels. `linear_slices` adds zero rows under the weight while it runs.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet.ops.compiling import is_exporting


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` over the last axis.

    Args:
        x: (B, *S, C).
        weight: (O, C).
        bias: (O,) or None.

    Returns:
        (B, *S, O).
    """
    if x.ndim != 4 or x.device.type != "cpu" or torch.compiler.is_compiling() or not _convolution_is_faster():
        return F.linear(x, weight, bias)
    return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)


ROW = 8
"""Elements that the outputs of `linear_slices` are padded to on CUDA devices: 16 bytes in half precision."""
ROW_POSITIONS = 4096
"""Positions from which on padding is worth its launches."""


def linear_slices(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Sequence[int]) -> Sequence[Tensor]:
    """`linear`, cut into slices of these sizes; their sum is the number of rows of `weight`."""
    spare = _spare(x, weight)
    if not spare:
        return linear(x, weight, bias).split(sizes, dim=-1)
    bias = None if bias is None else F.pad(bias, (0, spare))
    return linear(x, F.pad(weight, (0, 0, 0, spare)), bias).split((*sizes, spare), dim=-1)[: len(sizes)]


def _spare(x: Tensor, weight: Tensor) -> int:
    if x.device.type != "cuda" or is_exporting() or x.numel() < ROW_POSITIONS * x.shape[-1]:
        return 0
    return -weight.shape[0] % ROW


@cache
def _convolution_is_faster() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.backends.mkldnn.is_available() and "AMD" in str(capabilities.get("cpu_name", ""))
