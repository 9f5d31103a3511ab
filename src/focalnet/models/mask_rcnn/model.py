"""Mask R-CNN with FPN on the focal backbone: torchvision's modules and names, the arithmetic of the published models.

Stage one scores three anchors per position of five levels and keeps the best as proposals; stage two pools each
proposal's features to 7x7 for its class and box, and each detection's to 14x14 for its mask:

    loss = BCE(objectness) + L1(anchor codes) + CE(class) + L1(box codes) + BCE(mask)

The published models come from mmdet. Where torchvision computes otherwise, `mask_rcnn_stages` and `mask_rcnn_parts`
follow mmdet:

    inference   anchors are not rounded and have fixed strides at any size; aligned, adaptive RoIAlign; both limits of
                the box code; proposals ranked by probability; boxes of any size; masks pasted on exact boxes; input
                padded with zeros to whole positions of the last stage
    training    L1 instead of smooth L1; 2000 candidates per level and 1000 proposals; an object's best boxes belong to
                it only from an overlap on (0.3, 0.5), later objects win; objects stand among the proposals but take no
                part in that; hard mask targets by aligned RoIAlign; no anchor over another image's padding; an
                image without objects counts one anchor more; initial weights

What remains different: the background is the first class, not the last, and the outputs for boxes and masks have
unused rows for it (4 (representation_size + 1) + fpn_channels + 1 parameters, 4357 in the published size; zero from
the start); other random numbers choose the boxes to train on; images are resized by the caller.

Legend: B images, H and W height and width of the input, N boxes.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from focalnet.backbone import FocalNet, Recompute
from focalnet.errors import UserError
from focalnet.models.base import DenseModel, Target, require_masks
from focalnet.models.mask_rcnn.parts import Anchors, RoIPool, paste_masks, precise
from focalnet.models.mask_rcnn.stages import BoxAndMaskHeads, ProposalNetwork
from focalnet.structures import Detections
from focalnet.variants import FocalNetConfig


class Pyramid(nn.Module):
    """The backbone with a feature pyramid on it: one level per stage and a coarser one, with equal channels."""

    def __init__(self, body: FocalNet, channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(body.channels), channels, extra_blocks=LastLevelMaxPool())
        self.strides = (*body.strides, 2 * body.strides[-1])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> per level (B, C, H / stride, W / stride)."""
        return self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.body(images))))


@dataclass(frozen=True, kw_only=True)
class MaskRCNNOptions:
    """Options of a `MaskRCNN`."""

    fpn_channels: int = 256
    """Channels of the pyramid, the RPN and the mask head."""
    representation_size: int = 1024
    """Width of the two linear layers before class and box."""
    anchor_size: float = 8.0
    """Side of the square anchor, in strides of its level."""
    proposals: int = 1000
    """Boxes per image that stage one hands on; while training, twice as many candidates per level."""
    rpn_samples: int = 256
    """Anchors per image to train stage one on, up to half of them objects."""
    roi_samples: int = 512
    """Proposals per image to train stage two on, up to a quarter of them objects."""
    score_threshold: float = 0.05
    """Least score of a detection."""
    nms_threshold: float = 0.5
    """A detection that overlaps a better one of its class by more is dropped."""
    detections: int = 100
    """The most per image."""


