"""Set prediction: which prediction is to find which object, for all sets and images at once, and what they differ by.

    cost = 2 · class + 5 · L1 + 2 · (-GIoU),    class = focal(p, positive) - focal(p, negative)

Every object gets one prediction, and no prediction two objects; the rest is background. The costs are computed for a
whole batch on its device, the assignments of least cost (the Hungarian algorithm of scipy) on the CPU.

Legend: K sets of predictions (layers or stages, proposals), B batch, Q queries, N objects of the batch, T most objects
of an image, M pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from focalnet.errors import MissingExtraError
from focalnet.models.detection.losses import ALPHA, GAMMA, focal_loss


def corners(boxes: Tensor) -> Tensor:
    """cx, cy, w, h -> x1, y1, x2, y2, in the last axis."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def centred(boxes: Tensor) -> Tensor:
    """x1, y1, x2, y2 -> cx, cy, w, h, in the last axis."""
    first, second = boxes.split(2, -1)
    return torch.cat([(first + second) / 2, second - first], -1)


@dataclass(frozen=True)
class Form:
    """How a network says its boxes, in shares of the image's width and height, and what keeps its losses finite.

    Attributes:
        read: to corners.
        write: from corners.
        least_probability: added before a logarithm.
        least_area: added before a division.
    """

    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]
    least_probability: float
    least_area: float


CENTRED = Form(corners, centred, 1e-8, 1e-6)
"""cx, cy, w, h, as DETR and its descendants have it."""
CORNERS = Form(torch.Tensor.clone, torch.Tensor.clone, 1e-12, 1e-12)
"""x1, y1, x2, y2, as Sparse R-CNN has it."""


@dataclass(frozen=True)
class Truth:
    """The objects of a batch in one row.

    Attributes:
        boxes: (N, 4), in some form.
        labels: (N,).
        images: (N,), which image each is of.
        places: (N,), its number in that image.
        counts: objects per image.
    """

    boxes: Tensor
    labels: Tensor
    images: Tensor
    places: Tensor
    counts: list[int]

    @classmethod
    def of(cls, boxes: list[Tensor], labels: list[Tensor], sizes: Tensor, form: Form = CENTRED) -> "Truth":
        """Of boxes x1 y1 x2 y2 in pixels of images of `sizes` (B, 2), height and width."""
        counts = [len(x) for x in labels]
        device = sizes.device
        images = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
        places = torch.cat([torch.arange(n) for n in counts]).to(device)
        shares = torch.cat(boxes).float().view(-1, 4) / sizes.float().flip(1).repeat(1, 2)[images]
        return cls(form.write(shares), torch.cat(labels), images, places, counts)


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


def generalized_iou(one: Tensor, other: Tensor, least_area: float = CENTRED.least_area) -> Tensor:
    """GIoU of boxes x1, y1, x2, y2 in the last axis, element by element with broadcasting."""
    inner = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    outer = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    overlap, hull = inner.prod(-1), outer.prod(-1)
    union = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1) - overlap
    return overlap / (union + least_area) - (hull - union) / (hull + least_area)


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, truth: Truth, form: Form = CENTRED) -> Pairs:
    """The assignments of least cost.

    Args:
        logits: (K, B, Q, classes).
        boxes: (K, B, Q, 4).
        truth: the objects.
        form: of both boxes.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtraError("training a detector of queries", "train") from error

    most = max(truth.counts)
    shape = (len(truth.counts), most)
    index = (truth.images, truth.places)
    labels = truth.labels.new_zeros(shape).index_put(index, truth.labels)
    targets = truth.boxes.new_zeros(*shape, 4).index_put(index, truth.boxes)[:, None]
    costs = matching_cost(logits, boxes, labels, targets, form).cpu().numpy()

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


def matching_cost(logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, form: Form = CENTRED) -> Tensor:
    """(K, B, Q, T): what it costs to give object t to query q; `labels` (B, T), `targets` (B, 1, T, 4)."""
    size = (*logits.shape[:3], labels.shape[1])
    chosen = logits.gather(3, labels[:, None].expand(size)).sigmoid()
    positive = ALPHA * (1 - chosen) ** GAMMA * -(chosen + form.least_probability).log()
    negative = (1 - ALPHA) * chosen**GAMMA * -(1 - chosen + form.least_probability).log()
    distance = (boxes[..., None, :] - targets).abs().sum(-1)
    overlap = generalized_iou(form.read(boxes)[..., None, :], form.read(targets), form.least_area)
    return 5 * distance + 2 * (positive - negative) - 2 * overlap


def set_losses(logits: Tensor, boxes: Tensor, pairs: Pairs, truth: Truth, form: Form = CENTRED) -> Tensor:
    """(K, 3): focal, L1 and GIoU loss of each set of predictions, summed over the batch.

    Args:
        logits: (K, B, Q, classes).
        boxes: (K, B, Q, 4).
        pairs: predictions and their objects; other predictions are background.
        truth: the objects.
        form: of both boxes.
    """
    images = truth.images[pairs.objects]
    place = (pairs.sets, images, pairs.queries)
    targets = torch.zeros_like(logits)
    targets[(*place, truth.labels[pairs.objects])] = 1.0
    focal = focal_loss(logits, targets).sum((1, 2, 3))
    found, wanted = boxes[place], truth.boxes[pairs.objects]
    distance = (found - wanted).abs().sum(1)
    overlap = 1 - generalized_iou(form.read(found), form.read(wanted), form.least_area)
    per_pair = torch.stack([distance, overlap], 1)
    return torch.cat([focal[:, None], per_pair.new_zeros(len(logits), 2).index_add(0, pairs.sets, per_pair)], 1)
