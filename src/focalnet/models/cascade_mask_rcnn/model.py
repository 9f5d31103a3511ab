"""Cascade Mask R-CNN with FPN (Cai and Vasconcelos, "Cascade R-CNN: High Quality Object Detection and Instance
Segmentation", TPAMI 2019) on the focal backbone, as mmdetection 2.11 computes it, which the published numbers
come from.

The first stage proposes boxes as Mask R-CNN's does; three stages of heads tell class, box and mask of each, and all but
the last hand on refined boxes:

    loss = BCE(objectness) + smooth L1(anchor codes) + Σ_s 2⁻ˢ (CE(class) + 10 · GIoU(box) + BCE(mask))

What the first stage does otherwise than Mask R-CNN's: it trains on anchors inside the image only, with a smooth loss
for boxes; it proposes twice as many while training; boxes without area are not left out.

The layers have the official names, the background is the last class.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from focalnet.backbone import FocalNet, Recompute
from focalnet.models.cascade_mask_rcnn.heads import CascadeHeads
from focalnet.models.detection.boxes import Anchors
from focalnet.models.detection.proposals import ProposalNetwork
from focalnet.models.detection.pyramid import Pyramid, xavier
from focalnet.models.detection.two_stage import TwoStageDetector, TwoStageOptions
from focalnet.variants import FocalNetConfig

BETA = 1 / 9
"""Below this difference the loss of anchors' box codes is quadratic."""


@dataclass(frozen=True, kw_only=True)
class CascadeMaskRCNNOptions(TwoStageOptions):
    """Options of a `CascadeMaskRCNN`."""

    head_depth: int = 4
    """Convolutions of each head of boxes and of masks."""
    proposals: int = 1000
    """Boxes per image that stage one hands on, and candidates per level; twice as many while training."""


class CascadeMaskRCNN(TwoStageDetector):
    """Cascade Mask R-CNN.

    Args:
        architecture: of the backbone. The published models have `focal_windows=(11, 9, 9, 7)`.
        num_classes: classes, without the background.
        options: of the head.
        recompute: see `FocalNet`.
        frozen_stages: see `FocalNet`.
    """

    Options = CascadeMaskRCNNOptions
    title = "Cascade Mask R-CNN"

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 80,
        options: CascadeMaskRCNNOptions = CascadeMaskRCNNOptions(),
        recompute: Recompute = "none",
        frozen_stages: int = -1,
    ) -> None:
        super().__init__()
        stages, numbers = range(len(architecture.depths)), (2 * options.proposals, options.proposals)
        body = FocalNet(architecture, out_indices=stages, frozen_stages=frozen_stages, recompute=recompute)
        self.num_classes, self.proposals = num_classes, options.proposals
        self.backbone = Pyramid(body, options.fpn_channels)
        self.rpn = ProposalNetwork(
            Anchors(self.backbone.strides, options.anchor_size), options.fpn_channels, candidates=numbers,
            proposals=numbers, samples=options.rpn_samples, beta=BETA, only_inside=True, keep_empty=True,
        )  # fmt: skip
        self.roi_head = CascadeHeads(options, options.head_depth, num_classes, body.strides)
        self.detections = options.detections
        xavier(self.backbone.fpn.modules())

    @property
    def second_stage(self) -> CascadeHeads:
        """The heads of class, box and mask."""
        return self.roi_head

    def class_parameters(self) -> Iterator[str]:
        """Names in the state dict whose shape depends on the number of classes."""
        for stage in range(len(self.roi_head.bbox_head)):
            for layer in (f"bbox_head.{stage}.fc_cls", f"bbox_head.{stage}.fc_reg", f"mask_head.{stage}.conv_logits"):
                yield from (f"roi_head.{layer}.weight", f"roi_head.{layer}.bias")
