"""Product over the channel axis of a channels-last map: `nn.functional.linear`, through the faster CPU library.

PyTorch sends `linear` to MKL and a 1x1 convolution to oneDNN. On Intel CPUs MKL is as fast or faster; on AMD
CPUs it is slower, enough to lose 10 % of a FocalNet. A channels-last map seen as (B, C, H, W) is a
`channels_last` tensor, so the convolution reads and writes it in place. The rule looks at the CPU's name and
never at a clock, so that a resumed run computes the same bits.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


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


@cache
def _convolution_is_faster() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.backends.mkldnn.is_available() and "AMD" in str(capabilities.get("cpu_name", ""))
