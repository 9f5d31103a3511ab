"""The first stage: torchvision's `RegionProposalNetwork`, computing as mmdet does.

It gives losses whenever it gets targets; the training mode decides how many proposals it keeps. The head may run under
autocast; boxes, scores and losses are float32.

Legend: B images, A anchors of one image, N boxes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from focalnet.models.base import Target
from focalnet.models.detection.boxes import (
    Anchors,
    BoxCoder,
    MaxIoUMatcher,
    clip,
    inside_image,
    over_image,
    precise,
    suppress,
)


class Proposals(NamedTuple):
    """Boxes that may hold an object, image by image, in each the best first.

    Attributes:
        boxes: (N, 4), in pixels of the input.
        images: (N,), which image each is of.
    """

    boxes: Tensor
    images: Tensor


class ProposalNetwork(RegionProposalNetwork):
    """The RPN: boxes that may hold an object, and the losses of saying so.

    Args:
        anchors: of the levels.
        channels: of each level.
        candidates: anchors per level that are looked at, while training and else.
        proposals: boxes per image that it hands on, while training and else.
        samples: anchors per image to train on, up to half of them objects.
        beta: below this difference the loss of the box codes is quadratic; 0 for L1.
        only_inside: train on anchors wholly inside the image, instead of all over it.
        keep_empty: hand on boxes without area too.
    """

    anchor_generator: Anchors

    def __init__(
        self, anchors: Anchors, channels: int, *, candidates: tuple[int, int], proposals: tuple[int, int], samples: int,
        beta: float = 0.0, only_inside: bool = False, keep_empty: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            anchors, RPNHead(channels, len(anchors.ratios)),  # type: ignore[arg-type]
            fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=samples, positive_fraction=0.5,
            pre_nms_top_n=dict(zip(("training", "testing"), candidates, strict=True)),
            post_nms_top_n=dict(zip(("training", "testing"), proposals, strict=True)), nms_thresh=0.7,
        )  # fmt: skip
        self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.proposal_matcher = MaxIoUMatcher(0.7, 0.3, best=0.3)
        self.beta, self.only_inside, self.keep_empty = beta, only_inside, keep_empty

    def hand_on(self, count: int) -> None:
        """So many proposals per image, and candidates per level, except while training."""
        self._pre_nms_top_n["testing"] = self._post_nms_top_n["testing"] = count

    def forward(
        self, levels: Sequence[Tensor], sizes: Tensor, targets: list[Target] | None = None
    ) -> tuple[Proposals, dict[str, Tensor]]:
        """Propose; with targets also learn.

        Args:
            levels: of the pyramid.
            sizes: (B, 2), height and width of each image.
            targets: `boxes` per image.

        Returns:
            proposals; `loss_objectness` and `loss_rpn_box_reg`.
        """
        logits, deltas = concat_box_prediction_layers(*self.head(list(levels)))
        logits, deltas = precise(logits).view(levels[0].shape[0], -1), precise(deltas)
        anchors = self.anchor_generator(levels)
        proposals = self.propose(logits.detach(), deltas.detach(), anchors, sizes)
        if targets is None:
            return proposals, {}
        joined = torch.cat(anchors)
        chosen = [torch.where(self._trained(joined, height, width))[0] for height, width in sizes.tolist()]
        anchors = [joined[one] for one in chosen]
        targets = [
            target if len(one) else {"boxes": target["boxes"][:0]}
            for target, one in zip(targets, chosen, strict=True)
        ]  # fmt: skip
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        logits = torch.cat([logit[one] for logit, one in zip(logits, chosen, strict=True)])
        deltas = deltas.view(len(chosen), -1, 4)
        deltas = torch.cat([delta[one] for delta, one in zip(deltas, chosen, strict=True)])
        objectness, boxes = self.compute_loss(logits, deltas, labels, [torch.cat(matched), torch.cat(anchors)])
        return proposals, {"loss_objectness": objectness, "loss_rpn_box_reg": boxes}

    def _trained(self, anchors: Tensor, height: int, width: int) -> Tensor:
        if self.only_inside:
            return inside_image(anchors, height, width)
        return over_image(anchors, height, width, self.anchor_generator.strides[-2])

    def propose(self, logits: Tensor, deltas: Tensor, anchors: list[Tensor], sizes: Tensor) -> Proposals:
        """The best anchors of each level by score, decoded, clipped, without those that others cover.

        Args:
            logits: (B, A).
            deltas: (B A, 4).
            anchors: per level (A', 4), A of them together.
            sizes: (B, 2), height and width of each image.
        """
        scores, count = logits.sigmoid(), logits.shape[0]
        numbers = [one.shape[0] for one in anchors]
        best = self._get_top_n_idx(scores, numbers)
        level = torch.cat([best.new_full((number,), index) for index, number in enumerate(numbers)])[best]
        image = torch.arange(count, device=best.device)[:, None].expand_as(best)
        codes = deltas.view(count, -1, 4)[image, best].flatten(0, 1)
        score, level, image = scores.gather(1, best).flatten(), level.flatten(), image.flatten()
        boxes = clip(self.box_coder.decode_single(codes, torch.cat(anchors)[best.flatten()]), sizes[image])
        if not self.keep_empty:
            real = torch.where((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[0]
            boxes, image, score, level = boxes[real], image[real], score[real], level[real]
        kept = suppress(boxes, score, level, image, count=count, threshold=self.nms_thresh, limit=self.post_nms_top_n())
        return Proposals(boxes[kept], image[kept])

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy and L1, smooth below `beta`, both over the number of sampled anchors; an image without any of a
        kind counts one.

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
        box_loss = F.smooth_l1_loss(pred_bbox_deltas[positive], codes, beta=self.beta, reduction="sum")
        score_loss = F.binary_cross_entropy_with_logits(
            objectness[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        return score_loss / count, box_loss / count
