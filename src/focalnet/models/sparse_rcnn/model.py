"""Sparse R-CNN (Sun et al., "Sparse R-CNN: End-to-End Object Detection with Learnable Proposals", CVPR 2021) on the
focal backbone, as mmdetection 2.11 computes it.

Q proposals, each a box and a feature, are learned and the same for every image. Stage by stage a proposal looks at what
is pooled from its box, and gives classes, a better box and the next feature. There is no suppression of doubles: the
one-to-one matching of the loss teaches proposals not to repeat each other.

    loss = Σ stages  2 · focal(classes) + 5 · L1(corners, shares of the image) + 2 · (1 - GIoU)

each summed over the batch and divided by the number of matched pairs. Gradients pass from stage to stage through the
features, not through the boxes; the learned boxes have theirs from the first stage's boxes, which start there.

Learned boxes are shares of the image without its padding. No box is clipped, not even a detection.

What remains different: a batch without objects, whose number of pairs is 0, divides by 1 here.

Legend: B images, Q proposals, C channels, K classes, S stages, D detections of an image.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from focalnet.backbone import FocalNet, Recompute
from focalnet.errors import UserError
from focalnet.models.base import Detector, Target, enlarged, pairs, require_labels, whole_sizes
from focalnet.models.detection.boxes import BoxCoder, BoxOutputs, precise
from focalnet.models.detection.losses import average_count
from focalnet.models.detection.matching import CORNERS, Truth, corners, match, set_losses
from focalnet.models.detection.pyramid import Pyramid, xavier
from focalnet.models.detection.regions import RoIPool
from focalnet.models.sparse_rcnn.heads import POOLED, Proposals, Stage
from focalnet.structures import Detections
from focalnet.variants import FocalNetConfig

WEIGHTS = {"loss_cls": 2.0, "loss_bbox": 5.0, "loss_iou": 2.0}
"""Of the terms of each stage."""
SAMPLES = 2
"""Points per bin and side of what is pooled."""


@dataclass(frozen=True, kw_only=True)
class SparseRCNNOptions:
    """Options of a `SparseRCNN`."""

    num_queries: int = 300
    """Q, proposals of an image."""
    stages: int = 6
    """S."""
    channels: int = 256
    """C of the pyramid and the features, a multiple of `heads`."""
    heads: int = 8
    """Heads of the attention among proposals."""
    ffn_dim: int = 2048
    """Hidden width of a stage's MLP."""
    dynamic_dim: int = 64
    """Inner width of a stage's dynamic convolution."""
    class_depth: int = 1
    """Layers of a stage before its classes."""
    box_depth: int = 3
    """Layers of a stage before its box."""
    start: Literal["image", "grid"] = "image"
    """The learned boxes before training: each the whole image, as published, or one of a grid over it (section 4.2 of
    Sun et al. compares them), whose proposals need not learn first to look at different places."""
    detections: int = 300
    """The most per image, over all proposals and classes: a proposal counts once per class."""


class RoIHead(nn.Module):
    """The stages, with the official names; none shares a weight with another."""

    def __init__(self, options: SparseRCNNOptions, num_classes: int) -> None:
        super().__init__()
        self.bbox_head = nn.ModuleList(
            Stage(
                options.channels, num_classes, heads=options.heads, ffn_dim=options.ffn_dim,
                dynamic_dim=options.dynamic_dim, class_depth=options.class_depth, box_depth=options.box_depth,
            )
            for _ in range(options.stages)
        )  # fmt: skip


