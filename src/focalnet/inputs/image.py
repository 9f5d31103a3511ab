"""How an image becomes the tensor that a network sees: `read` decodes a file, the call resizes and normalizes.

Reading gives RGB with 8 bits per channel:

    EXIF orientation             turned upright, as every viewer shows it
    palette, 1-bit, grey, CMYK   Pillow's conversion (Adobe's inverted CMYK included)
    transparency                 laid on white
    16-bit grey                  value / 257: the whole range, not the lowest 256 values
    32-bit integers              / 257 where they fit 16 bits, else the image's own range onto 0..255
    floats                       x 255 where they lie in 0..1, as they are in 0..255, else the image's own range
    animation, several pages     the first one

timm and torchvision call `convert("RGB")`, which drops transparency: what lies under a transparent pixel, often black
or garbage that nobody has ever seen, becomes part of the image. Here it is what a person sees on a page. Opaque
images come out the same. `convert("RGB")` also clips 16-bit grey to white. Colour profiles are not applied, as there.

An image that cannot be decoded raises `BadImageError`. So does one beyond `PIL.Image.MAX_IMAGE_PIXELS`, which Pillow
only warns of up to twice the limit.
"""

import dataclasses
import io
import re
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import PIL.Image
from PIL import ImageOps

from focalnet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

EXTENSIONS = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
"""Endings of the files that are taken for images, in lower case."""
ROTATED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
DOWNLOAD_SECONDS = 20
DOWNLOAD_BYTES = 64 * 2**20
LONGEST = 16
"""Most that a side may be longer than the other one, where `long_side` says nothing."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class Image:
    """How an image becomes the input of a network: resize the shorter side to `input_size / crop_pct`, crop the
    centre to `input_size`, scale to [0, 1], subtract `mean`, divide by `std`.

    Detectors and segmenters see the whole image: with `long_side`, nothing is cropped, and the shorter side becomes
    `input_size` unless the longer one would then pass `long_side`.

    Shape:
        an RGB image -> (3, H, W), float32.
    """

    kind: ClassVar[str] = "image"
    suffixes: ClassVar[frozenset[str]] = EXTENSIONS

    input_size: int = 224
    """Side of the square crop, or the shorter side of a whole image, in pixels."""
    long_side: int | None = None
    """Most pixels of the longer side of a whole image; None crops."""
    crop_pct: float = 0.875
    """Crop over resized side; 0.875 in the official evaluation, 0.9 in timm."""
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.long_side is not None and self.long_side < self.input_size:
            raise UserError(f"the longer side, {self.long_side}, is below the shorter one, {self.input_size}.")

    @property
    def resize(self) -> int:
        """The shorter side after the resize, in pixels; 256 for an official 224 model."""
        return int(self.input_size / self.crop_pct)

    def read(self, source: "str | Path | bytes | PIL.Image.Image") -> PIL.Image.Image:
        """An upright RGB image, from what `load_image` takes."""
        return load_image(source)

    def __call__(self, signal: PIL.Image.Image) -> "Tensor":
        """The official evaluation of an RGB image.

        Images more than 16 times longer than wide are first cropped to that around their centre, which a centre crop
        does not see: resizing the shorter side of a 1 x 50,000 pixel line would otherwise take gigabytes.
        """
        if self.long_side is None:
            return _center_crop(self)(signal)
        from torchvision.transforms.v2 import functional as V

        pixels = V.pil_to_tensor(signal)
        return self.normalize(self.resize_to(pixels, self.whole_size((pixels.shape[1], pixels.shape[2]))))

    def whole_size(self, size: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
        """(height, width) of a whole image of `size` after the resize to `scale` times `input_size`."""
        short = scale * self.input_size
        long = self.long_side or LONGEST * short
        return scaled_size(size, min(round(short) / min(size), long / max(size)))

    def resize_to(self, pixels: "Tensor", size: tuple[int, int]) -> "Tensor":
        """(3, H, W), uint8, to another (height, width), antialiased as Pillow does."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as V

        how = InterpolationMode(self.interpolation)
        return pixels if pixels.shape[1:] == size else V.resize_image(pixels, list(size), how, antialias=True)

    def normalize(self, pixels: "Tensor") -> "Tensor":
        """(3, H, W), 0 to 255, to the floats that the network takes."""
        from torchvision.transforms.v2 import functional as V

        return V.normalize_image(pixels.float() / 255, list(self.mean), list(self.std))


WHOLE_IMAGE = Image(input_size=800, long_side=1333, crop_pct=1.0, interpolation="bilinear")
"""What the published detectors see."""
SEMANTIC = dataclasses.replace(WHOLE_IMAGE, input_size=512, long_side=2048)
"""What the published UPerNets see."""


@cache
def _center_crop(how: Image) -> "Callable[[PIL.Image.Image], Tensor]":
    from torchvision.transforms import v2

    return v2.Compose([
        _limit_length,
        v2.Resize(how.resize, how.interpolation),
        v2.CenterCrop(how.input_size),
        *to_tensor(how),
    ])  # fmt: skip


