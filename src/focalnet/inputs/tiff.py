"""TIFFs with bands: more samples per pixel than a photograph has, or a page per band.

Pillow reads grey, RGB and both with transparency, with 8 bits per color. What else a TIFF may hold (five bands, 16 bits
per color, floats in three bands, bands one after the other) is read by tifffile, an optional extra.

Transparency is what the tag ExtraSamples says of the last band. Programs write it without asking, so it counts for
networks of one and of three channels only, which is told. For a network of four it is a channel like the others.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from focalnet.errors import MissingExtraError
from focalnet.inputs.values import Range, laid_on_white, too_large, upright, wrong_channels

BITS, PHOTOMETRIC, DESCRIPTION, ORIENTATION, SAMPLES, EXTRA = 258, 262, 270, 274, 277, 338
COLORS = {0: 1, 1: 1, 2: 3}
"""Samples that a photometric interpretation needs: grey either way, RGB. What is none of them has no bands."""
ALPHA = (1, 2)
"""ExtraSamples that are transparency: premultiplied, and not."""
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_BANDS = 16
"""Images narrower than this, and many of them, are the columns of one image with bands."""


def is_tiff(file: Any) -> bool:
    """Whether a path or an open file begins as a TIFF does."""
    if isinstance(file, str | Path):
        with open(file, "rb") as opened:
            return opened.read(4) in MAGIC
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    return start in MAGIC


def has_bands(image: Any, channels: int, policy: Range, name: str) -> bool:
    """Whether a TIFF that Pillow opened is for `read_bands`: Pillow would leave bands out, or cut their values.

    Raises:
        ChannelsError: it has another number of bands than `channels`.
    """
    tags = image.tag_v2
    samples, colors = int(tags.get(SAMPLES, 1)), COLORS.get(tags.get(PHOTOMETRIC, -1))
    if colors is None:
        return False
    if samples == 1:
        if channels not in (1, 3):
            return image.n_frames > 1
        shape = _shape(str(tags.get(DESCRIPTION, "")))
        if len(shape) == 3 and shape[2] <= MOST_BANDS < shape[0] and image.size == (shape[2], shape[1]):
            raise wrong_channels(name, shape[2], channels)
        return False
    if _is_photograph(samples, colors, tags.get(EXTRA, ())) and channels in (1, 3):
        return policy != "auto" and max(tags.get(BITS, (1,))) > 8
    if samples != channels:
        raise wrong_channels(name, samples, channels)
    return True


def read_bands(file: Any, channels: int, limit: int | None, name: str) -> np.ndarray:
    """The values of a TIFF, upright: (H, W) or (H, W, C), of its own type.

    Args:
        file: a path, or a file that is open.
        channels: how many the network takes; pages are bands where there are as many.
        limit: most pixels.
        name: what errors call it.

    Raises:
        ChannelsError: it has another number of bands.
        BadImageError: it has more pixels.
        MissingExtraError: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError:
        raise MissingExtraError(f"Reading {name}, a TIFF with bands or with other than 8 bits,", "tiff") from None
    if not isinstance(file, str | Path):
        file.seek(0)
    with tifffile.TiffFile(file) as opened:
        page: Any = opened.pages[0]
        samples, extra = page.samplesperpixel, [int(kind) for kind in page.extrasamples]
        by_page = samples == 1 and len(opened.pages) > 1 and channels not in (1, 3)
        shape: Any = opened.series[0].shape if by_page else (page.imagelength, page.imagewidth)
        if by_page and (len(shape) != 3 or channels not in (shape[0], shape[2])):
            count = shape[2] if len(shape) == 3 and shape[2] <= MOST_BANDS < shape[0] else len(opened.pages)
            raise wrong_channels(name, count, channels)
        pixels = int(np.prod(shape, dtype=object)) // (channels if by_page else 1)
        if limit is not None and pixels > limit:
            raise too_large(name, pixels, limit)
        if by_page:
            values = opened.series[0].asarray()
            return values if shape[2] == channels else np.moveaxis(values, 0, 2)
        photograph = _is_photograph(samples, COLORS.get(int(page.photometric)), extra) and channels in (1, 3)
        if not photograph and samples != channels and {samples, channels} != {1, 3}:
            raise wrong_channels(name, samples, channels)
        values = page.asarray()
        if page.axes[0] == "S":
            values = np.moveaxis(values, 0, 2)
        if photograph and extra:
            values = laid_on_white(values, premultiplied=extra[0] == ALPHA[0])
        return upright(values, int(page.tags.valueof(ORIENTATION, 1)))


def _is_photograph(samples: int, colors: int | None, extra: Sequence[int]) -> bool:
    """Whether samples are what a photometric interpretation needs, and at most transparency besides."""
    return samples == colors or (colors is not None and samples == colors + 1 and tuple(extra)[:1] in [(1,), (2,)])


def _shape(description: str) -> tuple[int, ...]:
    """The shape of the array that tifffile wrote page by page."""
    try:
        return tuple(int(side) for side in json.loads(description)["shape"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()


def pages(image: PIL.Image.Image) -> int:
    """How many images a TIFF holds; 1 of other formats, whose frames are no images of their own."""
    return getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
