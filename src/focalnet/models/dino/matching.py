"""Which prediction is to find which object: the assignment of least cost, for all decoder layers and images at once.

    cost = 2 · class + 5 · L1 + 2 · (-GIoU),    class = focal(p, positive) - focal(p, negative)

Every object gets one prediction, and no prediction two objects; the rest is background. The costs are computed for a
whole batch on its device, the assignments (the Hungarian algorithm of scipy) on the CPU.

Legend: K sets of predictions (decoder layers and proposals), B batch, Q queries, N objects of the batch, T most
objects of an image, M pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from focalnet.errors import MissingExtraError
from focalnet.models.detection.losses import ALPHA, GAMMA
from focalnet.models.dino.denoising import Truth


class Pairs(NamedTuple):
    """M predictions and their objects.

    Attributes:
        sets: (M,), which set of predictions.
        queries: (M,), which query.
        objects: (M,), which row of the `Truth`.
    """

    sets: Tensor
    queries: Tensor
    objects: Tensor


def corners(boxes: Tensor) -> Tensor:
    """cx, cy, w, h -> x1, y1, x2, y2, in the last axis."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def generalized_iou(one: Tensor, other: Tensor) -> Tensor:
    """GIoU of boxes x1, y1, x2, y2 in the last axis, element by element with broadcasting."""
    inner = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    outer = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    overlap, hull = inner.prod(-1), outer.prod(-1)
    union = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1) - overlap
    return overlap / (union + 1e-6) - (hull - union) / (hull + 1e-6)


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, truth: Truth) -> Pairs:
    """The assignments of least cost.

    Args:
        logits: (K, B, Q, classes).
        boxes: (K, B, Q, 4), cx, cy, w, h, 0 to 1.
        truth: the objects.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtraError("training DINO", "train") from error

    most = max(truth.counts)
    shape = (len(truth.counts), most)
    index = (truth.images, truth.places)
    labels = truth.labels.new_zeros(shape).index_put(index, truth.labels)
    targets = truth.boxes.new_zeros(*shape, 4).index_put(index, truth.boxes)[:, None]
    costs = matching_cost(logits, boxes, labels, targets).cpu().numpy()

    starts = [sum(truth.counts[:image]) for image in range(len(truth.counts))]
    sets, queries, objects = [], [], []
    for number, layer in enumerate(costs):
        for cost, count, start in zip(layer, truth.counts, starts, strict=True):
            if count:
                rows, columns = linear_sum_assignment(cost[:, :count])
                sets += [number] * len(rows)
                queries += rows.tolist()
                objects += (columns + start).tolist()
    return Pairs(*torch.tensor([sets, queries, objects], dtype=torch.long).to(logits.device))


def matching_cost(logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """(K, B, Q, T): what it costs to give object t to query q; `labels` (B, T), `targets` (B, 1, T, 4)."""
    size = (*logits.shape[:3], labels.shape[1])
    chosen = logits.gather(3, labels[:, None].expand(size)).sigmoid()
    positive = ALPHA * (1 - chosen) ** GAMMA * -(chosen + 1e-8).log()
    negative = (1 - ALPHA) * chosen**GAMMA * -(1 - chosen + 1e-8).log()
    distance = (boxes[..., None, :] - targets).abs().sum(-1)
    overlap = generalized_iou(corners(boxes)[..., None, :], corners(targets))
    return 5 * distance + 2 * (positive - negative) - 2 * overlap
