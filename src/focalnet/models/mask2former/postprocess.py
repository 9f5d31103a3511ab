"""What the queries of Mask2Former say about one image: a semantic map, instances, or a panoptic map.

With p(q, c) the softmax over classes and "none" and m(q) the sigmoid of a query's mask:

    semantic    score of class c at a pixel: Σ_q p(q, c) · m(q)
    instances   the best pairs (q, c); score p(q, c) times the mean of m(q) where it is above 0.5
    panoptic    queries whose best class is none or weak are dropped; each pixel goes to the query with the highest
                p(q) · m(q); a query that keeps too little of its mask is dropped and leaves its pixels empty

The steps are those of facebookresearch's Mask2Former, with the masks already at the size of the image (there, the
semantic maps of the semantic models are resized after the sum; here the masks are, before the sigmoid, for all tasks).

Legend: Q queries, K classes, H W pixels, N objects.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from focalnet.structures import Detections, Segment, masks_to_boxes


def semantic(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Scores of the classes at every pixel.

    Args:
        class_logits: (Q, K + 1).
        mask_logits: (Q, H, W).

    Returns:
        (K, H, W).
    """
    return torch.einsum("qk,qhw->khw", class_logits.softmax(-1)[:, :-1], mask_logits.sigmoid())


def instances(
    class_logits: Tensor, mask_logits: Tensor, top: int = 100, things: Collection[int] | None = None
) -> Detections:
    """Objects with masks, best first. A query may appear under several classes.

    Args:
        class_logits: (Q, K + 1).
        mask_logits: (Q, H, W).
        top: most objects, before the choice of `things`.
        things: classes to keep; all of them by default.
    """
    classes = class_logits.shape[1] - 1
    scores, index = class_logits.softmax(-1)[:, :-1].flatten().topk(min(top, len(class_logits) * classes))
    labels, query = index % classes, index // classes
    if things is not None:
        keep = torch.isin(labels, torch.tensor(sorted(things), device=labels.device, dtype=labels.dtype))
        scores, labels, query = scores[keep], labels[keep], query[keep]
    masks = mask_logits > 0
    area = masks.flatten(1).sum(1)
    quality = (mask_logits.sigmoid() * masks).flatten(1).sum(1) / (area + 1e-6)
    found = Detections(masks_to_boxes(masks)[query], scores * quality[query], labels, masks[query])
    return found.take(found.scores.argsort(descending=True, stable=True))


def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    things: Collection[int],
    object_mask_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> tuple[Tensor, list[Segment]]:
    """One segment at most for every pixel.

    Args:
        class_logits: (Q, K + 1).
        mask_logits: (Q, H, W).
        things: classes of countable objects; segments of any other class are merged into one.
        object_mask_threshold: least score of a query.
        overlap_threshold: least share of a query's mask that no stronger query takes.

    Returns:
        the ids (H, W), int32, 0 where there is no segment, and the segments in the order of their ids.
    """
    scores, labels = class_logits.softmax(-1).max(-1)
    keep = (labels < class_logits.shape[1] - 1) & (scores > object_mask_threshold)
    ids = torch.zeros(mask_logits.shape[1:], dtype=torch.int32, device=mask_logits.device)
    segments: list[Segment] = []
    if not keep.any():
        return ids, segments
    scores, labels, masks = scores[keep], labels[keep], mask_logits[keep].sigmoid()
    winner = (scores[:, None, None] * masks).argmax(0)
    stuff: dict[int, int] = {}
    for query, (score, label) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
        won, own = winner == query, masks[query] >= 0.5
        mask = won & own
        if not mask.any() or won.sum() / own.sum() < overlap_threshold:
            continue
        if label in stuff:
            position = stuff[label]
            segments[position] = Segment(position + 1, label, max(score, segments[position].score))
        else:
            position = len(segments)
            segments.append(Segment(position + 1, label, score))
            if label not in things:
                stuff[label] = position
        ids[mask] = position + 1
    return ids, segments
