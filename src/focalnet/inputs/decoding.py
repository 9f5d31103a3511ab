"""From a file, an address, bytes, an array or a tensor to an upright image with 8 bits per channel.

    EXIF orientation             turned upright, as every viewer shows it
    palette, 1-bit, grey, CMYK   Pillow's conversion (Adobe's inverted CMYK included)
    transparency                 laid on white
    animation, several pages     the first one
    other than 8 bits            by the range policy (`values.py`)

timm and torchvision call `convert("RGB")`, which drops transparency: what lies under a transparent pixel, often black
or garbage that nobody has ever seen, becomes part of the image. Here it is what a person sees on a page. Opaque
images come out the same. Color profiles are not applied, as there.

A network that takes another number of channels than three gets `Bands`. For one channel, colors become grey. Otherwise
the image must have exactly as many: the bands or pages of a TIFF (`tiff.py`), the channels of an array, or the four
channels of a PNG with transparency.

An image that cannot be decoded raises `BadImageError`. So does one beyond `PIL.Image.MAX_IMAGE_PIXELS`, which Pillow
only warns of up to twice the limit, unless more pixels are allowed.
"""

import io
import os
import re
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from PIL import ImageOps

from focalnet.errors import UserError
from focalnet.inputs import tiff
from focalnet.inputs.quiet import quiet_decoders
from focalnet.inputs.values import (
    ROTATED,
    STORED,
    BadImageError,
    Bands,
    Range,
    Signal,
    image_of,
    laid_on_white,
    noted,
    too_large,
    upright,
)
from focalnet.inputs.video import is_video

EXTENSIONS = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
"""Endings of the files that are taken for images, in lower case."""
ORIENTATION = 0x0112
"""The EXIF tag."""
SAYS_ORIENTATION = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
"""Keys of `info` of an image, of which one is there where it may have to be turned."""
DOWNLOAD_SECONDS = 20
DOWNLOAD_BYTES = 64 * 2**20
TYPES = ("uint8", "uint16", "float16", "bfloat16", "float32", "float64")
TAKEN = "a path, an address, bytes, an open file, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W)"


def load_image(
    source: Any,
    *,
    name: str | None = None,
    channels: int = 3,
    values: Range = "auto",
    max_pixels: int | None = None,
    enough: int | None = None,
) -> Any:
    """Read an image, upright, with 8 bits per channel.

    Args:
        source: a file, an http(s) address, the bytes of a file, a file that is open for reading, a PIL image, an array
            (H, W, C) or (H, W), or a tensor (C, H, W) or (H, W); uint8, uint16 or floats.
        name: what errors call it; by default the path or address.
        channels: how many the image is to have.
        values: how other than 8 bits become 8 bits (`Range`).
        max_pixels: most pixels of an image; without it `PIL.Image.MAX_IMAGE_PIXELS`, which a larger number raises.
        enough: pixels of the shorter side that are wanted: a JPEG of more is decoded at a half, a quarter or an eighth
            of its size as long as so many are left, which is faster and smooths it in another way than a resize.

    Returns:
        a new image in memory: in mode "RGB", or `Bands` of another number of channels.

    Raises:
        BadImageError: it is missing, broken, no image, too large, has another number of channels, or an address does
            not answer within 20 seconds or sends more than 64 MiB.
        UserError: `source` is nothing of these.
        MissingExtraError: a TIFF that only tifffile reads, and it is not installed.
    """
    path = str(source) if isinstance(source, str | Path) else None
    in_memory = isinstance(source, PIL.Image.Image | Bands | np.ndarray) or _is_tensor(source)
    if isinstance(source, bytes | bytearray | memoryview):
        source = bytes(source)
    elif path is None and not in_memory and not hasattr(source, "read"):
        several = "; several images go to `Predictor.stream`" if isinstance(source, list | tuple) else ""
        raise UserError(f"an image cannot be of the type {type(source).__name__}: give {TAKEN}{several}.")
    name = name or path or _name_of(source)
    if path and re.match("https?://", path):
        source = _download(path)
    elif path and not os.path.isfile(path):
        if os.path.exists(path) and not os.path.isdir(path):
            raise BadImageError(f"{name} is a pipe or a device, not an image file: save what it gives and name that.")
    elif path and os.path.splitext(path)[1].lower() not in EXTENSIONS and is_video(path):
        raise BadImageError(
            f"{name} is a video, not an image: `focalnet predict` and `Predictor.video` take it frame by frame."
        )
    if isinstance(source, bytes) and not source:
        raise _bad(name, "the file is empty")
    if max_pixels is not None and max_pixels > (PIL.Image.MAX_IMAGE_PIXELS or max_pixels):
        PIL.Image.MAX_IMAGE_PIXELS = max_pixels  # cuts of such an image are checked by Pillow too
    try:
        with quiet_decoders():
            if isinstance(source, np.ndarray) or _is_tensor(source):
                return image_of(_array(source, channels), channels, values, name)
            if isinstance(source, Bands):
                return image_of(source.values, channels, "8bit", name)
            if isinstance(source, PIL.Image.Image):
                return _converted(source, channels, values, name)
            return _decoded(source, channels, values, name, max_pixels, enough)
    except PIL.Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise too_large(name, int(pixels[0]) if pixels else None, PIL.Image.MAX_IMAGE_PIXELS) from error
    except FileNotFoundError as error:
        raise BadImageError(f"There is no image {Path(name).absolute()}; check the path.") from error
    except IsADirectoryError as error:
        raise BadImageError(f"{name} is a folder, not an image.") from error
    except (MemoryError, UserError):
        raise
    except Exception as error:  # a decoder fed with garbage may raise anything
        if path and os.path.isfile(path) and os.path.getsize(path) == 0:
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
            known = image.format != "PNG" or SAYS_ORIENTATION & image.info.keys()  # or Pillow decodes a PNG to look
            orientation = image.getexif().get(ORIENTATION, 1) if known else 1
            size = image.height, image.width
            if tags := getattr(image, "tag_v2", None):  # Pillow says the size of a TIFF as it will be turned
                size = int(tags[257]), int(tags[256])
            return Head(size, orientation if orientation in range(1, 9) else 1)
    except Exception:  # whatever it is, reading the image tells it
        return None


