"""The second stage of Mask R-CNN: torchvision's `RoIHeads`, computing as mmdet does.

It gives losses whenever it gets targets. Heads may run under autocast; boxes, scores and losses are float32.

Legend: B images, N boxes, G objects of one image.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads

from focalnet.models.base import Target
from focalnet.models.detection.boxes import BoxCoder, MaxIoUMatcher, clip, precise, suppress
from focalnet.models.detection.proposals import Proposals
from focalnet.models.detection.sampling import labels_of, mask_loss, sample, with_masks
from focalnet.models.detection.two_stage import Found


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
        return Found(boxes, score, label - 1, images, self._masks(levels, boxes, images, label).sigmoid())

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

    def loss(
        self, levels: Sequence[Tensor], proposals: Proposals, sizes: Tensor, targets: list[Target]
    ) -> dict[str, Tensor]:
        """Cross entropy over the sampled boxes, L1 over their number, cross entropy of the pixels of the masks.

        Args:
            levels: of the pyramid; the last one is not used.
            proposals: of the first stage.
            sizes: not used.
            targets: `boxes`, `labels`, `masks` at the size of the padded input; `outlined` where some objects have a
                box and no mask: these are left out of the masks.

        Returns:
            `loss_classifier`, `loss_box_reg` and `loss_mask`.
        """
        sampled = sample(proposals, targets, self.proposal_matcher, self.fg_bg_sampler)
        boxes, images, owners, _ = sampled
        label = labels_of(sampled, targets, -1) + 1
        logits, predicted = self._boxes(levels, boxes, images)
        positive = torch.where(label > 0)[0]
        predicted = predicted.unflatten(1, (-1, 4))[positive, label[positive]]
        objects = torch.cat([target["boxes"] for target in targets]).to(boxes)[owners[positive]]
        deltas = self.box_coder.encode_single(objects, boxes[positive])
        outlined = with_masks(sampled, targets)
        masks = self._masks(levels, boxes[outlined], images[outlined], label[outlined])
        return {
            "loss_classifier": F.cross_entropy(logits, label),
            "loss_box_reg": F.l1_loss(predicted, deltas, reduction="sum") / len(label),
            "loss_mask": mask_loss(masks, outlined, sampled, targets),
        }
