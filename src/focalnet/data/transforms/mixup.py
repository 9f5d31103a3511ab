"""Mixup and cutmix of a batch, with smoothed labels.

    mixup    x = l x1 + (1 - l) x2                    l from Beta(alpha, alpha)
    cutmix   a rectangle of x2, of the share 1 - l, pasted over x1
    both     y = l y1 + (1 - l) y2

B images, K classes.
"""

import math

import torch
from torch import Tensor
from torchvision.transforms import v2

from focalnet.errors import UserError


class MixupCutmix:
    """Mixup or cutmix of a batch, with smoothed labels: timm's `Mixup` in mode "batch".

    One draw decides for the whole batch: nothing with probability 1 - `prob`, else cutmix with probability
    `switch_prob`, else mixup; one weight lambda from Beta(alpha, alpha), for cutmix corrected to the pasted area.

    Built on `v2.MixUp` and `v2.CutMix`. What differs from timm: the partner of an image is the one before it, not the
    one at the mirrored place, so the batch may be odd and no image is its own partner; the sides of the pasted
    rectangle are even; the batch that is passed in stays as it is.

    Args:
        mixup_alpha: 0 for no mixup. Official: 0.8.
        cutmix_alpha: 0 for no cutmix. Official: 1.0 in the code, 0.8 in the paper's Table 18.
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
            images: (B, 3, H, W), normalized.
            labels: (B,), class indices; or (B, K), 0 or 1 for each class, of which each is smoothed by itself.

        Returns:
            images (B, 3, H, W) and targets (B, K), whose rows sum to 1 where each image has one class.
        """
        if labels.ndim == 2:
            targets = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        else:
            off = self.label_smoothing / self.num_classes
            targets = torch.full((len(labels), self.num_classes), off, device=labels.device)
            targets.scatter_(1, labels[:, None], 1 - self.label_smoothing + off)
        apply, switch = torch.rand(2).tolist()
        cutmix = self.mixup is None or switch < self.switch_prob
        mix = self.cutmix if self.cutmix is not None and cutmix else self.mixup
        return (images, targets) if mix is None or apply >= self.prob else mix(images, targets)
