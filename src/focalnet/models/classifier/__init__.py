"""Image classification, the paper's first use of the backbone."""

from focalnet.models.family import Family

TOP1 = {
    "focalnet_tiny_srf": 82.1, "focalnet_tiny_lrf": 82.3, "focalnet_small_srf": 83.4, "focalnet_small_lrf": 83.5,
    "focalnet_base_srf": 83.7, "focalnet_base_lrf": 83.9,
    "focalnet_tiny_iso": 74.1, "focalnet_small_iso": 80.9, "focalnet_base_iso": 82.4,
    "focalnet_tiny_srf_overlap": 82.4, "focalnet_small_srf_overlap": 83.4, "focalnet_base_srf_overlap": 84.0,
    "focalnet_tiny_srf_deeper": 82.7, "focalnet_small_srf_deeper": 83.5, "focalnet_base_srf_deeper": 84.1,
}  # fmt: skip
"""ImageNet-1K top-1 in percent, at 224 from random weights: the paper's Tables 1, 2, 3 and 16. None was published for
the large, xlarge and huge nets that were released."""

FAMILY = Family(
    name="classifier",
    model="focalnet.models.classifier.model:FocalNetClassifier",
    purpose="image classification",
    pipeline="image-classification",
    outputs="logits",
    learns="class",
    export="all",
    tasks=("classify", "multilabel"),
    named=False,
    num_classes=1000,
    least_classes=0,
    spatial_dims=(1, 2, 3),
    published=TOP1,
)
