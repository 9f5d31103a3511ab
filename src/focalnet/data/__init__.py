"""Data: any source of labelled pictures to batches of tensors. Knows no model."""

from focalnet.data.images import BadImageError, load_image
from focalnet.data.labelled import Pictures, Sample
from focalnet.data.sources import ClassificationData, open_classification, open_evaluation
from focalnet.data.transforms import Augmentation, MixupCutmix, Transform, eval_transform, train_transform

__all__ = [
    "Augmentation",
    "BadImageError",
    "ClassificationData",
    "MixupCutmix",
    "Pictures",
    "Sample",
    "Transform",
    "eval_transform",
    "load_image",
    "open_classification",
    "open_evaluation",
    "train_transform",
]
