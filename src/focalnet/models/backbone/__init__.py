"""The backbone alone: feature maps for heads of your own."""

from focalnet.models.family import Family

FAMILY = Family(
    name="backbone",
    model="focalnet.models.backbone.model:backbone",
    purpose="feature maps",
    pipeline="image-feature-extraction",
    outputs="maps",
    learns="nothing",
    export="all",
    named=False,
    num_classes=0,
    least_classes=0,
    spatial_dims=(1, 2, 3),
)
