"""Focal context in plain PyTorch: the equations of the paper, and the oracle of every fast backend.

With context c_0 = z of shape (B, *S, C) and gates g of shape (B, *S, L+1) (Yang et al. 2022, Eq. 4 and 5):

    c_l     = GELU(DWConv_l(c_{l-1}))        l = 1..L      hierarchical contextualisation, a chain
    c_{L+1} = GELU(mean over S of c_L)                     the global level
    z_out   = sum over l = 1..L+1 of g_l * c_l             gated aggregation

The gates carry no activation. The GELU is the exact one (erf), and it also follows the mean: Eq. 5 leaves it
out, Algorithm 1 of the paper and the official code have it. The depth-wise convolutions pad with k // 2 zeros.

The paper's layer has odd depth-wise kernels without bias. Relatives add a bias and even kernels (FocalCodec) or dense
kernels, C x C (the time axis of Video-FocalNets). A causal level looks back only, so that a sequence can arrive in
chunks, and there the last level is one more convolution in place of the mean, which would need the end of the
sequence (FocalCodec-Stream, Della Libera et al. 2025, arXiv 2509.16195).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet.ops.depthwise import convolution


def focal_context(
    context: Tensor, gates: Tensor, kernels: Sequence[Tensor], biases: Sequence[Tensor] | None = None
) -> Tensor:
    """Gated sum of the focal levels of `context`; shapes as in `focalnet.ops.focal_context`."""
    level, total = context, None
    for index, kernel in enumerate(kernels):
        bias = None if biases is None else biases[index]
        level = F.gelu(convolution(level.movedim(-1, 1), kernel, bias)).movedim(
            1, -1
        )  # in the strides of channels_last
        gate = gates[..., index : index + 1]
        total = level * gate if total is None else torch.addcmul(total, level, gate)
    pooled = F.gelu(level.mean(dim=tuple(range(1, level.ndim - 1)), keepdim=True))
    gate = gates[..., len(kernels) :]
    return pooled * gate if total is None else torch.addcmul(total, pooled, gate)


def causal_focal_context(
    context: Tensor,
    gates: Tensor,
    kernels: Sequence[Tensor],
    biases: Sequence[Tensor] | None = None,
    past: Sequence[Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Gated sum of levels that look back only, and what the next chunk needs; as `ops.causal_focal_context`."""
    level, total, kept = context, torch.zeros_like(context), []
    for index, kernel in enumerate(kernels):
        reach = kernel.shape[2] - 1
        before = level[:, :1].expand(-1, reach, -1) if past is None else past[index]
        seen = torch.cat([before.mT, level.mT], dim=2)  # in memory (B, C, T), as the convolution reads it
        kept.append(seen[..., seen.shape[2] - reach :].mT)
        bias = None if biases is None else biases[index]
        groups = level.shape[2] // kernel.shape[1]
        level = F.gelu(F.conv1d(seen, kernel, bias, groups=groups)).mT
        total = torch.addcmul(total, level, gates[..., index : index + 1])
    return total, tuple(kept)
