"""The second stage of Mask R-CNN: torchvision's `RoIHeads`, computing as mmdet does.

It gives losses whenever it gets targets. Heads may run under autocast; boxes, scores and losses are float32.

Legend: B images, N boxes, G objects of one image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou

from focalnet.models.base import Target
from focalnet.models.detection.boxes import BoxCoder, MaxIoUMatcher, clip, precise, suppress
from focalnet.models.detection.proposals import Proposals
from focalnet.models.detection.regions import mask_targets


class Found(NamedTuple):
    """What the second stage finds, image by image, in each the best first.

    Attributes:
        boxes: (N, 4).
        scores: (N,).
        labels: (N,), from 1.
        images: (N,), which image each is of.
        mask_probs: (N, 28, 28).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    images: Tensor
    mask_probs: Tensor


class BoxAndMaskHeads(RoIHeads):
    """The second stage: class, box and mask of each proposal.

    Args: see `RoIHeads`.
    """

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.box_coder = BoxCoder(self.box_coder.weights)
        self.proposal_matcher = MaxIoUMatcher(0.5, 0.5, best=0.5)

    def forward(self, levels: Sequence[Tensor], proposals: Proposals, sizes: Tensor) -> Found:
        """Detect.

        Args:
            levels: of the pyramid; the last one is not used.
            proposals: of the first stage.
            sizes: (B, 2), height and width of each image.

        Returns:
            at most `detections_per_img` per image, above the threshold, without duplicates of their class.
        """
        logits, deltas = self._boxes(levels, *proposals)
        scores = logits.softmax(-1)
        row, label = torch.where(scores[:, 1:] > self.score_thresh)
        label = label + 1
        deltas = deltas.unflatten(1, (-1, 4))[row, label]
        images = proposals.images[row]
        boxes = clip(self.box_coder.decode_single(deltas, proposals.boxes[row]), sizes[images])
        score = scores[row, label]
        kept = suppress(
            boxes, score, label, images,
            count=levels[0].shape[0], threshold=self.nms_thresh, limit=self.detections_per_img,
        )  # fmt: skip
        boxes, score, label, images = boxes[kept], score[kept], label[kept], images[kept]
        return Found(boxes, score, label, images, self._masks(levels, boxes, images, label).sigmoid())

    def _boxes(self, levels: Sequence[Tensor], boxes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(levels[:-1], boxes, images)))
        return precise(logits), precise(deltas)

    def _masks(self, levels: Sequence[Tensor], boxes: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Logits of the masks of these classes, (N, 28, 28)."""
        assert self.mask_roi_pool is not None
        assert self.mask_head is not None
        assert self.mask_predictor is not None
        logits = precise(self.mask_predictor(self.mask_head(self.mask_roi_pool(levels[:-1], boxes, images))))
        return logits[torch.arange(labels.shape[0], device=labels.device), labels]

    def loss(self, levels: Sequence[Tensor], proposals: Proposals, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy over the sampled boxes, L1 over their number, cross entropy of the pixels of the masks.

        Args:
            levels: of the pyramid; the last one is not used.
            proposals: of the first stage.
            targets: `boxes`, `labels` from 1, `masks` at the size of the padded input; `outlined` where some objects
                have a box and no mask: these are left out of the masks.

        Returns:
            `loss_classifier`, `loss_box_reg` and `loss_mask`.
        """
        per_image = [proposals.boxes[proposals.images == index] for index in range(len(targets))]
        sampled, matched, labels, deltas = self.select_training_samples(per_image, targets)
        boxes, label, delta = torch.cat(sampled), torch.cat(labels), torch.cat(deltas)
        numbers = torch.tensor([len(one) for one in sampled], device=label.device)
        images = torch.arange(len(targets), device=label.device).repeat_interleave(numbers)
        logits, predicted = self._boxes(levels, boxes, images)
        positive = torch.where(label > 0)[0]
        predicted = predicted.unflatten(1, (-1, 4))[positive, label[positive]]
        losses = {
            "loss_classifier": F.cross_entropy(logits, label),
            "loss_box_reg": F.l1_loss(predicted, delta[positive], reduction="sum") / len(label),
        }
        learned = [
            (one > 0) & target["outlined"][owner] if len(target.get("outlined", ())) else one > 0
            for target, owner, one in zip(targets, matched, labels, strict=True)
        ]
        outlined = torch.where(torch.cat(learned))[0]
        masks = self._masks(levels, boxes[outlined], images[outlined], label[outlined])
        truth = torch.cat([
            mask_targets(target["masks"], box[one], owner[one], masks.shape[-1])
            for target, box, owner, one in zip(targets, sampled, matched, learned, strict=True)
        ])  # fmt: skip
        pixels = F.binary_cross_entropy_with_logits(masks, truth, reduction="sum")
        return {**losses, "loss_mask": pixels / max(truth.numel(), 1)}

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The object of each proposal and its class, 0 for background.

        The last G proposals of an image are its objects themselves: each belongs to itself and takes no part in the
        search for an object's best proposal.
        """
        matched, labels = [], []
        for proposal, truth, label in zip(proposals, gt_boxes, gt_labels, strict=True):
            found = proposal[: len(proposal) - len(truth)]
            owner = torch.full((len(found),), -1, dtype=torch.int64, device=proposal.device)
            if len(truth) and len(found):
                owner = self.proposal_matcher(box_iou(truth, found))
            owner = torch.cat([owner, torch.arange(len(truth), device=proposal.device)])
            matched.append(owner.clamp(min=0))
            padded = torch.cat([label, label.new_zeros(1)])  # -1, background, takes the last one
            labels.append(padded[owner])
        return matched, labels
