"""Mask2Former: semantic, instance and panoptic segmentation by one network."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from focalnet.inputs.image import SEMANTIC, WHOLE_IMAGE
from focalnet.labels import (
    ADE20K_CLASSES,
    CITYSCAPES_CLASSES,
    COCO_CLASSES,
    COCO_PANOPTIC_CLASSES,
    COCO_PANOPTIC_THINGS,
)
from focalnet.models.family import Family, On, small_image
from focalnet.variants import FocalNetConfig


def _classes_of(num_classes: int, architecture: FocalNetConfig) -> Mapping[str, Any]:
    """facebookresearch's base and large networks see larger images of ADE20K."""
    short = 640 if architecture.embed_dim >= 128 else SEMANTIC.input_size
    ade20k = dataclasses.replace(SEMANTIC, input_size=short, long_side=4 * short)
    cityscapes = dataclasses.replace(SEMANTIC, input_size=1024, long_side=2048)
    known: dict[int, dict[str, Any]] = {
        80: {"classes": COCO_CLASSES, "task": "detect"},
        133: {"classes": COCO_PANOPTIC_CLASSES, "things": COCO_PANOPTIC_THINGS, "task": "panoptic"},
        150: {"classes": ADE20K_CLASSES, "task": "segment", "preprocessing": ade20k},
        19: {"classes": CITYSCAPES_CLASSES, "task": "segment", "preprocessing": cityscapes},
    }
    return known.get(num_classes, {})


FAMILY = Family(
    name="mask2former",
    model="focalnet.models.mask2former.model:Mask2Former",
    layouts="focalnet.models.mask2former.layouts:LAYOUTS",
    title="Mask2Former",
    purpose="image segmentation",
    pipeline="image-segmentation",
    learns="masks",
    tasks=("detect", "panoptic", "segment"),
    num_classes=133,
    preprocessing=WHOLE_IMAGE,
    on=(
        On(variants="focalnet_(large|xlarge|huge).*", options={"num_queries": 200}),
        On(
            variants="minifocal_.*",
            options={"hidden_dim": 64, "ffn_dim": 256, "encoder_ffn_dim": 128, "encoder_layers": 2,
                     "decoder_layers": 4, "heads": 4, "num_queries": 30, "points": 1024},
            preprocessing=small_image(192),
        ),
    ),
    published={
        "mask2former_focalnet_tiny_lrf": None,
        "mask2former_focalnet_small_lrf": None,
        "mask2former_focalnet_base_lrf": None,
        "mask2former_focalnet_large_fl3": "mIoU 57.3 / 58.5 on ADE20K, with kernels from 3",
        "mask2former_focalnet_large_fl4": "PQ 57.9 on COCO",
    },
    classes_of=_classes_of,
)  # fmt: skip
