"""Focal-UNet (Naderi et al., "Focal-UNet: UNet-like Focal Modulation for Medical Image Segmentation", 2212.09263).

A FocalNet goes down, focal blocks go up again, one per scale. Each scale takes what the encoder had there before its
blocks, and a linear layer mixes both:

    x = norm(encoder(image));   x = up(x)
    x = up(block(mix([x, skip]))) at every scale;   logits = conv7x7(up4(norm_up(x)))

A step up is a transposed convolution with as large a stride as kernel, and a LayerNorm; the last one goes to the pixels
and has none. An image of one channel is shown to the encoder as three equal ones.

What differs from the official code: any size, number of classes and number of stages. There the sides are 224 and the
classes 9; a map of an odd side is padded on its way down, as the dense backbones do, and cut on its way up.

Legend: B batch, K classes, C channels, H W pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.backbone import Block, FocalNetBase, Recompute
from focalnet.layers import channels_first, channels_last
from focalnet.models.base import Network
from focalnet.models.segmentation import IGNORE, probabilities
from focalnet.variants import FocalNetConfig


@dataclass(frozen=True, kw_only=True)
class FocalUNetOptions:
    """Options of a `FocalUNet`."""

    dice_weight: float = 0.6
    """Share of the Dice loss; the rest is cross-entropy."""


class PatchExpand(nn.Module):
    """A transposed convolution that makes maps `stride` times as large, and a LayerNorm (official `PatchExpand`).

    Args:
        in_channels, out_channels: channels in and out.
        stride: the factor, and the kernel size.
        norm: whether the LayerNorm follows.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2, *, norm: bool = True) -> None:
        super().__init__()
        self.proj = nn.ConvTranspose2d(in_channels, out_channels, stride, stride)
        self.norm = nn.LayerNorm(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C_in) -> (B, stride · H, stride · W, C_out)."""
        x = channels_last(self.proj(channels_first(x)))
        return x if self.norm is None else self.norm(x)


class UpStage(nn.Module):
    """A block of the decoder, and the step up to the next scale unless it is the last.

    Args:
        config: the architecture.
        stage: which stage of the encoder has this scale.
    """

    def __init__(self, config: FocalNetConfig, stage: int) -> None:
        super().__init__()
        rate = config.drop_path_rate * stage / max(sum(config.depths) - 1, 1)  # falls to 0 on the way up
        self.blocks = nn.ModuleList([Block(config, stage, rate)])
        self.upsample = PatchExpand(config.channels[stage], config.channels[stage - 1]) if stage else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 2H, 2W, C / 2), or as large as before in the last stage."""
        for block in self.blocks:
            x = block(x)
        return x if self.upsample is None else self.upsample(x)


class FocalUNet(Network[Tensor]):
    """Focal-UNet for semantic segmentation. The decoder's parameters bear the official names.

    Args:
        architecture: of the encoder.
        num_classes: K.
        options: of the head.
        recompute: see `FocalNet`.
    """

    Options = FocalUNetOptions
    backbone_prefix = "backbone."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 9,
        options: FocalUNetOptions = FocalUNetOptions(),
        recompute: Recompute = "none",
    ) -> None:
        super().__init__()
        self.options = options
        channels = architecture.channels
        up = range(len(channels) - 2, -1, -1)
        self.backbone = FocalNetBase(architecture, pad_odd=True, recompute=recompute)
        self.norm = nn.LayerNorm(channels[-1])
        first = PatchExpand(channels[-1], channels[-2]) if up else nn.Identity()
        self.layers_up = nn.ModuleList([first, *(UpStage(architecture, stage) for stage in up)])
        self.concat_back_dim = nn.ModuleList(
            [nn.Identity(), *(nn.Linear(2 * channels[stage], channels[stage]) for stage in up)]
        )
        self.norm_up = nn.LayerNorm(channels[0])
        self.patch_expand = PatchExpand(channels[0], channels[0], architecture.patch_size, norm=False)
        self.output = nn.Conv2d(channels[0], num_classes, 7, padding=3, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def class_parameters(self) -> Iterator[str]:
        yield "output.weight"

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            inputs: (B, in_channels, H, W), normalized, or (B, 1, H, W), which is repeated.
            sizes: not needed: the network sees padding too.

        Returns:
            (B, K, H, W).
        """
        channels = self.backbone.config.in_channels
        images = inputs.expand(-1, channels, -1, -1) if inputs.shape[1] == 1 else inputs
        skips, maps = zip(*self.backbone.walk(images), strict=True)
        x = self.layers_up[0](self.norm(maps[-1]))
        for skip, mix, stage in zip(skips[-2::-1], self.concat_back_dim[1:], self.layers_up[1:], strict=True):
            height, width = skip.shape[1:3]
            x = stage(mix(torch.cat([x[:, :height, :width], skip], dim=-1)))
        x = channels_first(self.patch_expand(self.norm_up(x)))
        return self.output(x)[..., : inputs.shape[2], : inputs.shape[3]]

    def loss(self, inputs: Tensor, targets: Tensor, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """`loss_dice` and `loss_ce`, the cross-entropy, and `loss`, their weighted sum; in float32.

        Args:
            inputs: as in `forward`.
            targets: (B, H, W), int64, the class of each pixel; 255 where it has none, and in the padding.
            sizes: not needed.
        """
        logits = self(inputs, sizes).float()
        dice = dice_loss(logits, targets)
        known = (targets != IGNORE).sum().clamp(min=1)
        cross = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / known
        share = self.options.dice_weight
        return {"loss_dice": dice, "loss_ce": cross, "loss": share * dice + (1 - share) * cross}

    def postprocess(self, outputs: Tensor, sizes: Tensor, original_sizes: Tensor | None = None) -> list[Tensor]:
        """Probabilities of the classes at every pixel, as `semantic`."""
        return self.semantic(outputs, sizes, original_sizes)

    def semantic(self, outputs: Tensor, sizes: Tensor, original_sizes: Tensor | None = None) -> list[Tensor]:
        """Probabilities of the classes at every pixel.

        Args:
            outputs: the logits of a batch.
            sizes: (B, 2), height and width of what is image in each padded input.
            original_sizes: (B, 2), of the images before they were resized; `sizes` by default.

        Returns:
            per image (K, H, W), float32, at its original size.
        """
        return probabilities(outputs, sizes, original_sizes)


def dice_loss(logits: Tensor, targets: Tensor, smooth: float = 1e-5) -> Tensor:
    """One minus the soft Dice over the whole batch, averaged over the classes, background among them.

    `1 - (2 Σ p t + s) / (Σ p² + Σ t² + s)` per class, with p the softmax and t the truth (official `utils.py`).

    Args:
        logits: (B, K, H, W).
        targets: (B, H, W), int64; pixels of 255 count in no sum.
        smooth: s.
    """
    known = (targets != IGNORE)[:, None]
    scores = logits.softmax(1) * known
    truth = F.one_hot(targets.where(known[:, 0], 0), logits.shape[1]).movedim(-1, 1) * known
    axes = (0, 2, 3)
    both, sizes = (scores * truth).sum(axes), scores.square().sum(axes) + truth.sum(axes)
    return 1 - ((2 * both + smooth) / (sizes + smooth)).mean()
