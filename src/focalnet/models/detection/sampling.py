"""Which boxes the second stage trains on, and what their masks should be.

Objects stand among the proposals: each belongs to itself and takes no part in the search for an object's boxes.

Legend: N boxes, G objects of one image, S side of a mask.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import box_iou

from focalnet.models.base import Target
from focalnet.models.detection.boxes import MaxIoUMatcher
from focalnet.models.detection.proposals import Proposals
from focalnet.models.detection.regions import mask_targets


class Sampled(NamedTuple):
    """Boxes to train on, image by image.

    Attributes:
        boxes: (N, 4).
        images: (N,), which image each is of.
        owners: (N,), the object of each, counted through the batch; -1 for background.
        added: (N,), bool: which are the objects themselves.
    """

    boxes: Tensor
    images: Tensor
    owners: Tensor
    added: Tensor


def assign(proposals: Tensor, objects: Tensor, matcher: MaxIoUMatcher) -> Tensor:
    """The object of each of N proposals (N, 4), behind which the G objects (G, 4) stand themselves.

    Returns:
        (N + G,), int64, -1 for background.
    """
    owner = torch.full((len(proposals),), -1, dtype=torch.int64, device=proposals.device)
    if len(objects) and len(proposals):
        owner = matcher(box_iou(objects, proposals))
    return torch.cat([owner, torch.arange(len(objects), device=proposals.device)])


def sample(
    proposals: Proposals, targets: Sequence[Target], matcher: MaxIoUMatcher, sampler: BalancedPositiveNegativeSampler
) -> Sampled:
    """Choose from the proposals and the objects themselves.

    Args:
        proposals: of the batch.
        targets: `boxes` per image.
        matcher: whose object a proposal is, or background; it leaves nothing between.
        sampler: how many are chosen.
    """
    boxes, owners, added, first = [], [], [], 0
    for index, target in enumerate(targets):
        found = proposals.boxes[proposals.images == index]
        objects = target["boxes"].to(found)
        owner = assign(found, objects, matcher)
        boxes.append(torch.cat([found, objects]))
        owners.append(owner.where(owner < 0, owner + first))
        added.append(torch.arange(len(owner), device=owner.device) >= len(found))
        first += len(objects)
    chosen = [
        torch.where(positive | negative)[0]
        for positive, negative in zip(*sampler([(owner >= 0).long() for owner in owners]), strict=True)
    ]
    images = [one.new_full((len(one),), index) for index, one in enumerate(chosen)]
    rows = [[values[one] for values, one in zip(kind, chosen, strict=True)] for kind in (boxes, owners, added)]
    return Sampled(torch.cat(rows[0]), torch.cat(images), torch.cat(rows[1]), torch.cat(rows[2]))


def labels_of(sampled: Sampled, targets: Sequence[Target], background: int) -> Tensor:
    """The label of each box (N,): that of its object, or `background`."""
    known = [target["labels"].long() for target in targets]
    return torch.cat([*known, known[0].new_tensor([background])])[sampled.owners]


def with_masks(sampled: Sampled, targets: Sequence[Target]) -> Tensor:
    """Indices of the boxes whose object has a mask, which all have unless `outlined` says otherwise."""
    known = [target.get("outlined", torch.ones_like(target["labels"], dtype=torch.bool)) for target in targets]
    return torch.where(torch.cat([*known, known[0].new_zeros(1)])[sampled.owners])[0]


def mask_loss(logits: Tensor, rows: Tensor, sampled: Sampled, targets: Sequence[Target]) -> Tensor:
    """Mean cross entropy of the pixels of masks.

    Args:
        logits: (N', S, S).
        rows: (N',), which of the sampled boxes they are of, image by image.
        sampled: the boxes.
        targets: `boxes` and `masks` per image.
    """
    truth, first = [], 0
    for index, target in enumerate(targets):
        mine = rows[sampled.images[rows] == index]
        owners = sampled.owners[mine] - first
        truth.append(mask_targets(target["masks"], sampled.boxes[mine], owners, logits.shape[-1]))
        first += len(target["boxes"])
    pixels = F.binary_cross_entropy_with_logits(logits, torch.cat(truth), reduction="sum")
    return pixels / max(logits.numel(), 1)
