"""Focal context in plain PyTorch: the equations of the paper, and the oracle of every fast backend.

With context c_0 = z of shape (B, *S, C) and gates g of shape (B, *S, L+1) (Yang et al. 2022, Eq. 4 and 5):

    c_l     = GELU(DWConv_l(c_{l-1}))        l = 1..L      hierarchical contextualisation, a chain
    c_{L+1} = GELU(mean over S of c_L)                     the global level
    z_out   = sum over l = 1..L+1 of g_l * c_l             gated aggregation

The gates carry no activation. The GELU is the exact one (erf), and it also follows the mean: Eq. 5 leaves it
out, Algorithm 1 of the paper and the official code have it. The depth-wise convolutions have no bias and pad
with k // 2 zeros.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet.ops.depthwise import depthwise


def focal_context(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Gated sum of the focal levels of `context`; shapes as in `focalnet.ops.focal_context`."""
    level, total = context, None
    for index, kernel in enumerate(kernels):
        level = F.gelu(depthwise(level.movedim(-1, 1), kernel)).movedim(1, -1)  # in the strides of channels_last
        gate = gates[..., index : index + 1]
        total = level * gate if total is None else torch.addcmul(total, level, gate)
    pooled = F.gelu(level.mean(dim=tuple(range(1, level.ndim - 1)), keepdim=True))
    gate = gates[..., len(kernels) :]
    return pooled * gate if total is None else torch.addcmul(total, pooled, gate)
