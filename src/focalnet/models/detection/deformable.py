"""Multi-scale deformable attention (Zhu et al., "Deformable DETR", ICLR 2021) in plain PyTorch.

    MSDA(q, p, x) = sum_m W_m [ sum_l sum_k  A_mlk(q) · W'_m x_l(p_l + Δ_mlk(q)) ]          Eq. 3

A query looks at K points per head and map instead of at every position: one linear layer gives the offsets Δ of the
points from the reference p, another one their weights A, which a softmax normalises over all maps. Values between
positions are bilinear, outside the map they are zero.

The original is a CUDA kernel. Here `grid_sample` reads the points, map by map, and the sums are added up as they come:
at five scales this keeps a fifth of what one stacked buffer would. With `recompute`, the backward pass reads the points
again instead of keeping them. Sampling runs in float32 under autocast, since a position in bfloat16 is off by pixels.

Legend: B batch, Q queries, S tokens of all maps in a row, C channels, M heads, L maps (levels), K points, D = C / M.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Shapes = Sequence[tuple[int, int]]
"""Height and width of each map, in positions."""


def deformable_attention(
    value: Tensor, shapes: Shapes, grid: Tensor, weights: Tensor, *, recompute: bool = False
) -> Tensor:
    """Weighted sums of bilinear samples.

    Args:
        value: (B, S, M, D).
        shapes: of the L maps whose tokens follow each other in `value`; their sizes sum to S.
        grid: (L, B, M, K, Q, 2), where to sample, x and y, -1 to 1 from edge to edge of the map.
        weights: (L, B, M, K, Q).
        recompute: keep no samples for the backward pass.

    Returns:
        (B, Q, M · D).
    """
    batch, _, heads, depth = value.shape
    points, queries = grid.shape[3:5]
    maps = value.permute(0, 2, 3, 1).reshape(batch * heads, depth, -1).split([h * w for h, w in shapes], 2)
    learned = torch.is_grad_enabled() and (value.requires_grad or grid.requires_grad or weights.requires_grad)
    total = None
    for index, (height, width) in enumerate(shapes):
        arguments = (
            maps[index].unflatten(2, (height, width)),
            grid[index].reshape(batch * heads, points, queries, 2),
            weights[index].reshape(batch * heads, 1, points, queries),
        )
        if not learned:
            total = _add(total, *arguments)
            continue
        part = checkpoint(_sum, *arguments, use_reentrant=False) if recompute else _sum(*arguments)
        total = part if total is None else total + part
    assert total is not None
    return total.reshape(batch, heads * depth, queries).transpose(1, 2)


def _sample(value: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(value, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _sum(value: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
    """Over the points, with the queries side by side: a third of the time of `sum(3)`."""
    return (_sample(value, grid) * weights).sum(2)


def _add(total: Tensor | None, value: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
    """The same without gradients, point by point into `total`: no product is written, the additions have another
    order. With gradients it would not pay."""
    samples = _sample(value, grid)
    for point in range(samples.shape[2]):
        terms = samples[:, :, point], weights[:, :, point]
        total = terms[0] * terms[1] if total is None else total.addcmul_(*terms)
    assert total is not None
    return total


class DeformableAttention(nn.Module):
    """The layer around `deformable_attention`, with the official names (`MSDeformAttn`).

    Args:
        dim: C.
        levels: L.
        heads: M.
        points: K.

    Attributes:
        recompute: while training, keep no samples for the backward pass.
    """

    def __init__(self, dim: int, *, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.levels, self.heads, self.points = levels, heads, points
        self.recompute = False
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.init_weights()

    def init_weights(self) -> None:
        """At first, head m looks in direction 2πm / M, its point k at k + 1 positions away, all with equal weights."""
        for layer in (self.sampling_offsets, self.attention_weights, self.value_proj, self.output_proj):
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.xavier_uniform_(self.value_proj.weight)
        nn.init.xavier_uniform_(self.output_proj.weight)
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        bias = (directions[:, None, None] * steps[:, None]).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.reshape(-1))

    def forward(
        self, query: Tensor, reference: Tensor, tokens: Tensor, shapes: Shapes, padding: Tensor | None = None
    ) -> Tensor:
        """Attend to the tokens around the reference of each query.

        Args:
            query: (B, Q, C).
            reference: (B or 1, Q, L, 2), x and y from 0 to 1 across the padded map; or (B or 1, Q, L, 4), a box cx, cy,
                w, h, within which the offsets are then measured.
            tokens: (B, S, C).
            shapes: of the L maps.
            padding: (B, S), True where a token is no image: its value is zero.

        Returns:
            (B, Q, C).
        """
        batch, queries, _ = query.shape
        value = self.value_proj(tokens)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        sizes = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).view(batch, queries, *sizes, 2).permute(3, 0, 2, 4, 1, 5)
        weights = self.attention_weights(query).view(batch, queries, self.heads, -1).softmax(-1)
        weights = weights.view(batch, queries, *sizes).permute(3, 0, 2, 4, 1)
        centre = (2 * reference[..., :2] - 1).permute(2, 0, 1, 3)[:, :, None, None]
        if reference.shape[-1] == 2:
            steps = [[2 / width, 2 / height] for height, width in shapes]
            grid = centre + offsets * reference.new_tensor(steps)[:, None, None, None, None]
        else:
            grid = centre + offsets * (reference[..., 2:] / self.points).permute(2, 0, 1, 3)[:, :, None, None]
        recompute = self.recompute and self.training
        value = value.view(batch, -1, self.heads, value.shape[-1] // self.heads).to(grid.dtype)
        mixed = deformable_attention(value, shapes, grid, weights.to(grid.dtype), recompute=recompute)
        return self.output_proj(mixed.to(self.output_proj.weight.dtype))
