"""Detectors of two stages: proposals, then the class, the box and the mask of each.

Legend: B images, N boxes, D detections per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet.models.base import Detector, Target, enlarged, pairs, require_labels, require_masks, whole_sizes
from focalnet.models.detection.boxes import padded, precise
from focalnet.models.detection.proposals import ProposalNetwork, Proposals
from focalnet.models.detection.pyramid import Pyramid
from focalnet.models.detection.regions import paste_masks
from focalnet.structures import Detections


@dataclass(frozen=True, kw_only=True)
class TwoStageOptions:
    """Options of a detector of two stages."""

    fpn_channels: int = 256
    """Channels of the pyramid, the RPN and the mask head."""
    representation_size: int = 1024
    """Width of the linear layers before class and box."""
    anchor_size: float = 8.0
    """Side of the square anchor, in strides of its level."""
    proposals: int = 1000
    """Boxes per image that stage one hands on."""
    rpn_samples: int = 256
    """Anchors per image to train stage one on, up to half of them objects."""
    roi_samples: int = 512
    """Proposals per image to train stage two on, up to a quarter of them objects."""
    score_threshold: float = 0.05
    """Least score of a detection."""
    nms_threshold: float = 0.5
    """A detection that overlaps a better one of its class by more is dropped."""
    detections: int = 100
    """The most per image; no fewer proposals are looked at."""


class Found(NamedTuple):
    """What the second stage finds, image by image, in each the best first.

    Attributes:
        boxes: (N, 4), in pixels of the input.
        scores: (N,).
        labels: (N,), from 0.
        images: (N,), which image each is of.
        mask_probs: (N, 28, 28), the probabilities over each box.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    images: Tensor
    mask_probs: Tensor


class SecondStage(Protocol):
    """Class, box and mask of each proposal."""

    detections_per_img: int

    def __call__(self, levels: Sequence[Tensor], proposals: Proposals, sizes: Tensor) -> Found:
        """Detect; `sizes` (B, 2) are height and width of each image. The last level is not used."""
        ...

    def loss(
        self, levels: Sequence[Tensor], proposals: Proposals, sizes: Tensor, targets: list[Target]
    ) -> dict[str, Tensor]:
        """The terms of the loss."""
        ...


class TwoStageOutputs(NamedTuple):
    """Raw outputs for D `detections` per image, the best first; what is not found has score 0.

    Attributes:
        boxes: (B, D, 4), x1 y1 x2 y2 in pixels of the input.
        scores: (B, D), above `score_threshold`.
        labels: (B, D), int64, from 0.
        mask_probs: (B, D, 28, 28), the probabilities over each box.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_probs: Tensor


class TwoStageDetector(Detector[TwoStageOutputs]):
    """Base of the detectors of two stages.

    Attributes:
        title: what people call it.
        backbone: the FocalNet with a pyramid on it.
        rpn: the first stage.
        num_classes: classes, without the background.
        proposals: boxes per image that the first stage hands on.
    """

    title: ClassVar[str]
    backbone_prefix: ClassVar[str] = "backbone.body."
    backbone: Pyramid
    rpn: ProposalNetwork
    num_classes: int
    proposals: int

    @property
    def second_stage(self) -> SecondStage:
        """Class, box and mask of each proposal."""
        raise NotImplementedError

    @property
    def detections(self) -> int:
        """The most detections of an image."""
        return self.second_stage.detections_per_img

    @detections.setter
    def detections(self, most: int) -> None:
        self.second_stage.detections_per_img = most
        self.rpn.hand_on(max(self.proposals, most))

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> TwoStageOutputs:
        """Detections in the pixels of the input, as tensors of one size for every image.

        Args:
            inputs: (B, 3, H, W), normalized.
            sizes: (B, 2), height and width of each image in a padded batch.
        """
        sizes = whole_sizes(inputs) if sizes is None else sizes.to(inputs.device)
        levels = self.backbone(self.backbone.whole_positions(inputs))
        proposals, _ = self.rpn(levels, sizes)
        boxes, scores, labels, images, mask_probs = self.second_stage(levels, proposals, sizes)
        return TwoStageOutputs(*(
            padded(values, images, count=inputs.shape[0], limit=self.detections)
            for values in (boxes, scores, labels, mask_probs)
        ))  # fmt: skip

    def loss(self, inputs: Tensor, targets: Sequence[Target], sizes: Tensor | None = None) -> dict[str, Tensor]:
        """`loss_objectness` and `loss_rpn_box_reg` of the first stage, the terms of the second, and their sum `loss`.

        Args:
            inputs: (B, 3, H, W), normalized.
            targets: per image `boxes`, `labels` and `masks`; an image may have no object. Where `outlined` is False,
                an object has a box and no mask.
            sizes: (B, 2), height and width of each image in a padded batch.

        Raises:
            UserError: targets without masks, or a label that is no class.
        """
        sizes = whole_sizes(inputs) if sizes is None else sizes.to(inputs.device)
        images = self.backbone.whole_positions(inputs)
        prepared = self._targets(targets, images)
        levels = self.backbone(images)
        proposals, losses = self.rpn(levels, sizes, prepared)
        losses |= self.second_stage.loss(levels, proposals, sizes, prepared)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def postprocess(
        self, outputs: TwoStageOutputs, sizes: Tensor, original_sizes: Tensor | None = None
    ) -> list[Detections]:
        """Detections in the pixels of the original images, with masks.

        With the whole padded input as `sizes` and no `original_sizes`, boxes and masks are in pixels of the input.

        Args:
            outputs: of `forward`.
            sizes: (B, 2), height and width of each image in a padded batch.
            original_sizes: (B, 2), height and width of each image before it was resized; `sizes` by default.
        """
        results = []
        for *one, (size, original) in zip(*outputs, pairs(sizes, original_sizes), strict=True):
            boxes, scores, labels, mask_probs = (values[one[1] > 0] for values in one)
            boxes = enlarged(boxes, size, original)
            results.append(Detections(boxes, scores, labels, paste_masks(mask_probs, boxes, original)))
        return results

    def _targets(self, targets: Sequence[Target], images: Tensor) -> list[Target]:
        """Targets with masks of the size of the padded images."""
        require_masks(targets, self.title)
        require_labels(targets, self.num_classes)
        result = []
        for target in targets:
            masks = target["masks"]
            masks = F.pad(masks, (0, images.shape[3] - masks.shape[2], 0, images.shape[2] - masks.shape[1]))
            result.append({**target, "boxes": precise(target["boxes"]), "masks": masks})
        return result
