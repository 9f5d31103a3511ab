"""Mask R-CNN with FPN on the focal backbone: torchvision's modules and names, the arithmetic of the published models.

Stage one scores three anchors per position of five levels and keeps the best as proposals; stage two pools each
proposal's features to 7x7 for its class and box, and each detection's to 14x14 for its mask:

    loss = BCE(objectness) + L1(anchor codes) + CE(class) + L1(box codes) + BCE(mask)

The published models come from mmdet. Where torchvision computes otherwise, `heads` and `models.detection` follow
mmdet:

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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from focalnet.backbone import FocalNet, Recompute
from focalnet.models.base import Detector, Target, enlarged, pairs, require_labels, require_masks, whole_sizes
from focalnet.models.detection.boxes import Anchors, padded, precise
from focalnet.models.detection.proposals import ProposalNetwork
from focalnet.models.detection.pyramid import Pyramid
from focalnet.models.detection.regions import RoIPool, paste_masks
from focalnet.models.mask_rcnn.heads import BoxAndMaskHeads
from focalnet.structures import Detections
from focalnet.variants import FocalNetConfig


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
    """The most per image; no fewer proposals are looked at."""


class MaskRCNNOutputs(NamedTuple):
    """Raw outputs of a `MaskRCNN`, for D `detections` per image, the best first; what is not found has score 0.

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


class MaskRCNN(Detector[MaskRCNNOutputs]):
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
        self.num_classes, self.proposals = num_classes, options.proposals
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
        self.detections = options.detections
        self._init_weights()

    @property
    def detections(self) -> int:
        """The most detections of an image."""
        return self.roi_heads.detections_per_img

    @detections.setter
    def detections(self, most: int) -> None:
        self.roi_heads.detections_per_img = most
        for kept in (self.rpn._pre_nms_top_n, self.rpn._post_nms_top_n):
            kept["testing"] = max(self.proposals, most)

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

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> MaskRCNNOutputs:
        """Detections in the pixels of the input, as tensors of one size for every image.

        Args:
            inputs: (B, 3, H, W), normalized.
            sizes: (B, 2), height and width of each image in a padded batch.
        """
        sizes = whole_sizes(inputs) if sizes is None else sizes.to(inputs.device)
        levels = self.backbone(self.backbone.whole_positions(inputs))
        proposals, _ = self.rpn(levels, sizes)
        boxes, scores, labels, images, mask_probs = self.roi_heads(levels, proposals, sizes)
        return MaskRCNNOutputs(*(
            padded(values, images, count=inputs.shape[0], limit=self.roi_heads.detections_per_img)
            for values in (boxes, scores, labels - 1, mask_probs)
        ))  # fmt: skip

    def loss(self, inputs: Tensor, targets: Sequence[Target], sizes: Tensor | None = None) -> dict[str, Tensor]:
        """`loss_objectness`, `loss_rpn_box_reg`, `loss_classifier`, `loss_box_reg`, `loss_mask` and their sum `loss`.

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
        losses |= self.roi_heads.loss(levels, proposals, prepared)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def postprocess(
        self, outputs: MaskRCNNOutputs, sizes: Tensor, original_sizes: Tensor | None = None
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
        """Targets with labels from 1 and masks of the size of the padded images."""
        require_masks(targets, "Mask R-CNN")
        require_labels(targets, self.num_classes)
        result = []
        for target in targets:
            labels, masks = target["labels"], target["masks"]
            masks = F.pad(masks, (0, images.shape[3] - masks.shape[2], 0, images.shape[2] - masks.shape[1]))
            whole = {name: target[name] for name in ("outlined",) if name in target}
            result.append({"boxes": precise(target["boxes"]), "labels": labels.long() + 1, "masks": masks, **whole})
        return result
