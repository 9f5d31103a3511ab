"""Data: any source of labelled images to batches of tensors. Knows no model."""

from focalnet.data.base import Pictures, Sample
from focalnet.data.sources import ClassificationData, open_classification, open_evaluation
from focalnet.data.transforms.classification import Augmentation, MixupCutmix, Transform, train_transform
from focalnet.inputs.image import BadImageError, load_image

__all__ = [
    "Augmentation",
    "BadImageError",
    "ClassificationData",
    "MixupCutmix",
    "Pictures",
    "Sample",
    "Transform",
    "load_image",
    "open_classification",
    "open_evaluation",
    "train_transform",
]
