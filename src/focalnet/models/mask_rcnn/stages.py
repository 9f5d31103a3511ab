"""The two stages of Mask R-CNN: torchvision's `RegionProposalNetwork` and `RoIHeads`, computing as mmdet does.

Both give losses whenever they get targets; the training mode decides how many proposals they keep. Heads may run under
autocast, boxes, scores and losses are float32.

Legend: B images, A anchors of one image, N boxes, G objects of one image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from focalnet.models.base import Target
from focalnet.models.mask_rcnn.parts import Anchors, Coder, MaxIoUMatcher, mask_targets, precise


class ProposalNetwork(RegionProposalNetwork):
    """The RPN: boxes that may hold an object, and the losses of saying so.

    Args: see `RegionProposalNetwork`.
    """

    anchor_generator: Anchors

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.box_coder = Coder((1.0, 1.0, 1.0, 1.0))
        self.proposal_matcher = MaxIoUMatcher(0.7, 0.3, best=0.3)

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[Target] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Propose; with targets also learn.

        Args:
            images: the padded batch and the size of each image in it.
            features: the levels.
            targets: `boxes` per image.

        Returns:
            proposals per image, (N, 4), best first; `loss_objectness` and `loss_rpn_box_reg`.
        """
        levels = list(features.values())
        per_level = [3 * x.shape[-2] * x.shape[-1] for x in levels]
        logits, codes = concat_box_prediction_layers(*self.head(levels))
        logits, codes = precise(logits).view(len(levels[0]), -1), precise(codes)
        anchors = self.anchor_generator(images, levels)
        proposals = self.propose(logits.detach(), codes.detach(), anchors[0], per_level, images.image_sizes)
        if targets is None:
            return proposals, {}
        chosen = [self._over_picture(anchors[0], size) for size in images.image_sizes]
        anchors = [anchors[0][one] for one in chosen]
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        logits = torch.cat([logit[one] for logit, one in zip(logits, chosen, strict=True)])
        codes = codes.view(len(chosen), -1, 4)
        codes = torch.cat([code[one] for code, one in zip(codes, chosen, strict=True)])
        objectness, boxes = self.compute_loss(logits, codes, labels, [torch.cat(matched), torch.cat(anchors)])
        return proposals, {"loss_objectness": objectness, "loss_rpn_box_reg": boxes}

    def propose(
        self, logits: Tensor, codes: Tensor, anchors: Tensor, per_level: list[int], sizes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """The best anchors of each level by score, decoded, clipped, without those that others cover.

        Args:
            logits: (B, A).
            codes: (B A, 4).
            anchors: (A, 4).
            per_level: how many of A are of each level.
            sizes: height and width of each image.
        """
        scores, levels = logits.sigmoid(), torch.arange(len(per_level), device=logits.device)
        best = self._get_top_n_idx(scores, per_level)
        level = levels.repeat_interleave(torch.tensor(per_level, device=levels.device))[best]
        codes = codes.view(len(scores), -1, 4)
        proposals = []
        for index, (chosen, size) in enumerate(zip(best, sizes, strict=True)):
            boxes = clip_boxes_to_image(self.box_coder.decode_single(codes[index, chosen], anchors[chosen]), size)
            real = torch.where((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[0]
            boxes, score = boxes[real], scores[index, chosen[real]]
            kept = batched_nms(boxes, score, level[index, real], self.nms_thresh)
            proposals.append(boxes[kept[: self.post_nms_top_n()]])
        return proposals

    def _over_picture(self, anchors: Tensor, size: tuple[int, int]) -> Tensor:
        """Indices of the anchors to train: over the image, padded by itself to whole positions of the last stage."""
        pad = self.anchor_generator.strides[-2]
        bottom, right = (-(-side // pad) * pad for side in size)
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        return torch.where((centres[:, 0] < right - 0.5) & (centres[:, 1] < bottom - 0.5))[0]

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy and L1, both over the number of sampled anchors; an image without any of a kind counts one.

        Args:
            objectness: (A,), of all images.
            pred_bbox_deltas: (A, 4).
            labels: per image: 1 object, 0 background, -1 neither.
            regression_targets: the object of every anchor and the anchors, both (A, 4).
        """
        chosen = self.fg_bg_sampler(labels)
        count = torch.stack([one.sum() for kind in chosen for one in kind]).clamp(min=1).sum()
        positives, negatives = (torch.cat(kind) > 0 for kind in chosen)
        sampled, positive = torch.where(positives | negatives)[0], torch.where(positives)[0]
        truth, anchors = (boxes[positive] for boxes in regression_targets)
        codes = self.box_coder.encode_single(truth, anchors)
        box_loss = F.l1_loss(pred_bbox_deltas[positive], codes, reduction="sum")
        score_loss = F.binary_cross_entropy_with_logits(
            objectness[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        return score_loss / count, box_loss / count


class BoxAndMaskHeads(RoIHeads):
    """The second stage: class, box and mask of each proposal.

    Args: see `RoIHeads`.
    """

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.box_coder = Coder(self.box_coder.weights)
        self.proposal_matcher = MaxIoUMatcher(0.5, 0.5, best=0.5)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detect, or with targets learn.

        Args:
            features: the levels; the last one is not used.
            proposals: per image (N, 4).
            image_shapes: height and width of each image.
            targets: `boxes`, `labels` from 1, `masks` at the size of the padded input.

        Returns:
            without targets per image `boxes`, `scores`, `labels` from 1 and `mask_probs` (N, 28, 28), best first;
            with targets `loss_classifier`, `loss_box_reg` and `loss_mask`.
        """
        levels = list(features.values())[:-1]
        if targets is not None:
            return [], self._losses(levels, proposals, targets)
        found = self.postprocess_detections(*self._boxes(levels, proposals), proposals, image_shapes)
        probs = self._masks(levels, found[0], torch.cat(found[2])).sigmoid().split([len(boxes) for boxes in found[0]])
        names = ("boxes", "scores", "labels", "mask_probs")
        return [dict(zip(names, one, strict=True)) for one in zip(*found, probs, strict=True)], {}

    def _boxes(self, levels: list[Tensor], proposals: list[Tensor]) -> tuple[Tensor, Tensor]:
        logits, codes = self.box_predictor(self.box_head(self.box_roi_pool(levels, proposals)))
        return precise(logits), precise(codes)

    def _masks(self, levels: list[Tensor], boxes: list[Tensor], labels: Tensor) -> Tensor:
        """Logits of the masks of these classes, (N, 28, 28)."""
        assert self.mask_roi_pool is not None
        assert self.mask_head is not None
        assert self.mask_predictor is not None
        logits = precise(self.mask_predictor(self.mask_head(self.mask_roi_pool(levels, boxes))))
        return logits[torch.arange(len(labels), device=labels.device), labels]

    def _losses(self, levels: list[Tensor], proposals: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy over the sampled boxes, L1 over their number, cross entropy of the pixels of the masks."""
        proposals, matched, labels, codes = self.select_training_samples(proposals, targets)
        logits, predicted = self._boxes(levels, proposals)
        label, code = torch.cat(labels), torch.cat(codes)
        positive = torch.where(label > 0)[0]
        predicted = predicted.unflatten(1, (-1, 4))[positive, label[positive]]
        losses = {
            "loss_classifier": F.cross_entropy(logits, label),
            "loss_box_reg": F.l1_loss(predicted, code[positive], reduction="sum") / len(label),
        }
        chosen = [one > 0 for one in labels]
        boxes = [box[one] for box, one in zip(proposals, chosen, strict=True)]
        owners = [owner[one] for owner, one in zip(matched, chosen, strict=True)]
        masks = self._masks(levels, boxes, label[positive])
        truth = torch.cat([
            mask_targets(target["masks"], box, owner, masks.shape[-1])
            for target, box, owner in zip(targets, boxes, owners, strict=True)
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

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Boxes, scores and labels per image: above the threshold, without doubles of their class, best first."""
        counts = [len(proposal) for proposal in proposals]
        scores = class_logits.softmax(-1).split(counts)
        codes = box_regression.split(counts)
        found = ([], [], [])
        for proposal, score, code, size in zip(proposals, scores, codes, image_shapes, strict=True):
            row, label = torch.where(score[:, 1:] > self.score_thresh)
            label = label + 1
            code = code.unflatten(1, (-1, 4))[row, label]
            boxes = clip_boxes_to_image(self.box_coder.decode_single(code, proposal[row]), size)
            score = score[row, label]
            kept = batched_nms(boxes, score, label, self.nms_thresh)[: self.detections_per_img]
            for store, values in zip(found, (boxes, score, label), strict=True):
                store.append(values[kept])
        return found