def to_tensor(how: Image) -> list[Callable[[Any], Any]]:
    """The last steps of a transform for classifiers: an RGB image to its normalized tensor."""
    import torch
    from torchvision.transforms import v2

    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(how.mean), list(how.std))]


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(height, width) times a factor, to the nearest pixel as mmdetection rounds, at least 1."""
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def _limit_length(image: PIL.Image.Image) -> PIL.Image.Image:
    short, long = sorted(image.size)
    if long <= LONGEST * short:
        return image
    width, height = (min(side, LONGEST * short) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


class BadImageError(UserError):
    """An image that cannot be read; the message names it."""

    def __init__(self, message: str) -> None:
        # A DataLoader raises a worker's exception again with the whole traceback as its message: keep the sentence.
        super().__init__(message.rstrip().rsplit(f"{type(self).__name__}: ", 1)[-1])


class NotIdsError(BadImageError):
    """An image that should hold a number per pixel and is of another kind."""


def load_image(source: str | Path | bytes | PIL.Image.Image, *, name: str | None = None) -> PIL.Image.Image:
    """Read an image, upright, as RGB with 8 bits per channel.

    Args:
        source: a file, an http(s) address, the bytes of a file, or an image.
        name: what errors call it; by default the path or address.

    Returns:
        a new image in mode "RGB", in memory.

    Raises:
        BadImageError: it is missing, broken, no image, larger than `PIL.Image.MAX_IMAGE_PIXELS`, or an address that
            does not answer within 20 seconds or sends more than 64 MiB.
    """
    is_path = isinstance(source, str | Path)
    name = name or (str(source) if is_path else "the image")
    if is_path and re.match("https?://", str(source)):
        source = _download(str(source))
    if isinstance(source, bytes) and not source:
        raise _bad(name, "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on files that it decodes all the same
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            if isinstance(source, PIL.Image.Image):
                return _to_rgb(source)
            with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.format == "EPS":
                    raise ValueError("EPS is a program for Ghostscript, which is not run on images")
                image.load()
                return _to_rgb(image)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))
        raise BadImageError(
            f"{name} has {pixels[0] if pixels else 'too many'} pixels, the limit is {PIL.Image.MAX_IMAGE_PIXELS}: "
            f"make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from error
    except FileNotFoundError as error:
        raise BadImageError(f"There is no image {Path(name).absolute()}; check the path.") from error
    except IsADirectoryError as error:
        raise BadImageError(f"{name} is a folder, not an image.") from error
    except MemoryError:
        raise
    except Exception as error:  # a decoder fed with garbage may raise anything
        if isinstance(source, str | Path) and Path(source).is_file() and Path(source).stat().st_size == 0:
            raise _bad(name, "the file is empty") from error
        if isinstance(error, PIL.Image.UnidentifiedImageError):
            raise _bad(name, "it is no image of a known format") from error
        raise _bad(name, str(error) or type(error).__name__) from error


class Head(NamedTuple):
    """What the head of a file says: (height, width) as the bitmap lies, and EXIF's orientation, 1 to 8."""

    size: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) as `load_image` gives it."""
        return (self.size[1], self.size[0]) if self.orientation in ROTATED else self.size


def head_of(path: str) -> Head | None:
    """The head of an image file, of which nothing is decoded; None where there is none."""
    try:
        with PIL.Image.open(path) as image:
            known = image.format != "PNG" or "exif" in image.info  # or Pillow decodes a PNG to look
            orientation = image.getexif().get(0x0112, 1) if known else 1
            return Head((image.height, image.width), orientation if orientation in range(1, 9) else 1)
    except Exception:  # whatever it is, reading the image tells it
        return None


def size_of(path: str, *, turned: bool = False) -> tuple[int, int] | None:
    """(height, width) from the head of a file; None where there is none. `turned`: upright, where EXIF says how."""
    head = head_of(path)
    return head and (head.upright if turned else head.size)


def _bad(name: str, reason: str) -> BadImageError:
    return BadImageError(f"{name} cannot be read as an image ({reason.rstrip('.')}): replace or remove it.")


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image).astype(np.float32) / 257)
    if image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float64)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite((low, high)).all():
            raise ValueError("it holds infinite or undefined values")
        if image.mode == "I" and low >= 0 and high <= 65535:  # Pillow's mode for 16-bit PGM
            return _grey(values / 257)
        if image.mode == "F" and low >= 0 and high <= 255:
            return _grey(values * 255 if high <= 1 else values)
        return _grey((values - low) * (255 / max(high - low, 1e-30)))
    if image.has_transparency_data:
        white = PIL.Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert("RGB")


def _grey(values: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray((values + 0.5).astype(np.uint8)).convert("RGB")


def _download(address: str) -> bytes:
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "focalnet"})
        with urllib.request.urlopen(request, timeout=DOWNLOAD_SECONDS) as answer:
            data = answer.read(DOWNLOAD_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise BadImageError(
            f"{address} cannot be downloaded ({error}): check the address and the network, or give a file."
        ) from error
    if len(data) > DOWNLOAD_BYTES:
        raise BadImageError(f"{address} is more than {DOWNLOAD_BYTES // 2**20} MiB: save it and give the file.")
    return data


Preprocessing = Image
"""The public name of `Image`."""
