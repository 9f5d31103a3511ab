"""Focal-TSMP: vegetation health from climate simulations (Shams Eddin and Gall, GMD 17, 2024)."""

from focalnet.models.family import Family, On

FAMILY = Family(
    name="focal_tsmp",
    model="focalnet.models.focal_tsmp.model:FocalTsmp",
    layouts="focalnet.models.focal_tsmp.layouts:LAYOUTS",
    title="Focal-TSMP",
    purpose="brightness temperature and vegetation from climate fields",
    pipeline="image-to-image",
    learns="nothing",
    export="all",
    variants={"": "focalnet_tiny_lrf"},
    num_classes=0,
    least_classes=0,
    on=(
        On(
            variants="focalnet_tiny_lrf",
            architecture={
                "in_channels": 71, "patch_size": 1, "depths": (2, 2, 2), "focal_levels": 3, "focal_windows": 3,
                "layerscale_value": 0.5**0.5, "drop_rate": 0.2, "drop_path_rate": 0.3,
            },
        ),
    ),
    published={"focal_tsmp": None},
)  # fmt: skip
