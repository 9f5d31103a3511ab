"""Sparse R-CNN: boxes from a few learned proposals (Sun et al., CVPR 2021; the paper's Table 7)."""

from focalnet.inputs.image import WHOLE_IMAGE
from focalnet.models.family import WIDER, Family, On, coco_classes, small_image
from focalnet.weights.hub import WeightsEntry

AP = {"tiny_srf": 49.6, "tiny_lrf": 49.9}
"""Box AP on COCO, 3x (the paper's Table 7)."""

_FILE = "focalnet_tiny_lrf_sparsercnn_3x.pth"

FAMILY = Family(
    name="sparse_rcnn",
    model="focalnet.models.sparse_rcnn.model:SparseRCNN",
    layouts="focalnet.models.sparse_rcnn.layouts:LAYOUTS",
    title="Sparse R-CNN",
    purpose="object detection",
    pipeline="object-detection",
    learns="boxes",
    tasks=("detect",),
    num_classes=80,
    free=("detections", "start"),
    preprocessing=WHOLE_IMAGE,
    on=(
        WIDER,
        On(
            variants="minifocal_.*",
            options={"num_queries": 30, "stages": 3, "channels": 64, "dynamic_dim": 32, "ffn_dim": 256,
                     "start": "grid", "detections": 30},
            preprocessing=small_image(128),
        ),
    ),
    files=(
        WeightsEntry(
            name=_FILE, variant="focalnet_tiny_lrf", source="official", licence="mit", size=None, num_classes=80,
            url=f"https://github.com/microsoft/FocalNet/releases/download/v1.0.1/{_FILE}",
            preprocessing=WHOLE_IMAGE, normalize_modulator=False, head="sparse_rcnn",
            unreachable="its names are said not to fit the published network (microsoft/FocalNet#30), "
            "so nothing fetches it by itself",
        ),
    ),
    published={f"sparse_rcnn_focalnet_{size}": f"box AP {ap} (3x)" for size, ap in AP.items()},
    classes_of=coco_classes,
)  # fmt: skip
