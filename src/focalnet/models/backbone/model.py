"""The backbone alone, as the registry builds it."""

from typing import Any

from focalnet.backbone import FocalNet
from focalnet.variants import FocalNetConfig


def backbone(architecture: FocalNetConfig, num_classes: int = 0, **options: Any) -> FocalNet:
    """The backbone with the maps of all stages, unless `out_indices` says otherwise; it knows no classes."""
    return FocalNet(architecture, **{"out_indices": range(len(architecture.depths)), **options})
