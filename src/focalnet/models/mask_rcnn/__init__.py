"""Mask R-CNN with FPN: boxes and masks of objects (the paper's Table 6)."""

from focalnet.inputs.image import WHOLE_IMAGE
from focalnet.models.family import GROWN, Family, On, coco_classes, small_image

AP = {
    "tiny_srf": ("45.9 / 41.3", "47.6 / 42.6"), "tiny_lrf": ("46.1 / 41.5", "48.0 / 42.9"),
    "small_srf": ("48.0 / 42.7", "48.9 / 43.6"), "small_lrf": ("48.3 / 43.1", "49.3 / 43.8"),
    "base_srf": ("48.8 / 43.3", "49.6 / 44.1"), "base_lrf": ("49.0 / 43.5", "49.8 / 44.1"),
}  # fmt: skip
"""Box / mask AP on COCO, 1x and 3x (the paper's Table 6)."""


FAMILY = Family(
    name="mask_rcnn",
    model="focalnet.models.mask_rcnn.model:MaskRCNN",
    layouts="focalnet.models.mask_rcnn.layouts:LAYOUTS",
    title="Mask R-CNN",
    purpose="object detection and instance segmentation",
    pipeline="object-detection",
    learns="masks",
    tasks=("detect",),
    num_classes=80,
    free=("proposals", "rpn_samples", "roi_samples", "score_threshold", "nms_threshold", "detections"),
    preprocessing=WHOLE_IMAGE,
    on=(
        GROWN,
        On(
            variants="minifocal_.*",
            options={"fpn_channels": 48, "representation_size": 256, "anchor_size": 5.0, "proposals": 100,
                     "rpn_samples": 64, "roi_samples": 48, "detections": 30},
            preprocessing=small_image(128),
        ),
    ),
    published={f"mask_rcnn_focalnet_{size}": f"box / mask AP {ap[0]} (1x), {ap[1]} (3x)" for size, ap in AP.items()},
    classes_of=coco_classes,
)  # fmt: skip
