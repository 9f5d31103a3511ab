"""Whose object a position is: adaptive training sample selection.

For every object, the `CLOSEST` anchors of each level whose centres are nearest to its centre are candidates. They are
the object's if they overlap it by at least the mean plus the standard deviation of all candidates' overlaps, and their
centre lies in it; of several objects, that of the largest overlap.

Legend: A anchors, G objects of one image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

CLOSEST = 9
INSIDE = 0.01
"""Pixels that a centre lies inside of an object at least."""


@torch.no_grad()
def assign(anchors: Tensor, counts: Sequence[int], boxes: Tensor) -> Tensor:
    """The object of each anchor.

    Args:
        anchors: (A, 4), level by level.
        counts: anchors of each level.
        boxes: (G, 4), of the objects.

    Returns:
        (A,), int64: the index of the object, -1 for none.
    """
    if not len(boxes) or not len(anchors):
        return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    overlaps = box_iou(anchors, boxes)
    centres, middles = ((corners[:, :2] + corners[:, 2:]) / 2 for corners in (anchors, boxes))
    distances = (centres[:, None] - middles[None]).square().sum(-1).sqrt()
    candidates, start = [], 0
    for count in counts:
        nearest = distances[start : start + count].topk(min(CLOSEST, count), dim=0, largest=False).indices
        candidates.append(nearest + start)
        start += count
    rows = torch.cat(candidates)
    columns = torch.arange(len(boxes), device=boxes.device)
    near = overlaps[rows, columns]
    enough = near >= near.mean(0) + near.std(0)
    inside = torch.cat([centres[rows] - boxes[:, :2], boxes[:, 2:] - centres[rows]], dim=-1).amin(-1) > INSIDE
    wanted = torch.full_like(overlaps, -1.0)
    wanted[rows, columns.expand_as(rows)] = near.where(enough & inside, -1.0)
    best, owner = wanted.max(1)
    return owner.where(best >= 0, -1)


def centreness(anchors: Tensor, boxes: Tensor) -> Tensor:
    """How central the centres of anchors (N, 4) are in their boxes (N, 4): (N,), from 0 to 1."""
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    low, high = centres - boxes[:, :2], boxes[:, 2:] - centres
    return (torch.minimum(low, high) / torch.maximum(low, high)).prod(1).sqrt()
