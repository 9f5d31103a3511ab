"""The backbone alone: feature maps for heads of your own."""

from typing import Any

from focalnet.backbone import FocalNet
from focalnet.models.family import Family
from focalnet.variants import FocalNetConfig


def backbone(architecture: FocalNetConfig, num_classes: int = 0, **options: Any) -> FocalNet:
    """The backbone with the maps of all stages, unless `out_indices` says otherwise; it knows no classes."""
    return FocalNet(architecture, **{"out_indices": range(len(architecture.depths)), **options})


FAMILY = Family(
    name="backbone",
    model="focalnet.models.backbone:backbone",
    purpose="feature maps",
    pipeline="image-feature-extraction",
    outputs="maps",
    learns="nothing",
    named=False,
    num_classes=0,
    least_classes=0,
    spatial_dims=(1, 2, 3),
)
