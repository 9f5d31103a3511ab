"""Focal-UNet: a class for every pixel of medical images (Naderi et al., 2212.09263)."""

from focalnet.inputs.image import SEMANTIC
from focalnet.models.family import Family, On

FAMILY = Family(
    name="focal_unet",
    model="focalnet.models.focal_unet.model:FocalUNet",
    layouts="focalnet.models.focal_unet.layouts:LAYOUTS",
    title="Focal-UNet",
    purpose="semantic segmentation of medical images",
    pipeline="image-segmentation",
    learns="label_map",
    export="all",
    tasks=("segment",),
    num_classes=9,
    preprocessing=SEMANTIC,
    on=(
        On(variants="focalnet_tiny_srf", architecture={"depths": (3, 3, 3, 3), "focal_levels": 3}),
        On(variants="focalnet_tiny_lrf", architecture={"depths": (4, 4, 4, 4)}),
    ),
    published={"focal_unet_tiny_lrf": None},
)
