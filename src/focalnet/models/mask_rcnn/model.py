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

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from focalnet.backbone import FocalNet, Recompute
from focalnet.models.detection.boxes import Anchors
from focalnet.models.detection.proposals import ProposalNetwork
from focalnet.models.detection.pyramid import Pyramid, xavier
from focalnet.models.detection.regions import RoIPool
from focalnet.models.detection.two_stage import TwoStageDetector, TwoStageOptions
from focalnet.models.mask_rcnn.heads import BoxAndMaskHeads
from focalnet.variants import FocalNetConfig


@dataclass(frozen=True, kw_only=True)
class MaskRCNNOptions(TwoStageOptions):
    """Options of a `MaskRCNN`."""

    proposals: int = 1000
    """Boxes per image that stage one hands on; while training, twice as many candidates per level."""


class MaskRCNN(TwoStageDetector):
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
    title = "Mask R-CNN"

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
            Anchors(self.backbone.strides, options.anchor_size), channels,
            candidates=(2 * options.proposals, options.proposals), proposals=(options.proposals, options.proposals),
            samples=options.rpn_samples,
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
    def second_stage(self) -> BoxAndMaskHeads:
        """The heads of class, box and mask."""
        return self.roi_heads

    def _init_weights(self) -> None:
        """As mmdet, where torchvision does otherwise; rows of the background that nothing reads are zero."""
        box_head, boxes = self.roi_heads.box_head, self.roi_heads.box_predictor
        masks = self.roi_heads.mask_predictor
        assert masks is not None
        xavier((*self.backbone.fpn.modules(), box_head.fc6, box_head.fc7))
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
