"""ATSS: boxes from one anchor per position (Zhang et al., CVPR 2020; the paper's Table 7)."""

from focalnet.inputs.image import WHOLE_IMAGE
from focalnet.models.family import WIDER, Family, On, coco_classes, small_image

AP = {"tiny_srf": 49.2, "tiny_lrf": 49.6}
"""Box AP on COCO, 3x (the paper's Table 7)."""


FAMILY = Family(
    name="atss",
    model="focalnet.models.atss.model:Atss",
    layouts="focalnet.models.atss.layouts:LAYOUTS",
    title="ATSS",
    purpose="object detection",
    pipeline="object-detection",
    learns="boxes",
    tasks=("detect",),
    num_classes=80,
    free=("score_threshold", "nms_threshold", "candidates", "detections"),
    preprocessing=WHOLE_IMAGE,
    on=(
        WIDER,
        On(
            variants="minifocal_.*",
            options={"channels": 64, "anchor_size": 4.0, "candidates": 300, "detections": 30},
            preprocessing=small_image(128),
        ),
    ),
    published={f"atss_focalnet_{size}": f"box AP {ap} (3x)" for size, ap in AP.items()},
    classes_of=coco_classes,
)
