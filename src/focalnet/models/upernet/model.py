"""UPerNet (Xiao et al., ECCV 2018) on our backbone: transformers' class, equal to mmsegmentation's `UPerHead` and
`FCNHead` under other names.

A class per pixel. Pyramid pooling on the last map, a feature pyramid over all maps, one 3x3 convolution over their
concatenation; while training, a second small head on the third map helps (weight 0.4).

Choices that transformers does not make, after the official code: dropout before both classifiers, and a cross-entropy
averaged over all pixels, ignored ones included, so that an image with little truth weighs little.

What differs from the official code: losses are computed in float32 under autocast too.

Legend: B batch, K classes, H W pixels of the padded input, h w positions of the third map.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.backbone import Recompute
from focalnet.errors import UserError
from focalnet.models.base import Network, require_four_stages
from focalnet.models.segmentation import IGNORE, probabilities
from focalnet.models.transformers import FocalNetBackboneConfig  # first: it says which extra is missing
from focalnet.ops.compiling import is_exporting
from focalnet.variants import FocalNetConfig

from transformers import UperNetConfig, UperNetForSemanticSegmentation  # isort: skip


class _Classifier(nn.Conv2d):
    """Whole channels dropped, then a 1x1 convolution to the classes; parameters named as those of the convolution."""

    def __init__(self, channels: int, num_classes: int, dropout: float, std: float) -> None:
        super().__init__(channels, num_classes, 1)
        self.drop = nn.Dropout2d(dropout)
        nn.init.normal_(self.weight, std=std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name is PyTorch's
        return super().forward(self.drop(input))


class _Pool(nn.AdaptiveAvgPool2d):
    """The pooling of torch; in exported programs as two products, since ONNX pools maps of one size alone."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name is PyTorch's
        if not is_exporting():
            return super().forward(input)
        side: Any = self.output_size
        rows, columns = (_shares(length, side, input) for length in input.shape[-2:])
        return rows @ input @ columns.mT


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """(cells, length): what each position counts in the mean of each cell, as torch divides them."""
    cell = torch.arange(cells, device=like.device)[:, None]
    position = torch.arange(length, device=like.device)
    inside = (position >= cell * length // cells) & (position < ((cell + 1) * length + cells - 1) // cells)
    return inside.to(like.dtype) / inside.sum(1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class UperNetOptions:
    """Options of a `UperNet`."""

    channels: int = 512
    """Width of the head."""
    aux_channels: int = 256
    """Width of the auxiliary head."""
    aux_weight: float = 0.4
    """Weight of the auxiliary loss."""
    dropout: float = 0.1
    """Rate at which channels are dropped before the classifiers."""
    classifier_std: float = 0.01
    """Standard deviation of the classifiers' random weights. The official 0.01 is for a pre-trained backbone; a random
    one learns to tell classes apart sooner from larger weights."""
    pool_scales: Sequence[int] = (1, 2, 3, 6)
    """Sides of the pooled maps."""
    average_ignored: bool = True
    """Divide the cross-entropy by the number of all pixels, as mmsegmentation does; otherwise by the number of those
    that have a class."""


class UperNetOutputs(NamedTuple):
    """Raw outputs of a `UperNet`.

    Attributes:
        logits: (B, K, H, W).
        aux_logits: (B, K, h, w), of the auxiliary head, at the positions of the third map; only `loss` enlarges them.
    """

    logits: Tensor
    aux_logits: Tensor


class UperNet(Network[UperNetOutputs]):
    """UPerNet for semantic segmentation.

    Args:
        architecture: of the backbone.
        num_classes: classes.
        options: of the head.
        recompute: see `FocalNet`.

    Attributes:
        net: transformers' network; `model.net.save_pretrained(folder)` writes it for plain transformers code.
    """

    Options = UperNetOptions
    backbone_prefix = "net.backbone.trunk."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 150,
        options: UperNetOptions = UperNetOptions(),
        recompute: Recompute = "none",
    ) -> None:
        super().__init__()
        require_four_stages("UPerNet", architecture)
        config = UperNetConfig(
            backbone_config=FocalNetBackboneConfig(architecture=architecture),
            hidden_size=options.channels,
            pool_scales=list(options.pool_scales),
            auxiliary_channels=options.aux_channels,
            auxiliary_in_channels=architecture.channels[2],
            auxiliary_loss_weight=options.aux_weight,
            loss_ignore_index=IGNORE,
            num_labels=num_classes,  # type: ignore[call-arg]  # of every configuration
        )
        self.options = options
        self.net: Any = UperNetForSemanticSegmentation(config)
        for module in self.net.decode_head.modules():
            if isinstance(module, nn.AdaptiveAvgPool2d):
                module.__class__ = _Pool
        for head, width in (
            (self.net.decode_head, options.channels),
            (self.net.auxiliary_head, options.aux_channels),
        ):
            for module in head.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            head.classifier = _Classifier(width, num_classes, options.dropout, options.classifier_std)
        self.net.decode_head.bottleneck.register_forward_pre_hook(_channels_last)
        self.focalnet.set_recompute(recompute)

    def class_parameters(self) -> Iterator[str]:
        for head in ("decode_head", "auxiliary_head"):
            yield from (f"net.{head}.classifier.{leaf}" for leaf in ("weight", "bias"))

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> UperNetOutputs:
        """Raw outputs.

        Args:
            inputs: (B, 3, H, W), normalized.
            sizes: not needed: the official network sees padding too.

        Raises:
            UserError: one image alone while training.
        """
        norm = self.net.decode_head.bottleneck.batch_norm
        if self.training and len(inputs) == 1 and isinstance(norm, nn.BatchNorm2d):
            raise UserError("UPerNet normalises over the batch and cannot learn from one image; use a batch size >= 2.")
        maps = self.net.backbone(inputs).feature_maps
        logits = _enlarged(self.net.decode_head(maps), inputs)
        return UperNetOutputs(logits, self.net.auxiliary_head(maps))

    def loss(self, inputs: Tensor, targets: Tensor, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """Cross-entropies `loss_main` and `loss_aux`, and `loss`, their weighted sum.

        Args:
            inputs: (B, 3, H, W), normalized.
            targets: (B, H, W), int64, the class of each pixel; 255 where it has none, and in the padding.
            sizes: not needed.

        Raises:
            UserError: one image alone while training.
        """
        logits, small = self(inputs, sizes)
        main, aux = (self._cross_entropy(x.float(), targets) for x in (logits, _enlarged(small, inputs)))
        return {"loss_main": main, "loss_aux": aux, "loss": main + self.options.aux_weight * aux}

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        counted = targets.numel() if self.options.average_ignored else (targets != IGNORE).sum().clamp(min=1)
        return F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / counted

    def postprocess(self, outputs: UperNetOutputs, sizes: Tensor, original_sizes: Tensor | None = None) -> list[Tensor]:
        """Probabilities of the classes at every pixel, as `semantic`."""
        return self.semantic(outputs, sizes, original_sizes)

    def semantic(self, outputs: UperNetOutputs, sizes: Tensor, original_sizes: Tensor | None = None) -> list[Tensor]:
        """Probabilities of the classes at every pixel.

        Args:
            outputs: raw outputs of a batch.
            sizes: (B, 2), height and width of what is image in each padded input.
            original_sizes: (B, 2), of the images before they were resized; `sizes` by default.

        Returns:
            per image (K, H, W), float32, at its original size.
        """
        return probabilities(outputs.logits, sizes, original_sizes)


def _enlarged(logits: Tensor, inputs: Tensor) -> Tensor:
    """Logits at every pixel of the padded input."""
    return F.interpolate(logits, size=inputs.shape[2:], mode="bilinear", align_corners=False)


def _channels_last(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """The strides that all other maps have: pooled maps of 1x1 have none, and a training step would be slower.

    Evaluation keeps transformers' own order of additions, and so its bits.
    """
    return (inputs[0].contiguous(memory_format=torch.channels_last),) if module.training else inputs
