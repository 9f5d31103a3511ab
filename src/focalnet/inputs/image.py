"""How an image becomes the tensor that a network sees: `read` decodes a file, the call resizes and normalizes.

What reading does to orientation, transparency, other than 8 bits and other than three channels stands in `decoding.py`,
`values.py` and `tiff.py`. A classifier sees one of three views of an image, and so do its training images:

    crop      resize until the image covers `input_size / crop_pct`, cut the centre: ImageNet's protocol
    squash    resize to `input_size`, whatever the shape
    pad       resize until the image fits into `input_size`, pad around it with the mean

Detectors and segmenters see the whole image in its own shape, see `long_side`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import PIL.Image

from focalnet.errors import UserError, agreeing, counted
from focalnet.inputs.decoding import EXTENSIONS, ROTATED, Head, head_of, load_image, size_of, stored_as
from focalnet.inputs.tensors import pixels_of, planes_of
from focalnet.inputs.values import STORED, BadImageError, Bands, ChannelsError, NotIdsError, Range, Signal, Stored

__all__ = [
    "EXTENSIONS", "LONGEST", "ROTATED", "SEMANTIC", "WHOLE_IMAGE", "BadImageError", "Bands", "ChannelsError", "Head",
    "Image", "Interpolation", "NotIdsError", "Preprocessing", "Range", "Signal", "Size", "View",
    "head_of", "load_image", "pixels_of", "scaled_size", "size_of", "stored_as", "to_tensor",
]  # fmt: skip

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 16
"""Most that a side may be longer than the other one, where `long_side` says nothing."""

MOST_PIXELS = 8192
"""Most pixels of a side of a network's input."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]
View = Literal["crop", "squash", "pad"]
Size = int | tuple[int, int]
"""A side of a square, or (height, width)."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """How an image becomes the input of a network: resize the shorter side to `input_size / crop_pct`, crop the
    centre to `input_size` (or another `view`), scale to [0, 1], subtract `mean`, divide by `std`.

    Detectors and segmenters see the whole image: with `long_side`, nothing is cropped, and the shorter side becomes
    `input_size` unless the longer one would then pass `long_side`. With two sides in `input_size`, it is made to fit
    into them.

    Shape:
        an image of C channels -> (C, H, W), float32.
    """

    kind: ClassVar[str] = "image"
    noun: ClassVar[str] = "image"
    suffixes: ClassVar[frozenset[str]] = EXTENSIONS

    input_size: Size = 224
    """Side of the square crop, or the shorter side of a whole image, in pixels; or (height, width)."""
    long_side: int | None = None
    """Most pixels of the longer side of a whole image; None crops."""
    crop_pct: float = 0.875
    """Crop over resized side; 0.875 in the official evaluation, 0.9 in timm."""
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    """One number per channel; so many channels has an image."""
    std: tuple[float, ...] = IMAGENET_STD
    view: View = "crop"
    """What of an image a classifier sees; see the table on top of the module."""
    range: Range = "auto"
    """How other than 8 bits per channel become 8 bits; see `values.py`."""
    max_pixels: int | None = None
    """Most pixels of an image that is read; None is Pillow's limit, `PIL.Image.MAX_IMAGE_PIXELS`. It is not stored."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.input_size, int):
            height, width = self.input_size
            object.__setattr__(self, "input_size", height if height == width else (height, width))
        if len(self.mean) != len(self.std):
            raise UserError(f"the mean has {len(self.mean)} numbers, the std {len(self.std)}; give one per channel.")
        if self.long_side is not None and self.long_side < min(self.size):
            raise UserError(f"the longer side, {self.long_side}, is below the shorter one, {min(self.size)}.")
        self._check_range()

    def _check_range(self) -> None:
        """Refuse numbers with which no image can be prepared, or only one of gigabytes."""
        if not all(1 <= side <= MOST_PIXELS for side in (*self.size, self.long_side or 1)):
            raise UserError(
                f"input_size is {self.input_size}, long_side {self.long_side}; give 1 to {MOST_PIXELS} pixels."
            )
        if self.max_pixels is not None and self.max_pixels < 1:
            raise UserError(f"max_pixels is {self.max_pixels}; give 1 or more.")
        if not 0.1 <= self.crop_pct <= 10:
            raise UserError(
                f"crop_pct is {self.crop_pct}; give the crop as a share of the resized side, for example 0.875."
            )
        if not self.mean or not all(std > 0 for std in self.std):
            raise UserError(f"mean is {self.mean}, std {self.std}; give a number per channel, the latter above 0.")

    def describe(self) -> str:
        """What is done to an image, one sentence for the model card."""
        size = f"{self.size[0]} x {self.size[1]}"
        if self.long_side is None and self.view != "crop":
            first = f"{'Squash to' if self.view == 'squash' else 'Fit into and pad to'} {size} pixels"
            rest = ""
        elif isinstance(self.resize, int):
            first = f"Resize the shorter side to {self.resize} pixels"
            cut = self.long_side is None
            rest = f", crop the centre to {self.input_size}" if cut else f", the longer to {self.long_side} at most"
        else:
            first, rest = f"Resize to {'cover' if self.long_side is None else 'fit into'} {size} pixels", ""
        mean, std = (f"({', '.join(f'{value:g}' for value in values)})" for values in (self.mean, self.std))
        return f"{first} ({self.interpolation}){rest}, scale to [0, 1], subtract {mean}, divide by {std}."

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.mean)

    @property
    def size(self) -> tuple[int, int]:
        """`input_size` as (height, width)."""
        return (self.input_size, self.input_size) if isinstance(self.input_size, int) else self.input_size

    @property
    def resize(self) -> Size:
        """What the image covers before the crop: its shorter side, 256 for an official 224 model, or both."""
        if isinstance(self.input_size, int):
            return int(self.input_size / self.crop_pct)
        height, width = self.input_size
        return int(height / self.crop_pct), int(width / self.crop_pct)

    def for_channels(self, channels: int) -> "Image":
        """The same for images of another number of channels: the numbers of `mean` and `std` in turn, as in the stem
        of adapted weights; their mean for one channel."""
        if channels == self.channels:
            return self

        def fitted(values: tuple[float, ...]) -> tuple[float, ...]:
            if channels == 1:
                return (sum(values) / len(values),)
            return tuple(values[index % len(values)] for index in range(channels))

        return dataclasses.replace(self, mean=fitted(self.mean), std=fitted(self.std))

    def read(self, source: Any, *, name: str | None = None, enough: int | None = None) -> Signal:
        """An upright image of `channels` channels with 8 bits each, from what `load_image` takes."""
        return load_image(
            source, name=name, channels=self.channels, values=self.range, max_pixels=self.max_pixels, enough=enough
        )

    def __call__(self, signal: Signal) -> "Tensor":
        """What the network sees of an image in evaluation."""
        pixels = self.pixels(signal)
        return self.scaled(pixels) if self.long_side is None else self.normalize(pixels)

    def pixels(self, signal: Signal) -> "Tensor":
        """(C, H, W), uint8: what the network sees of an image in evaluation, before it is normalized.

        Images more than 16 times longer than wide are first cropped to that around their centre, which a centre crop
        does not see: resizing the shorter side of a 1 x 50,000 pixel line would otherwise take gigabytes.
        """
        if self.long_side is None:
            seen = self.seen(signal if isinstance(signal, PIL.Image.Image) else pixels_of(signal))
            return _as_pixels(seen)
        whole = pixels_of(signal)
        return self.resize_to(whole, self.whole_size((whole.shape[1], whole.shape[2])))

    def seen(self, image: Any) -> Any:
        """The view of an image that a classifier sees, `size` in pixels; of a PIL image or a tensor (C, H, W)."""
        from torchvision.transforms.v2 import functional as V

        if self.view == "pad":
            return self.padded(image)
        if self.view == "squash":
            return V.resize(image, list(self.size), self._mode)
        frame = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        return V.center_crop(self.covering(_limited(image), frame), list(self.size))

    def covering(self, image: Any, frame: tuple[int, int]) -> Any:
        """The image resized, in its shape, to the smallest size that covers a frame, (height, width)."""
        from torchvision.transforms.v2 import functional as V

        height, width = _size(image)
        rows, columns = frame
        by_width = columns * height >= rows * width
        size = (int(columns * height / width), columns) if by_width else (rows, int(rows * width / height))
        return image if size == (height, width) else V.resize(image, list(size), self._mode)

    def padded(self, image: Any, factor: float = 1.0) -> Any:
        """The image made to fit into `factor` times `size`, in the middle of pixels of the mean."""
        from torchvision.transforms.v2 import functional as V

        size, frame = _size(image), [round(factor * side) for side in self.size]
        fitting = scaled_size(size, min(frame[0] / size[0], frame[1] / size[1]))
        image = V.resize(image, [min(pair) for pair in zip(fitting, frame, strict=True)], self._mode)
        height, width = _size(image)
        top, left = (frame[0] - height) // 2, (frame[1] - width) // 2
        fill: Any = [round(255 * value) for value in self.mean]
        return V.pad(image, [left, top, frame[1] - width - left, frame[0] - height - top], fill=fill)

    def share_seen(self, size: tuple[int, int]) -> float:
        """Share of an image of `size`, (height, width), that is left when a crop gives it the shape of the input."""
        if self.long_side is not None or self.view != "crop":
            return 1.0
        shape = size[0] * self.size[1] / (size[1] * self.size[0])
        return min(shape, 1 / shape)

    def whole_size(self, size: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
        """(height, width) of a whole image of `size` after the resize to `scale` times `input_size`."""
        if not isinstance(self.input_size, int):
            rows, columns = (max(1, round(scale * side)) for side in self.input_size)
            return scaled_size(size, min(rows / size[0], columns / size[1]))
        short = scale * self.input_size
        long = self.long_side or LONGEST * short
        return scaled_size(size, min(round(short) / min(size), long / max(size)))

    @property
    def _mode(self) -> Any:
        from torchvision.transforms import InterpolationMode

        return InterpolationMode(self.interpolation)

    def resize_to(self, pixels: "Tensor", size: tuple[int, int]) -> "Tensor":
        """(C, H, W), uint8, to another (height, width), antialiased as Pillow does."""
        from torchvision.transforms.v2 import functional as V

        return pixels if pixels.shape[1:] == size else V.resize_image(pixels, list(size), self._mode, antialias=True)

    def normalize(self, pixels: "Tensor") -> "Tensor":
        """(..., C, H, W), 0 to 255, to the floats that the network takes."""
        from torchvision.transforms.v2 import functional as V

        return V.normalize_image(pixels.float() / 255, list(self.mean), list(self.std))

    def restore(self, pixels: "Tensor") -> Signal:
        """The image that `normalize` made these floats of, (C, H, W)."""
        import torch

        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        values = ((pixels.cpu() * std + mean) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        return PIL.Image.fromarray(values) if self.channels == 3 else Bands(values)

    def scaled(self, pixels: "Tensor") -> "Tensor":
        """`normalize` for classifiers, rounded as torchvision's transforms of images do: (…, C, H, W), uint8, on any
        device, to float32."""
        import torch

        mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return pixels.to(torch.float32).mul_(1.0 / 255).sub_(mean).div_(std)

    def remarks(self, signals: Sequence[Any]) -> list[str]:
        """What a user should know of how images are read and seen, a sentence each, with the option to choose."""
        files: list[Stored] = [signal.info[STORED] for signal in signals if STORED in signal.info]
        count, lines = len(signals), []

        def some(number: int, verb: str) -> str:
            return f"{number} of {counted(count, 'images')} looked at {agreeing(number, verb)}"

        deep = [file for file in files if file.bits == 16]
        if self.range == "auto" and deep:
            low, high = min(file.low for file in deep), max(file.high for file in deep)
            if high - low <= SMALL_PART * 65535:
                lines.append(
                    f"{some(len(deep), 'have')} 16 bits, of whose 0 to 65535 only {low:.0f} to {high:.0f} are used: "
                    "nearly one shade to the network. --range percentile takes the range of each image instead, "
                    "--range 8bit 0 to 255, --range full leaves it so."
                )
        if stretched := sum(file.stretched for file in files):
            what = "values beyond 0 to 255 (floats) or 65535 (integers), brought onto 0 to 255 by their own range"
            lines.append(f"{some(stretched, 'have')} {what}. Otherwise: --range percentile, 8bit or full.")
        if alpha := sum(file.alpha for file in files):
            what = "TIFFs whose fourth band says that it is transparency, laid on white"
            lines.append(f"{some(alpha, 'are')} {what}. If it is a channel: --channels 4.")
        if pages := sum(file.pages > 1 for file in files):
            lines.append(f"{some(pages, 'are')} TIFFs of several pages: the first one is taken.")
        cut = [share for signal in signals if (share := self.share_seen(signal.size[::-1])) < 0.5]
        if len(cut) >= max(1, MANY * count):
            lines.append(
                f"{some(len(cut), 'have')} another shape than the input, {self.size[0]} x {self.size[1]}: of them the "
                f"middle {sum(cut) / len(cut):.0%} is seen. --resize squash or pad shows them whole, --image-size H W "
                "takes another shape."
            )
        return lines


SMALL_PART = 0.25
"""Of the range of 16 bits: images that use no more of it are told."""
MANY = 0.25
"""Of images: so many of another shape than the input are told."""

WHOLE_IMAGE = Image(input_size=800, long_side=1333, crop_pct=1.0, interpolation="bilinear")
"""What the published detectors see."""
SEMANTIC = dataclasses.replace(WHOLE_IMAGE, input_size=512, long_side=2048)
"""What the published UPerNets see."""


def to_tensor(how: Image) -> list[Callable[[Any], Any]]:
    """The last steps of a transform for classifiers: an image to its normalized tensor."""
    return [_as_pixels, how.scaled]


def _as_pixels(image: Any) -> "Tensor":
    """(C, H, W), uint8, contiguous: a pass over floats whose three channels lie side by side takes much longer."""
    return planes_of(image) if isinstance(image, PIL.Image.Image) else image.contiguous()


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(height, width) times a factor, to the nearest pixel as mmdetection rounds, at least 1."""
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def _size(image: Any) -> tuple[int, int]:
    """(height, width) of a PIL image or a tensor."""
    height, width = image.size[::-1] if isinstance(image, PIL.Image.Image) else image.shape[-2:]
    return height, width


def _limited(image: Any) -> Any:
    from torchvision.transforms.v2 import functional as V

    size = _size(image)
    if max(size) <= LONGEST * min(size):
        return image
    height, width = (min(side, LONGEST * min(size)) for side in size)
    return V.crop(image, (size[0] - height) // 2, (size[1] - width) // 2, height, width)


Preprocessing = Image
"""The public name of `Image`."""