class SparseRCNN(Detector[BoxOutputs]):
    """Sparse R-CNN.

    Args:
        architecture: of the backbone. The published models have `focal_windows=(11, 9, 9, 7)`.
        num_classes: K.
        options: of the head.
        recompute: see `FocalNet`.
        frozen_stages: see `FocalNet`.

    Raises:
        UserError: `channels` is no multiple of `heads`, or there is no stage.
    """

    Options = SparseRCNNOptions
    backbone_prefix = "backbone.body."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 80,
        options: SparseRCNNOptions = SparseRCNNOptions(),
        recompute: Recompute = "none",
        frozen_stages: int = -1,
    ) -> None:
        super().__init__()
        if options.channels % options.heads or options.stages < 1:
            raise UserError(
                f"channels={options.channels}, heads={options.heads}, stages={options.stages}; make the channels a "
                "multiple of the heads, and the stages 1 or more."
            )
        stages = range(len(architecture.depths))
        body = FocalNet(architecture, out_indices=stages, frozen_stages=frozen_stages, recompute=recompute)
        self.options, self.num_classes = options, num_classes
        self.backbone = Pyramid(body, options.channels, coarser=0)
        self.rpn_head = Proposals(options.num_queries, options.channels, options.start)
        self.roi_head = RoIHead(options, num_classes)
        self.pool = RoIPool(POOLED, self.backbone.strides, samples=SAMPLES)
        self.coder = BoxCoder((2.0, 2.0, 1.0, 1.0))
        xavier(self.backbone.fpn.modules())

    @property
    def detections(self) -> int:
        """The most detections of an image: no more than there are proposals."""
        return min(self.options.detections, self.options.num_queries)

    @detections.setter
    def detections(self, most: int) -> None:
        self.options = dataclasses.replace(self.options, detections=most)

    def class_parameters(self) -> Iterator[str]:
        for stage in range(self.options.stages):
            yield from (f"roi_head.bbox_head.{stage}.fc_cls.{kind}" for kind in ("weight", "bias"))

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> BoxOutputs:
        """Detections of the last stage in the pixels of the input.

        Args:
            inputs: (B, 3, H, W), normalized.
            sizes: (B, 2), height and width of each image in a padded batch.
        """
        sizes = whole_sizes(inputs) if sizes is None else sizes.to(inputs.device)
        logits, boxes = self.look(inputs, sizes)[-1]
        scores = logits.sigmoid().flatten(1)
        scores, chosen = scores.topk(min(self.options.detections, scores.shape[1]), dim=1)
        query = (chosen // self.num_classes)[..., None].expand(-1, -1, 4)
        return BoxOutputs(boxes.gather(1, query), scores, chosen % self.num_classes)

    def look(self, inputs: Tensor, sizes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What each stage says: logits (B, Q, K) and boxes (B, Q, 4) in pixels of the input, float32.

        Args:
            inputs: (B, 3, H, W), normalized.
            sizes: (B, 2), height and width of each image.
        """
        levels = self.backbone(self.backbone.whole_positions(inputs))
        batch, queries = inputs.shape[0], self.options.num_queries
        images = torch.arange(batch, device=inputs.device)[:, None].expand(-1, queries).flatten()
        start = precise(corners(self.rpn_head.init_proposal_bboxes.weight))
        boxes = start * extents(sizes, start)
        features = self.rpn_head.init_proposal_features.weight.expand(batch, -1, -1)
        said = []
        for stage in self.roi_head.bbox_head:
            pooled = self.pool(levels, boxes.flatten(0, 1).detach(), images)
            logits, deltas, features = stage(features, pooled)
            boxes = self.coder.decode_single(deltas.flatten(0, 1), boxes.flatten(0, 1)).unflatten(0, (batch, queries))
            said.append((precise(logits), boxes))
            boxes = boxes.detach()
        return said

    def loss(self, inputs: Tensor, targets: Sequence[Target], sizes: Tensor | None = None) -> dict[str, Tensor]:
        """`stage{s}_loss_cls`, `stage{s}_loss_bbox` and `stage{s}_loss_iou` of each stage, with their weights, and
        their sum `loss`.

        Args:
            inputs: (B, 3, H, W), normalized.
            targets: per image `boxes` and `labels`; an image may have no object.
            sizes: (B, 2), height and width of each image in a padded batch.

        Raises:
            UserError: a label that is no class.
        """
        require_labels(targets, self.num_classes)
        sizes = whole_sizes(inputs) if sizes is None else sizes.to(inputs.device)
        said = self.look(inputs, sizes)
        logits = torch.stack([one for one, _ in said])
        boxes = torch.stack([one for _, one in said])
        boxes = boxes / extents(sizes, boxes)
        truth = Truth.of([x["boxes"] for x in targets], [x["labels"] for x in targets], sizes, CORNERS)
        found = match(logits, boxes, truth, CORNERS)
        count = torch.tensor(len(found.sets) / len(said), device=inputs.device)
        terms = set_losses(logits, boxes, found, truth, CORNERS) / average_count(count).clamp(min=1)
        terms = terms * terms.new_tensor(list(WEIGHTS.values()))
        names = (f"stage{stage}_{name}" for stage in range(len(said)) for name in WEIGHTS)
        return {"loss": terms.sum(), **dict(zip(names, terms.flatten().unbind(), strict=True))}

    @torch.no_grad()
    def postprocess(self, outputs: BoxOutputs, sizes: Tensor, original_sizes: Tensor | None = None) -> list[Detections]:
        """Detections in the pixels of the original images.

        Args:
            outputs: of `forward`.
            sizes: (B, 2), height and width of each image in a padded batch.
            original_sizes: (B, 2), height and width of each image before it was resized; `sizes` by default.
        """
        return [
            Detections(enlarged(boxes, size, original), scores, labels)
            for boxes, scores, labels, (size, original) in zip(*outputs, pairs(sizes, original_sizes), strict=True)
        ]


def extents(sizes: Tensor, like: Tensor) -> Tensor:
    """(B, 1, 4): width, height, width, height of images of `sizes` (B, 2), of the type of `like`."""
    return sizes.flip(1).repeat(1, 2)[:, None].to(like)
