"""UPerNet: a class for every pixel (the paper's Table 8)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from focalnet.inputs.image import SEMANTIC
from focalnet.labels import ADE20K_CLASSES, CITYSCAPES_CLASSES
from focalnet.models.family import GROWN, Family, On, small_image
from focalnet.variants import FocalNetConfig

MIOU = {
    "tiny_srf": "46.5 / 47.2", "tiny_lrf": "46.8 / 47.8", "small_srf": "49.3 / 50.1", "small_lrf": "49.1 / 50.1",
    "base_srf": "50.2 / 51.1", "base_lrf": "50.5 / 51.4",
}  # fmt: skip
"""mIoU on ADE20K, single / multi-scale (the paper's Table 8)."""


def _classes_of(num_classes: int, architecture: FocalNetConfig) -> Mapping[str, Any]:
    cityscapes = dataclasses.replace(SEMANTIC, input_size=1024, long_side=2048)
    known = {
        150: {"classes": ADE20K_CLASSES, "preprocessing": SEMANTIC},
        19: {"classes": CITYSCAPES_CLASSES, "preprocessing": cityscapes},
    }
    return known.get(num_classes, {})


FAMILY = Family(
    name="upernet",
    model="focalnet.models.upernet.model:UperNet",
    layouts="focalnet.models.upernet.layouts:LAYOUTS",
    title="UPerNet",
    purpose="semantic segmentation",
    pipeline="image-segmentation",
    learns="label_map",
    export="all",
    tasks=("segment",),
    num_classes=150,
    preprocessing=SEMANTIC,
    on=(
        GROWN,
        On(
            variants="minifocal_.*",
            options={"channels": 96, "aux_channels": 32, "dropout": 0.0, "classifier_std": 0.1},
            preprocessing=small_image(192),
        ),
    ),
    published={f"upernet_focalnet_{size}": f"mIoU {miou}" for size, miou in MIOU.items()},
    classes_of=_classes_of,
)
