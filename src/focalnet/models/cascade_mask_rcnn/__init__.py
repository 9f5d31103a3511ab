"""Cascade Mask R-CNN: boxes and masks of objects, refined stage by stage (Cai and Vasconcelos; the paper's Table 7)."""

from focalnet.inputs.image import WHOLE_IMAGE
from focalnet.models.family import WIDER, Family, On, coco_classes, small_image

AP = {"tiny_srf": 51.5, "tiny_lrf": 51.5}
"""Box AP on COCO, 3x (the paper's Table 7)."""


FAMILY = Family(
    name="cascade_mask_rcnn",
    model="focalnet.models.cascade_mask_rcnn.model:CascadeMaskRCNN",
    layouts="focalnet.models.cascade_mask_rcnn.layouts:LAYOUTS",
    title="Cascade Mask R-CNN",
    purpose="object detection and instance segmentation",
    pipeline="object-detection", learns="masks", tasks=("detect",), num_classes=80,
    free=("proposals", "rpn_samples", "roi_samples", "score_threshold", "nms_threshold", "detections"),
    preprocessing=WHOLE_IMAGE,
    on=(
        WIDER,
        On(
            variants="minifocal_.*",
            options={"fpn_channels": 48, "representation_size": 128, "head_depth": 1, "anchor_size": 5.0,
                     "proposals": 100, "rpn_samples": 64, "roi_samples": 32, "detections": 30},
            preprocessing=small_image(128),
        ),
    ),
    published={f"cascade_mask_rcnn_focalnet_{size}": f"box AP {ap} (3x)" for size, ap in AP.items()},
    classes_of=coco_classes,
)  # fmt: skip
