"""Images to input tensors for training: random crop, flips, RandAugment or color jitter, affine, normalize, erase.

All on `torchvision.transforms.v2`, and equal to timm's `create_transform`, which the official code calls
(`classification/data/build.py`). As there, color jitter is off where RandAugment is on: the official recipe names
both, and no image is ever jittered. For evaluation an input is its own transform (`inputs.Image`).

All randomness comes from torch's global generator: a seed before the call fixes the result.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from focalnet import inputs
from focalnet.data.transforms.randaugment import RandAugment
from focalnet.errors import UserError
from focalnet.inputs.image import Signal, pixels_of, to_tensor

Transform = Callable[[Signal], Tensor]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are varied. The defaults are the official ones for ImageNet (the paper's Table 18).

    Raises:
        UserError: a value out of range.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Area of the random crop, as a share of the image: least and most."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the random crop: least and most."""
    hflip: float = 0.5
    """Probability of a flip from left to right."""
    vflip: float = 0.0
    """Probability of a flip from top to bottom."""
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    """RandAugment policy, or None."""
    color_jitter: float = 0.4
    """Largest change of brightness, contrast and saturation, where `auto_augment` is None."""
    rotate: float = 0.0
    """Largest rotation, in degrees; what comes in from outside is black, as for the three below."""
    shift: float = 0.0
    """Largest shift, as a share of the side."""
    zoom: float = 0.0
    """Largest enlargement or reduction, as a share."""
    shear: float = 0.0
    """Largest shear in either direction, in degrees."""
    erase: float = 0.25
    """Probability that a random rectangle becomes noise."""

    def __post_init__(self) -> None:
        for name, most in (("hflip", 1), ("vflip", 1), ("erase", 1), ("shift", 0.9), ("zoom", 0.9)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"Augmentation has {name}={getattr(self, name)}; give a number from 0 to {most}.")
        for name in ("color_jitter", "rotate", "shear"):
            if getattr(self, name) < 0:
                raise UserError(f"Augmentation has {name}={getattr(self, name)}; give 0 or more.")
        for name in ("scale", "ratio"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            least, most = getattr(self, name)
            if not 0 < least <= most or (name == "scale" and most > 1):
                raise UserError(
                    f"Augmentation has {name}={(least, most)}; give least and most, above 0, scale up to 1."
                )


def train_transform(preprocessing: inputs.Image, augmentation: Augmentation, *, raw: bool = False) -> Transform:
    """Augmentation for training: an image of C channels -> (C, H, W) float32, H and W of `preprocessing`; `raw`: uint8,
    which `inputs.Image.scaled` normalizes.

    Other than RGB images are tensors from the first step on, moved pixels are then bilinear, and their colors jitter
    in brightness and contrast alone.

    Raises:
        UserError: a policy that knows RGB alone, for other images; a step after normalizing, for `raw` ones.
    """
    how, rgb = augmentation, preprocessing.channels == 3
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    steps: list[Callable] = [*([] if rgb else [pixels_of]), _cut(preprocessing, how, resample)]
    if how.hflip:
        steps.append(_Direct(v2.RandomHorizontalFlip(how.hflip)))
    if how.vflip:
        steps.append(_Direct(v2.RandomVerticalFlip(how.vflip)))
    if how.auto_augment is not None:
        if not rgb:
            raise UserError(
                f"RandAugment changes red, green and blue, and the images have {preprocessing.channels} channels: take "
                f"another --augment, for example light."
            )
        red, green, blue = (min(255, round(255 * mean)) for mean in preprocessing.mean)
        steps.append(RandAugment(how.auto_augment, resample=resample, color=(red, green, blue)))
    elif how.color_jitter:
        jitter = v2.ColorJitter(how.color_jitter, how.color_jitter, how.color_jitter)
        steps.append(_Direct(jitter) if rgb else _Jitter(how.color_jitter))
    if how.rotate or how.shift or how.zoom or how.shear:
        tilt = [-how.shear, how.shear, -how.shear, how.shear]
        shift, scale = (how.shift, how.shift), (1 - how.zoom, 1 + how.zoom)
        moved = resample if rgb else Image.Resampling.BILINEAR
        steps.append(_Direct(v2.RandomAffine([-how.rotate, how.rotate], shift, scale, tilt, moved)))
    steps += to_tensor(preprocessing)[:1] if raw else to_tensor(preprocessing)
    if how.erase and raw:
        raise UserError("Pixels are erased after they are normalized, which is not done here; take another --augment.")
    if how.erase:
        noise: Any = "random"
        steps.append(_Direct(v2.RandomErasing(how.erase, (0.02, 1 / 3), (0.3, 1 / 0.3), noise, inplace=True)))
    return v2.Compose(steps)


def _cut(how: inputs.Image, augmentation: Augmentation, resample: Image.Resampling) -> Callable[[Any], Any]:
    """A random crop, resized to the input, of what of an image is seen (`inputs.Image.view`)."""
    height, width = how.size
    scale, (narrow, wide) = augmentation.scale, augmentation.ratio

    def crop(shape: float) -> Callable[[Any], Any]:
        return _Direct(v2.RandomResizedCrop(how.size, scale, (narrow * shape, wide * shape), resample))

    def cut(image: Any) -> Any:
        if how.view == "squash":  # the ratio is that of the crop when it is squashed
            rows, columns = image.shape[-2:] if isinstance(image, Tensor) else image.size[::-1]
            return crop(columns / rows)(image)
        # as large as keeps the smallest crop from being enlarged
        return crop(width / height)(how.padded(image, scale[0] ** -0.5))

    return crop(width / height) if how.view == "crop" else cut


def shorter_side(how: inputs.Image, augmentation: Augmentation) -> int:
    """Pixels of the shorter side of an image from which on no random crop is enlarged."""
    share = augmentation.scale[0] * min(augmentation.ratio[0], 1 / augmentation.ratio[1])
    return math.ceil(max(how.size) / math.sqrt(share))


class _Direct:
    """A transform of torchvision for one image, which is not looked for among nested inputs: a tenth of the time of a
    small image. The draws are the same."""

    def __init__(self, step: Any) -> None:
        self.step, self.probability = step, getattr(step, "p", None)

    def __call__(self, image: Any) -> Any:
        if self.probability is not None and torch.rand(1) >= self.probability:
            return image
        return self.step.transform(image, self.step.make_params([image]))

    def __repr__(self) -> str:
        return repr(self.step)


class _Jitter:
    """Brightness and contrast of (C, H, W), uint8, times factors up to 1 + or - `strength`; C is not three."""

    def __init__(self, strength: float) -> None:
        self.least, self.most = max(0.0, 1 - strength), 1 + strength

    def __call__(self, pixels: Tensor) -> Tensor:
        brightness, contrast = (self.least + (self.most - self.least) * torch.rand(2)).tolist()
        values = pixels.float() * brightness
        mean = values.mean()
        return ((values - mean) * contrast + mean).round().clamp(0, 255).to(torch.uint8)
