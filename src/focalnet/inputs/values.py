"""Values of any type and number of channels to images with 8 bits per channel.

What other than 8 bits means is a policy, which travels with the weights (`inputs.Image.range`):

                    8 bits     16 bits      32-bit integers                        floats
    "auto"          as it is   0..65535     0..65535 where they fit, else the      0..1 or 0..255 where they fit, else
                                            image's own range                      the image's own range
    "8bit"          as it is   0..255       0..255                                 0..255
    "full"          as it is   0..65535     0..65535                               0..1
    "percentile"    for every type the image's own range, from its 0.1 to its 99.9 percentile; of images that are
                    neither grey nor RGB, each band's own

The range is brought onto 0..255 before anything is rounded, and what lies outside is cut off. 12 bits of a camera in a
file of 16 are so dark under "auto" that 16 shades are left: `Stored` says what was in a file, so that it can be told.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import PIL.Image

from focalnet.errors import BadFileError

Range = Literal["auto", "8bit", "full", "percentile"]
ROTATED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
LOW, HIGH = 0.1, 99.9
"""The percentiles."""
SAMPLED = 2**20
"""Values per band, about, that percentiles are taken of."""


class BadImageError(BadFileError):
    """An image that cannot be read; the message names it."""


class NotIdsError(BadImageError):
    """An image that should hold a number per pixel and is of another kind."""


class ChannelsError(BadImageError):
    """An image with another number of channels than the network takes."""


class Stored(NamedTuple):
    """What was in the file of an image, where that is more than 8 bits per channel that were taken as they are.

    Attributes:
        bits: per channel: 8, 16 or 32.
        low, high: the least and the greatest value.
        stretched: whether "auto" took the image's own range.
        alpha: whether a band of a TIFF was taken for transparency.
        pages: how many images are in the file; the others were left out.
    """

    bits: int = 8
    low: float = 0.0
    high: float = 255.0
    stretched: bool = False
    alpha: bool = False
    pages: int = 1


STORED = "focalnet"
"""The key of `Stored` in `info` of an image."""


class Bands:
    """An image of another number of channels than three, with what is asked of a PIL image besides its pixels.

    Args:
        values: (H, W, C), uint8.

    Attributes:
        info: as of a PIL image.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.info: dict[Any, Any] = {}

    @property
    def height(self) -> int:
        return self.values.shape[0]

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as of a PIL image."""
        return self.width, self.height

    def convert(self, mode: str) -> PIL.Image.Image:
        """What is shown of it: the first three bands as colors, of fewer the first one as grey."""
        shown = self.values[..., :3] if self.values.shape[2] >= 3 else self.values[..., 0]
        return PIL.Image.fromarray(np.ascontiguousarray(shown)).convert(mode)


Signal = PIL.Image.Image | Bands
"""An image as a network's input reads it: in mode RGB, or `Bands`."""


def image_of(values: np.ndarray, channels: int, policy: Range, name: str, **facts: Any) -> Any:
    """The image with `channels` channels that values mean.

    Args:
        values: (H, W) or (H, W, C); integers or floats.
        channels: how many the image is to have: grey is repeated for three, three become grey for one.
        policy: see the table on top.
        name: what errors call it.
        facts: for `Stored`.

    Returns:
        `Signal`.

    Raises:
        ChannelsError: it has another number of channels.
        ValueError: values that are no numbers, or not finite.
    """
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    count = 1 if values.ndim == 2 else values.shape[2]
    if count != channels and {count, channels} != {1, 3}:
        raise wrong_channels(name, count, channels)
    if values.dtype.kind not in "uif" or values.dtype.itemsize > 8:
        raise ValueError(f"its values are of the type {values.dtype}")
    kind = np.float32 if values.dtype.itemsize < 4 else np.float64
    stretched = False
    if values.dtype != np.uint8 or policy == "percentile":
        plain = values.astype(kind)
        low, high = float(plain.min()), float(plain.max())
        if not np.isfinite((low, high)).all():
            raise ValueError("it holds infinite or undefined values")
        bits = 8
        if values.dtype != np.uint8:
            bits = 16 if values.dtype == np.uint16 or (values.dtype.kind in "ui" and low >= 0 and high <= 65535) else 32
            stretched = policy == "auto" and _own_range(values.dtype, low, high)
        facts |= {"bits": bits, "low": low, "high": high, "stretched": stretched}
        values = _bytes(plain, *_range(plain, values.dtype, policy, low, high))
    if channels == 3:
        image = PIL.Image.fromarray(np.ascontiguousarray(values)).convert("RGB")
    elif channels == 1 and count == 3:
        image = Bands(np.asarray(PIL.Image.fromarray(np.ascontiguousarray(values)).convert("L"))[..., None])
    else:
        image = Bands(np.ascontiguousarray(values.reshape(*values.shape[:2], channels)))
    return noted(image, **facts)


