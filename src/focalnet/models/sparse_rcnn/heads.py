"""One stage of Sparse R-CNN: the features of proposals meet what is pooled from their boxes.

    self-attention of the features, without places
    dynamic convolution     each feature makes two matrices, which the positions of its own box are multiplied with
    MLP
    class and box           from the result, which is also the next stage's feature

Legend: B images, Q proposals of an image, C channels, D channels inside of the dynamic convolution, P = 7 · 7 positions
of a box, K classes.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLED = 7
"""Positions along each side of a box."""


class DynamicConv(nn.Module):
    """Two layers whose weights each proposal makes itself, and one over all positions together.

    Args:
        channels: C.
        dim: D.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.dynamic_layer = nn.Linear(channels, 2 * channels * dim)
        self.norm_in = nn.LayerNorm(dim)
        self.norm_out = nn.LayerNorm(channels)
        self.fc_layer = nn.Linear(POOLED**2 * channels, channels)
        self.fc_norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor, pooled: Tensor) -> Tensor:
        """Features (N, C) and their boxes' (N, C, 7, 7) -> (N, C)."""
        channels = features.shape[1]
        inner, outer = self.dynamic_layer(features).chunk(2, 1)
        x = pooled.flatten(2).transpose(1, 2) @ inner.view(-1, channels, self.norm_in.weight.shape[0])
        x = F.relu(self.norm_in(x)) @ outer.view(-1, self.norm_in.weight.shape[0], channels)
        return F.relu(self.fc_norm(self.fc_layer(F.relu(self.norm_out(x)).flatten(1))))


class Attention(nn.Module):
    """Self-attention, added to its input.

    Args:
        channels: C.
        heads: of the attention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, C) -> (B, Q, C)."""
        return x + self.attn(x, x, x, need_weights=False)[0]


class FeedForward(nn.Module):
    """Two linear layers, added to their input.

    Args:
        channels: C.
        dim: between them.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(channels, dim), nn.ReLU()), nn.Linear(dim, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        return x + self.layers(x)


def _tower(channels: int, depth: int) -> nn.Sequential:
    layers = [(nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(*(layer for three in layers for layer in three))


class Stage(nn.Module):
    """A stage, with the names of mmdetection's `DIIHead`.

    Args:
        channels: C.
        num_classes: K.
        heads: of the attention.
        ffn_dim: of the MLP.
        dynamic_dim: D.
        class_depth, box_depth: layers before the class and before the box.
    """

    def __init__(
        self, channels: int, num_classes: int, *,
        heads: int, ffn_dim: int, dynamic_dim: int, class_depth: int, box_depth: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention = Attention(channels, heads)
        self.attention_norm = nn.LayerNorm(channels)
        self.instance_interactive_conv = DynamicConv(channels, dynamic_dim)
        self.instance_interactive_conv_norm = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, ffn_dim)
        self.ffn_norm = nn.LayerNorm(channels)
        self.cls_fcs, self.reg_fcs = _tower(channels, class_depth), _tower(channels, box_depth)
        self.fc_cls, self.fc_reg = nn.Linear(channels, num_classes), nn.Linear(channels, 4)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.fc_cls.bias, -math.log(99))

    def forward(self, features: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One look.

        Args:
            features: (B, Q, C).
            pooled: of the proposals' boxes, (B Q, C, 7, 7).

        Returns:
            logits (B, Q, K), deltas (B, Q, 4), and the features of the next stage.
        """
        x = self.attention_norm(self.attention(features)).flatten(0, 1)
        x = self.instance_interactive_conv_norm(x + self.instance_interactive_conv(x, pooled))
        x = self.ffn_norm(self.ffn(x)).view(features.shape)
        return self.fc_cls(self.cls_fcs(x)), self.fc_reg(self.reg_fcs(x)), x


class Proposals(nn.Module):
    """The learned start: a box and a feature of each proposal, with the official names.

    Args:
        number: Q.
        channels: C.
        start: the boxes before training, "image" or "grid"; see `SparseRCNNOptions`.
    """

    def __init__(self, number: int, channels: int, start: Literal["image", "grid"] = "image") -> None:
        super().__init__()
        self.init_proposal_bboxes = nn.Embedding(number, 4)
        self.init_proposal_features = nn.Embedding(number, channels)
        boxes = torch.tensor((0.5, 0.5, 1.0, 1.0)) if start == "image" else grid(number)
        self.init_proposal_bboxes.weight.data.copy_(boxes)


def grid(number: int) -> Tensor:
    """Boxes (number, 4), cx, cy, w, h in shares of the image, row by row: each as large as two by two of the cells that
    cover the image, so that neighbors overlap by half. The last row is short where the number does not fill it."""
    rows = max(1, math.isqrt(number))
    columns = -(-number // rows)
    places = torch.arange(number)
    x, y = (places % columns + 0.5) / columns, (places // columns + 0.5) / rows
    return torch.stack([x, y, torch.full_like(x, 2 / columns), torch.full_like(y, 2 / rows)], 1)
