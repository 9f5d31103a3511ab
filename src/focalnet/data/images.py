"""Any picture to RGB with 8 bits per channel.

    EXIF orientation             turned upright, as every viewer shows it
    palette, 1-bit, grey, CMYK   Pillow's conversion (Adobe's inverted CMYK included)
    transparency                 laid on white
    16-bit grey                  value / 257: the whole range, not the lowest 256 values
    32-bit integers              / 257 where they fit 16 bits, else the picture's own range onto 0..255
    floats                       x 255 where they lie in 0..1, as they are in 0..255, else the picture's own range
    animation, several pages     the first one

timm and torchvision call `convert("RGB")`, which drops transparency: what lies under a transparent pixel, often black
or garbage that nobody has ever seen, becomes part of the picture. Here it is what a person sees on a page. Opaque
pictures come out the same. `convert("RGB")` also clips 16-bit grey to white. Colour profiles are not applied, as there.

A picture that cannot be decoded raises `BadImageError`. So does one beyond `PIL.Image.MAX_IMAGE_PIXELS`, which Pillow
only warns of up to twice the limit.
"""

import io
import re
import urllib.request
import warnings
from http.client import HTTPException
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from focalnet.errors import UserError

EXTENSIONS = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
"""Endings of the files that are taken for pictures, in lower case."""
ROTATED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
DOWNLOAD_SECONDS = 20
DOWNLOAD_BYTES = 64 * 2**20


class BadImageError(UserError):
    """A picture that cannot be read; the message names it."""

    def __init__(self, message: str) -> None:
        # A DataLoader raises a worker's exception again with the whole traceback as its message: keep the sentence.
        super().__init__(message.rstrip().rsplit(f"{type(self).__name__}: ", 1)[-1])


class NotIdsError(BadImageError):
    """A picture that should hold a number per pixel and is of another kind."""


def load_image(source: str | Path | bytes | Image.Image, *, name: str | None = None) -> Image.Image:
    """Read a picture, upright, as RGB with 8 bits per channel.

    Args:
        source: a file, an http(s) address, the bytes of a file, or a picture.
        name: what errors call it; by default the path or address.

    Returns:
        a new picture in mode "RGB", in memory.

    Raises:
        BadImageError: it is missing, broken, no picture, larger than `PIL.Image.MAX_IMAGE_PIXELS`, or an address that
            does not answer within 20 seconds or sends more than 64 MiB.
    """
    is_path = isinstance(source, str | Path)
    name = name or (str(source) if is_path else "the picture")
    if is_path and re.match("https?://", str(source)):
        source = _download(str(source))
    if isinstance(source, bytes) and not source:
        raise _bad(name, "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on files that it decodes all the same
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                return _to_rgb(source)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.format == "EPS":
                    raise ValueError("EPS is a program for Ghostscript, which is not run on pictures")
                image.load()
                return _to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))
        raise BadImageError(
            f"{name} has {pixels[0] if pixels else 'too many'} pixels, the limit is {Image.MAX_IMAGE_PIXELS}: "
            f"make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from error
    except FileNotFoundError as error:
        raise BadImageError(f"There is no picture {Path(name).absolute()}; check the path.") from error
    except IsADirectoryError as error:
        raise BadImageError(f"{name} is a folder, not a picture.") from error
    except MemoryError:
        raise
    except Exception as error:  # a decoder fed with garbage may raise anything
        if isinstance(source, str | Path) and Path(source).is_file() and Path(source).stat().st_size == 0:
            raise _bad(name, "the file is empty") from error
        if isinstance(error, Image.UnidentifiedImageError):
            raise _bad(name, "it is no picture of a known format") from error
        raise _bad(name, str(error) or type(error).__name__) from error


def size_of(path: str, *, turned: bool = False) -> tuple[int, int] | None:
    """(height, width) from the head of a file; None where there is none. `turned`: upright, where EXIF says how."""
    try:
        with Image.open(path) as image:
            known = turned and (image.format != "PNG" or "exif" in image.info)  # or Pillow decodes a PNG to look
            rotated = known and image.getexif().get(0x0112) in ROTATED
            return (image.width, image.height) if rotated else (image.height, image.width)
    except Exception:  # whatever it is, reading the picture tells it
        return None


def _bad(name: str, reason: str) -> BadImageError:
    return BadImageError(f"{name} cannot be read as a picture ({reason.rstrip('.')}): replace or remove it.")


def _to_rgb(image: Image.Image) -> Image.Image:
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
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert("RGB")


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray((values + 0.5).astype(np.uint8)).convert("RGB")


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