def noted(image: Any, **facts: Any) -> Any:
    """The image with `Stored` in its `info`, where there is something to say."""
    if facts:
        image.info[STORED] = Stored(**facts)
    return image


def wrong_channels(name: str, count: int, channels: int) -> ChannelsError:
    """The error for an image of `count` channels that is to have `channels`."""
    return ChannelsError(
        f"{name} has {count} channel{'s' * (count > 1)}, and the network takes {channels}: give images with "
        f"{channels}, or train a network for these with --channels {count}."
    )


def too_large(name: str, pixels: int | None, limit: int | None) -> BadImageError:
    """The error for an image of more pixels than the limit."""
    return BadImageError(
        f"{name} has {pixels or 'too many'} pixels, the limit is {limit}: make it smaller, or allow it with "
        f"--max-pixels {pixels or 'N'} (max_pixels= in Python) if you trust it."
    )


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, C) turned as EXIF says, 1 to 8."""
    if orientation in ROTATED:
        values = values.swapaxes(0, 1)
    rows, columns = (slice(None, None, -1 if orientation in flips else 1) for flips in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return values[rows, columns]


def laid_on_white(values: np.ndarray, *, premultiplied: bool = False) -> np.ndarray:
    """(H, W, C + 1) without its last channel, which is opacity: (H, W, C), of the same type."""
    white = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
    colors, opacity = values[..., :-1].astype(np.float32), values[..., -1:].astype(np.float32) / white
    colors = (colors if premultiplied else colors * opacity) + white * (1 - opacity)
    return np.clip(colors + (0.5 if values.dtype.kind in "ui" else 0), 0, white).astype(values.dtype)


def _own_range(kind: np.dtype, low: float, high: float) -> bool:
    most = 255 if kind.kind == "f" else 65535
    return kind != np.uint16 and not (low >= 0 and high <= most)


def _range(values: np.ndarray, kind: np.dtype, policy: Range, low: float, high: float) -> tuple[Any, Any]:
    """What becomes 0 and what becomes 255: numbers, or one per band."""
    if policy == "percentile":
        flat = values.reshape(-1, values.shape[2]) if values.ndim == 3 and values.shape[2] != 3 else values.reshape(-1)
        flat = flat[:: max(1, len(flat) // SAMPLED)]
        return tuple(np.percentile(flat, (LOW, HIGH), axis=0))
    if policy == "8bit":
        return 0.0, 255.0
    if policy == "auto" and _own_range(kind, low, high):
        return low, high
    if kind.kind == "f":
        return 0.0, 255.0 if policy == "auto" and high > 1 else 1.0
    return 0.0, 65535.0


def _bytes(values: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """Values with `low` to `high` brought onto 0..255, rounded."""
    if np.ndim(low) == 0 and low == 0:
        scaled = values if high == 255 else values / 257 if high == 65535 else values * (255 / high)
    else:
        scaled = (values - low) * (255 / np.maximum(np.subtract(high, low), 1e-30))
    return (np.clip(scaled, 0, 255) + 0.5).astype(np.uint8)
