"""The feature pyramid of detectors."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from focalnet.backbone import FocalNet


class Pyramid(nn.Module):
    """The backbone with a feature pyramid on it: one level per stage and a coarser one, with equal channels."""

    def __init__(self, body: FocalNet, channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(body.channels), channels, extra_blocks=LastLevelMaxPool())
        self.strides = (*body.strides, 2 * body.strides[-1])

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> per level (B, C, H / stride, W / stride)."""
        levels = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.body(images))))
        return list(levels.values())
