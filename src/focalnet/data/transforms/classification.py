"""Images to input tensors, for evaluation and for training, and the mixing of batches.

    evaluation   resize the shorter side, crop the centre, normalise                    (F0.11)
    training     random crop, flips, RandAugment or colour jitter, affine, normalise, erase     (F2.1)
    batches      mixup or cutmix, smoothed labels                                       (F2.1)

All on `torchvision.transforms.v2`, and equal to timm's `create_transform`, which the official code calls. As there,
colour jitter is off where RandAugment is on: the official recipe names both, and no image is ever jittered.

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
from focalnet.inputs.image import to_tensor

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are varied. The defaults are the official ones for ImageNet (F2.1).

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


def train_transform(preprocessing: inputs.Image, augmentation: Augmentation) -> Transform:
    """Augmentation for training: (PIL image, RGB) -> (3, H, W) float32, H = W = `preprocessing.input_size`."""
    size, how = preprocessing.input_size, augmentation
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    steps: list[Callable] = [v2.RandomResizedCrop(size, how.scale, how.ratio, resample)]
    if how.hflip:
        steps.append(v2.RandomHorizontalFlip(how.hflip))
    if how.vflip:
        steps.append(v2.RandomVerticalFlip(how.vflip))
    if how.auto_augment is not None:
        red, green, blue = (min(255, round(255 * mean)) for mean in preprocessing.mean)
        steps.append(RandAugment(how.auto_augment, resample=resample, color=(red, green, blue)))
    elif how.color_jitter:
        steps.append(v2.ColorJitter(how.color_jitter, how.color_jitter, how.color_jitter))
    if how.rotate or how.shift or how.zoom or how.shear:
        tilt = [-how.shear, how.shear, -how.shear, how.shear]
        shift, scale = (how.shift, how.shift), (1 - how.zoom, 1 + how.zoom)
        steps.append(v2.RandomAffine([-how.rotate, how.rotate], shift, scale, tilt, resample))
    steps += to_tensor(preprocessing)
    if how.erase:
        noise: Any = "random"
        steps.append(v2.RandomErasing(how.erase, (0.02, 1 / 3), (0.3, 1 / 0.3), noise))
    return v2.Compose(steps)


class MixupCutmix:
    """Mixup or cutmix of a batch, with smoothed labels: timm's `Mixup` in mode "batch".

    One draw decides for the whole batch: nothing with probability 1 - `prob`, else cutmix with probability
    `switch_prob`, else mixup; one weight lambda from Beta(alpha, alpha), for cutmix corrected to the pasted area.

    Built on `v2.MixUp` and `v2.CutMix`. What differs from timm: the partner of an image is the one before it, not the
    one at the mirrored place, so the batch may be odd and no image is its own partner; the sides of the pasted
    rectangle are even; the batch that is passed in stays as it is.

    Args:
        mixup_alpha: 0 for no mixup. Official: 0.8.
        cutmix_alpha: 0 for no cutmix. Official: 1.0 in the code, 0.8 in the paper (F2.1).
        prob: probability that a batch is mixed. Official: 1.
        switch_prob: probability of cutmix where both are on. Official: 0.5.
        label_smoothing: share of each target that is spread over all classes, in mixed batches or not. Official: 0.1.
        num_classes: K.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        *,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
        num_classes: int,
    ) -> None:
        for name, value in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if value < 0 or not math.isfinite(value):
                raise UserError(f"{name} is {value}; give 0 or more.")
        for name, value in (("prob", prob), ("switch_prob", switch_prob), ("label_smoothing", label_smoothing)):
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value}; give a number from 0 to 1.")
        self.mixup = v2.MixUp(alpha=mixup_alpha) if mixup_alpha else None
        self.cutmix = v2.CutMix(alpha=cutmix_alpha) if cutmix_alpha else None
        self.prob, self.switch_prob = prob, switch_prob
        self.label_smoothing, self.num_classes = label_smoothing, num_classes

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: (B, 3, H, W), normalised.
            labels: (B,), class indices.

        Returns:
            images (B, 3, H, W) and targets (B, K), whose rows sum to 1.
        """
        off = self.label_smoothing / self.num_classes
        targets = torch.full((len(labels), self.num_classes), off, device=labels.device)
        targets.scatter_(1, labels[:, None], 1 - self.label_smoothing + off)
        apply, switch = torch.rand(2).tolist()
        cutmix = self.mixup is None or switch < self.switch_prob
        mix = self.cutmix if self.cutmix is not None and cutmix else self.mixup
        return (images, targets) if mix is None or apply >= self.prob else mix(images, targets)