def stored_as(source: Any) -> str:
    """Format and mode of the image in a file or in bytes, as Pillow calls them ("JPEG RGB", "PNG I;16"); else its type.

    Of a file that Pillow does not know, the ending.
    """
    if not isinstance(source, str | Path | bytes):
        return type(source).__name__
    try:
        with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return f"{image.format} {image.mode}{' 16 bits' if _is_cut(image) else ''}"
    except Exception:  # reading the image tells what is wrong with it
        return "bytes" if isinstance(source, bytes) else Path(source).suffix.lower()


def size_of(path: str, *, turned: bool = False) -> tuple[int, int] | None:
    """(height, width) from the head of a file; None where there is none. `turned`: upright, where EXIF says how."""
    head = head_of(path)
    return head and (head.upright if turned else head.size)


def _decoded(
    source: Any, channels: int, values: Range, name: str, max_pixels: int | None, enough: int | None
) -> Signal:
    """The image in a file or in bytes."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    limit = max_pixels or PIL.Image.MAX_IMAGE_PIXELS
    try:
        image = PIL.Image.open(file)
    except PIL.Image.UnidentifiedImageError:
        if not tiff.is_tiff(file):
            raise
        return image_of(tiff.read_bands(file, channels, limit, name), channels, values, name)
    with image:
        _check_pixels(image, limit, name)
        if image.format == "EPS":
            raise ValueError("EPS is a program for Ghostscript, which is not run on images")
        if image.format == "TIFF" and tiff.has_bands(image, channels, values, name):
            return image_of(tiff.read_bands(file, channels, limit, name), channels, values, name)
        if image.format == "PNG" and values != "auto" and _is_cut(image):
            return image_of(_wide_png(file, image, channels), channels, values, name)
        if image.format == "JPEG":
            factor = min(image.size) // enough if enough else 1
            if factor > 1:
                image.draft(None, (image.width // factor, image.height // factor))
            if image.mode == "RGB" and channels == 3 and values != "percentile":  # most files: not copied
                image.load()
                if SAYS_ORIENTATION & image.info.keys():
                    ImageOps.exif_transpose(image, in_place=True)
                return image
        signal = _converted(image, channels, values, name)
    _check_pixels(signal, limit, name)  # an icon has the size of the image in it, not the one of its head
    return signal


def _check_pixels(image: Signal, limit: int | None, name: str) -> None:
    if limit is not None and image.width * image.height > limit:
        raise too_large(name, image.width * image.height, limit)


def _converted(image: PIL.Image.Image, channels: int, values: Range, name: str) -> Signal:
    """What Pillow makes of an image."""
    cut, facts = _is_cut(image), {}
    if STORED in image.info:  # it was read before: its range is what it is to be
        values, facts = "8bit", image.info[STORED]._asdict()
    if (pages := tiff.pages(image)) > 1:
        facts["pages"] = pages
    image.load()
    if image.format == "TIFF" and image.mode == "RGBA":
        facts["alpha"] = True
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        pixels = np.asarray(image).astype(np.uint16) if image.mode.startswith("I;16") else np.asarray(image)
        return image_of(pixels, channels, values, name, **facts)
    if channels not in (1, 3) and image.mode in ("RGBA", "LA"):
        return image_of(np.asarray(image), channels, values, name, **facts)
    if image.has_transparency_data:
        white = PIL.Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    if channels != 3 or values == "percentile":
        grey = image.mode in ("1", "L")
        return image_of(np.asarray(image.convert("L" if grey else "RGB")), channels, values, name, **facts)
    image = image.convert("RGB")
    if cut:
        low, high = np.transpose(np.array(image.getextrema())) * 257.0
        facts |= {"bits": 16, "low": float(low.min()), "high": float(high.max())}
    return noted(image, **facts)


def _is_cut(image: PIL.Image.Image) -> bool:
    """Whether Pillow keeps the upper 8 of 16 bits of colors when it decodes the image; before it is decoded."""
    tiles = getattr(image, "tile", None)
    if not tiles or image.mode.startswith("I"):
        return False
    raw = tiles[0][3]
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    return isinstance(raw, str) and ";16" in raw


def _wide_png(file: Any, image: PIL.Image.Image, channels: int) -> np.ndarray:
    """The values of a PNG of 16 bits per color, upright: (H, W, C), uint16."""
    import torch
    from torchvision.io import ImageReadMode, decode_png

    if isinstance(file, str | Path):
        data = Path(file).read_bytes()
    else:
        file.seek(0)
        data = file.read()
    coded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels = decode_png(coded, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    if channels in (1, 3) and pixels.shape[2] in (2, 4):
        pixels = laid_on_white(pixels)
    return upright(pixels, image.getexif().get(ORIENTATION, 1))


def _is_tensor(source: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    return torch is not None and isinstance(source, torch.Tensor)


def _array(source: Any, channels: int) -> np.ndarray:
    """The values of an array or a tensor for a network of so many channels: (H, W) or (H, W, C).

    Raises:
        UserError: another shape, or values of a type that is not taken.
    """
    tensor = not isinstance(source, np.ndarray)
    shape, kind = tuple(source.shape), str(source.dtype).removeprefix("torch.")
    what = f"{'a tensor' if tensor else 'an array'} of shape {shape} and type {kind} is no image"
    first, last = (shape[0], shape[-1]) if len(shape) == 3 else (1, 1)
    known = {1, 3, channels} if channels in (1, 3) else {channels}
    if len(shape) not in (2, 3) or 0 in shape or (first if tensor else last) not in known:
        hint = ""
        if len(shape) == 3 and (last if tensor else first) in known:
            hint = f": put the channels {'first' if tensor else 'last'}"
        elif len(shape) == 4:
            hint = ": give the images one by one, or all to `Predictor.stream`"
        taken = f"({channels}, H, W)" if tensor else f"(H, W, {channels})"
        raise UserError(f"{what} for this network; {taken}{' or (H, W)' * (channels in (1, 3))} is taken{hint}.")
    if kind not in TYPES:
        raise UserError(f"{what}: give its values as {', '.join(TYPES)}.")
    if not tensor:
        return source
    values = (source.detach().float() if kind == "bfloat16" else source.detach()).cpu().numpy()
    return values.transpose(1, 2, 0) if values.ndim == 3 else values


def _name_of(source: Any) -> str:
    """What errors call an open file, or what has no name."""
    if isinstance(source, np.ndarray) or _is_tensor(source):
        return "the array" if isinstance(source, np.ndarray) else "the tensor"
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return name if isinstance(name, str) and name else "the image"


def _bad(name: str, reason: str) -> BadImageError:
    return BadImageError(f"{name} cannot be read as an image ({reason.rstrip('.')}): replace or remove it.")


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