class MaskRCNN(DenseModel):
    """Mask R-CNN.

    Args:
        architecture: of the backbone. The published models have `focal_windows=9`.
        num_classes: classes, without the background.
        options: of the head.
        recompute: see `FocalNet`.
        frozen_stages: see `FocalNet`.

    Shape:
        images (B, 3, H, W), normalised -> see `forward`.
    """

    Options = MaskRCNNOptions
    backbone_prefix = "backbone.body."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 80,
        options: MaskRCNNOptions = MaskRCNNOptions(),
        recompute: Recompute = "none",
        frozen_stages: int = -1,
    ) -> None:
        super().__init__()
        stages, channels, width = range(len(architecture.depths)), options.fpn_channels, options.representation_size
        focalnet = FocalNet(architecture, out_indices=stages, frozen_stages=frozen_stages, recompute=recompute)
        self.num_classes = num_classes
        self.backbone = Pyramid(focalnet, channels)
        self.rpn = ProposalNetwork(
            Anchors(self.backbone.strides, options.anchor_size), RPNHead(channels, 3),
            fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=options.rpn_samples, positive_fraction=0.5,
            pre_nms_top_n={"training": 2 * options.proposals, "testing": options.proposals},
            post_nms_top_n={"training": options.proposals, "testing": options.proposals}, nms_thresh=0.7,
        )  # fmt: skip
        self.roi_heads = BoxAndMaskHeads(
            RoIPool(7, focalnet.strides), TwoMLPHead(channels * 7**2, width), FastRCNNPredictor(width, num_classes + 1),
            fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=options.roi_samples, positive_fraction=0.25,
            bbox_reg_weights=None, score_thresh=options.score_threshold, nms_thresh=options.nms_threshold,
            detections_per_img=options.detections,
            mask_roi_pool=RoIPool(14, focalnet.strides), mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(channels, channels, num_classes + 1),
        )  # fmt: skip
        self._init_weights()

    def _init_weights(self) -> None:
        """As mmdet, where torchvision does otherwise; rows of the background that nothing reads are zero."""
        box_head, boxes = self.roi_heads.box_head, self.roi_heads.box_predictor
        masks = self.roi_heads.mask_predictor
        assert masks is not None
        for module in (*self.backbone.fpn.modules(), box_head.fc6, box_head.fc7):
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.normal_(boxes.cls_score.weight, std=0.01)
        nn.init.normal_(boxes.bbox_pred.weight, std=0.001)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias") and not name.startswith(self.backbone_prefix):
                nn.init.zeros_(parameter)
        with torch.no_grad():
            boxes.bbox_pred.weight[:4] = 0
            masks.get_parameter("mask_fcn_logits.weight")[:1] = 0

    def class_parameters(self) -> Iterator[str]:
        """Names in the state dict whose shape depends on the number of classes."""
        for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits"):
            yield from (f"roi_heads.{layer}.weight", f"roi_heads.{layer}.bias")

    def forward(
        self,
        images: Tensor,
        targets: Sequence[Target] | None = None,
        sizes: Iterable[Sequence[int]] | Tensor | None = None,
    ) -> list[dict[str, Tensor]] | dict[str, Tensor]:
        """Detect in the pixels of the input; with targets give the losses.

        Args:
            images: (B, 3, H, W), normalised.
            targets: per image `boxes`, `labels` and `masks`; an image may have no object.
            sizes: height and width of each image in a padded batch, (B, 2).

        Returns:
            without targets a dict per image, best first: `boxes` (N, 4), `scores` (N,), `labels` (N,) from 0,
            `masks` (N, H, W) bool and `mask_probs` (N, 28, 28), the probabilities over each box. With targets
            `loss_objectness`, `loss_rpn_box_reg`, `loss_classifier`, `loss_box_reg`, `loss_mask` and their sum `loss`.

        Raises:
            UserError: targets without masks, or a label that is no class.
        """
        if targets is None:
            found = self._detect(images, sizes)
            for one in found:
                one["masks"] = paste_masks(one["mask_probs"], one["boxes"], (images.shape[2], images.shape[3]))
            return found
        pictures = self._padded(images, sizes)
        prepared = self._targets(targets, pictures.tensors)
        features = self.backbone(pictures.tensors)
        proposals, losses = self.rpn(pictures, features, prepared)
        losses |= self.roi_heads(features, proposals, pictures.image_sizes, prepared)[1]
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def detect(
        self,
        images: Tensor,
        sizes: Iterable[Sequence[int]] | Tensor | None = None,
        original_sizes: Iterable[Sequence[int]] | Tensor | None = None,
    ) -> list[Detections]:
        """Detect in the pixels of the original images.

        Args:
            images: (B, 3, H, W), normalised.
            sizes: height and width of each image in a padded batch, (B, 2); without it all of the input.
            original_sizes: height and width of each image before it was resized; without it `sizes`.
        """
        inputs = _pairs(sizes, images)
        originals = inputs if original_sizes is None else _pairs(original_sizes, images)
        results = []
        for one, (height, width), (h, w) in zip(self._detect(images, inputs), inputs, originals, strict=True):
            boxes = one["boxes"] * one["boxes"].new_tensor([w / width, h / height] * 2)
            masks = paste_masks(one["mask_probs"], boxes, (h, w))
            results.append(Detections(boxes, one["scores"], one["labels"], masks))
        return results

    def _detect(self, images: Tensor, sizes: Iterable[Sequence[int]] | Tensor | None) -> list[dict[str, Tensor]]:
        pictures = self._padded(images, sizes)
        features = self.backbone(pictures.tensors)
        proposals, _ = self.rpn(pictures, features)
        found, _ = self.roi_heads(features, proposals, pictures.image_sizes)
        return [{**one, "labels": one["labels"] - 1} for one in found]

    def _padded(self, images: Tensor, sizes: Iterable[Sequence[int]] | Tensor | None) -> ImageList:
        stride = self.focalnet.strides[-1]
        padded = F.pad(images, (0, -images.shape[3] % stride, 0, -images.shape[2] % stride))
        return ImageList(padded, _pairs(sizes, images))

    def _targets(self, targets: Sequence[Target], images: Tensor) -> list[Target]:
        """Targets with labels from 1 and masks of the size of the padded images."""
        require_masks(targets, "Mask R-CNN")
        result = []
        for index, target in enumerate(targets):
            labels, masks = target["labels"], target["masks"]
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise UserError(
                    f"target {index} has labels from {int(labels.min())} to {int(labels.max())}, but the model has "
                    f"{self.num_classes} classes, which count from 0; set num_classes."
                )
            masks = F.pad(masks, (0, images.shape[3] - masks.shape[2], 0, images.shape[2] - masks.shape[1]))
            result.append({"boxes": precise(target["boxes"]), "labels": labels.long() + 1, "masks": masks})
        return result


def _pairs(sizes: Iterable[Sequence[int]] | Tensor | None, images: Tensor) -> list[tuple[int, int]]:
    if sizes is None:
        return [(images.shape[2], images.shape[3])] * len(images)
    return [(int(height), int(width)) for height, width in sizes]
