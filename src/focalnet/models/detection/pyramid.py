"""The feature pyramid of detectors."""

from collections import OrderedDict
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from focalnet.backbone import FocalNet


class Coarser(ExtraFPNBlock):
    """Levels by strided convolutions, each on the one before, without an activation between (mmdetection's
    `add_extra_convs="on_output"`)."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(levels))

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """The levels, the finest first, with the coarser ones behind them."""
        for conv in self.convs:
            results.append(conv(results[-1]))
            names.append(str(len(names)))
        return results, names


class Pyramid(nn.Module):
    """The backbone with a feature pyramid on it, with equal channels in all levels: one per stage, and coarser ones.

    Args:
        body: the backbone.
        channels: of each level.
        coarser: levels behind the last stage, by strided convolutions; 0 for none, None for one by leaving out
            positions.
    """

    def __init__(self, body: FocalNet, channels: int, coarser: int | None = None) -> None:
        super().__init__()
        self.body = body
        extra = LastLevelMaxPool() if coarser is None else Coarser(channels, coarser)
        self.fpn = FeaturePyramidNetwork(list(body.channels), channels, extra_blocks=extra)
        steps = range(1, 1 + (1 if coarser is None else coarser))
        self.strides = (*body.strides, *(2**step * body.strides[-1] for step in steps))

    def whole_positions(self, images: Tensor) -> Tensor:
        """The batch with zeros on the right and at the bottom, up to whole positions of the last stage."""
        stride = self.body.strides[-1]
        return F.pad(images, (0, -images.shape[3] % stride, 0, -images.shape[2] % stride))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> per level (B, C, H / stride, W / stride)."""
        levels = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.body(images))))
        return list(levels.values())


def xavier(modules: Iterable[nn.Module]) -> None:
    """Random weights for the convolutions and linear layers among `modules`, as the published detectors begin with."""
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
