"""Data: from any source to samples with random access, and from samples to tensors. Knows no model."""

from focalnet.data.base import Datasets, DenseSample, Sample, Samples
from focalnet.data.opening import open_data, open_evaluation
from focalnet.inputs.image import BadImageError, load_image

__all__ = [
    "BadImageError",
    "Datasets",
    "DenseSample",
    "Sample",
    "Samples",
    "load_image",
    "open_data",
    "open_evaluation",
]
