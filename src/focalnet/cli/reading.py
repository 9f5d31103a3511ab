"""The options of the commands that read images for a network that is there."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from focalnet.inputs.image import Range


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """How images are read."""

    range: Range | None = None
    """What the values of images with other than 8 bits mean; without it, what they meant in training."""
    max_pixels: int | None = None
    """Most pixels of an image; without it 89,478,485, Pillow's limit against decompression bombs."""


Reading = Annotated[_Reading, tyro.conf.OmitArgPrefixes]
AS_TRAINED = _Reading()
