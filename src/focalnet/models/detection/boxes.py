"""Boxes: anchors, their deltas, whose object they are, and which of them are duplicates.

    anchors     w = s / √r, h = s √r, not rounded; centres at (column, row) · stride, with the same strides at any size
    box coder   log-sizes are limited on both sides, ± log(1000 / 16)
    matcher     a box below the threshold goes to an object if it is the object's best and overlaps it enough

Legend: B images, A anchors of one image, N boxes, G objects of one image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import _utils as torchvision_utils
from torchvision.ops import batched_nms, nms

from focalnet.ops.compiling import is_exporting


class BoxOutputs(NamedTuple):
    """What a detector without masks says, for D `detections` per image, the best first. Where fewer are found, the
    rest has score 0.

    Attributes:
        boxes: (B, D, 4), x1 y1 x2 y2 in pixels of the input.
        scores: (B, D).
        labels: (B, D), int64, from 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def precise(values: Tensor) -> Tensor:
    """In float32, or in float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class Anchors(nn.Module):
    """Anchors of every position, of areas (size · stride)² and ratios h / w.

    Args:
        strides: pixels per position of each level.
        size: side of the square anchor, in strides.
        ratios: one anchor per position for each.
    """

    def __init__(self, strides: Sequence[int], size: float, ratios: Sequence[float] = (0.5, 1.0, 2.0)) -> None:
        super().__init__()
        self.strides, self.ratios = tuple(strides), tuple(ratios)
        self.sizes = tuple((size * stride,) for stride in strides)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Of maps (B, C, h, w) per level the anchors, (h · w · ratios, 4): row by row, at each position by ratio."""
        dtype, device = precise(levels[0]).dtype, levels[0].device
        root = torch.tensor(self.ratios, device=device).sqrt()  # float32 in any model, as the published ones
        anchors = []
        for x, stride, (size,) in zip(levels, self.strides, self.sizes, strict=True):
            width, height = 1 / root * size, root * size
            cells = (torch.stack([-width, -height, width, height], dim=1) / 2).to(dtype)
            rows, columns = (torch.arange(n, device=device) * stride for n in x.shape[-2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            centres = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
            anchors.append((centres + cells).reshape(-1, 4))
        return anchors


class BoxCoder(torchvision_utils.BoxCoder):
    """Boxes from deltas (dx, dy, dw, dh), with limits on both sides."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """(N, 4 k) deltas and (N, 4) boxes -> (N, 4 k) boxes."""
        free = float("inf")
        _, _, width, height = self.weights
        low = [-free, -free, -self.bbox_xform_clip * width, -self.bbox_xform_clip * height]
        deltas = precise(rel_codes).unflatten(1, (-1, 4))
        return super().decode_single(deltas.maximum(deltas.new_tensor(low)).flatten(1), boxes)


class MaxIoUMatcher(torchvision_utils.Matcher):
    """The object of each box, by overlap.

    Args:
        high: a box that overlaps its best object by so much belongs to it.
        low: a box below is background; between the two it is neither.
        best: the boxes that overlap an object most belong to it too, if by so much; later objects win. None for no
            such rule.
    """

    def __init__(self, high: float, low: float, best: float | None) -> None:
        super().__init__(high, low, allow_low_quality_matches=best is not None)
        self.best = best

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        """Give each object its best boxes; `matches` (N,) changes in place."""
        assert self.best is not None
        for index, overlaps in enumerate(match_quality_matrix):
            highest = overlaps.max()
            matches[(overlaps == highest) & (highest >= self.best)] = index


def over_image(anchors: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Which anchors (A, 4) stand over an image, padded by itself to whole positions of `stride` pixels: (A,), bool."""
    bottom, right = (-(-side // stride) * stride for side in (height, width))
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).unbind(1)
    return (x < right - 0.5) & (y < bottom - 0.5)


def inside_image(anchors: Tensor, height: int, width: int) -> Tensor:
    """Which anchors (A, 4) lie wholly inside an image of this size: (A,), bool."""
    left, top, right, bottom = anchors.unbind(1)
    return (left >= 0) & (top >= 0) & (right < width) & (bottom < height)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (N, 4) within images of `sizes` (N, 2), height and width."""
    return boxes.clamp(min=0).minimum(sizes.flip(1).repeat(1, 2).to(boxes))


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, images: Tensor, *, count: int, threshold: float, limit: int
) -> Tensor:
    """Non-maximum suppression of the boxes of a batch, per image and group.

    Args:
        boxes: (N, 4).
        scores: (N,).
        groups: (N,), class or level: boxes suppress none of another group.
        images: (N,), which image each box is of.
        count: B.
        threshold: a box that overlaps a better one by more is dropped.
        limit: boxes per image that are kept at most.

    Returns:
        indices of what is kept, image by image, in each the best first.
    """
    if not is_exporting():
        rows = [torch.where(images == image)[0] for image in range(count)]
        kept = [row[batched_nms(boxes[row], scores[row], groups[row], threshold)[:limit]] for row in rows]
        return torch.cat(kept)
    # One call for the batch: groups are moved apart in x, images in y, so that coordinates grow no larger than needed.
    step = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).amax(0) + 1
    apart = boxes + (torch.stack([groups, images], 1).to(boxes) * step).repeat(1, 2)
    # torchvision tells the tracer that at least two are kept: two boxes beside all others see to that, and leave again.
    beside = step * apart.new_tensor([[-2.0] * 2 + [-1.0] * 2, [-4.0] * 2 + [-3.0] * 2])
    kept = nms(torch.cat([apart, beside]), torch.cat([scores, scores.new_full((2,), -1.0)]), threshold)
    kept = kept[torch.where(kept < scores.shape[0])[0]]
    order = torch.arange(kept.shape[0], device=kept.device)  # ONNX knows no stable sorting, and these have no equals
    kept = kept[(images[kept] * kept.shape[0] + order).argsort()]
    return kept[torch.where(places(images[kept], count) < limit)[0]]


def places(images: Tensor, count: int) -> Tensor:
    """The place of each of N rows among those of its image, 0 for the first; `images` (N,) from 0 to `count` - 1."""
    same = images[:, None] == torch.arange(count, device=images.device)
    return (same.cumsum(0) * same).sum(1) - 1


def padded(values: Tensor, images: Tensor, *, count: int, limit: int) -> Tensor:
    """Rows (N, …) of a batch, of which no image has more than `limit`, as (B, limit, …); the rest is zero."""
    result = values.new_zeros(count, limit, *values.shape[1:])
    return result.index_put((images, places(images, count)), values)
