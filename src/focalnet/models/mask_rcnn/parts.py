"""Parts of Mask R-CNN where torchvision's arithmetic is not the one of the published models; see `mask_rcnn`.

    anchors     w = s / √r, h = s √r, not rounded; centres at (column, row) · stride, with the same strides at any size
    level       ⌊log2(√(w h) / (14 · finest stride) + 1e-6)⌋, kept within the levels
    RoIAlign    aligned: shifted by half a pixel; as many samples per bin as the box has pixels there
    box code    log-sizes are limited on both sides, ± log(1000 / 16)
    assignment  a box below the threshold goes to an object if it is the object's best and overlaps it enough
    pasting     a mask is an image over its exact box, sampled at the centres of the pixels

Everything here computes in float32, also under autocast and with weights of half precision; in float64 with such.

Legend: N boxes, G objects of one image, K classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align


def precise(values: Tensor) -> Tensor:
    """In float32, or in float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class Anchors(AnchorGenerator):
    """Three anchors per position, of areas (size · stride)² and ratios h / w of 1/2, 1, 2.

    Args:
        strides: pixels per position of each level.
        size: side of the square anchor, in strides.
    """

    def __init__(self, strides: Sequence[int], size: float) -> None:
        super().__init__(tuple((size * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides))
        self.strides = tuple(strides)

    def generate_anchors(self, scales, aspect_ratios, dtype=torch.float32, device=None) -> Tensor:
        """Boxes around the origin, (ratios, 4)."""
        root = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        sides = torch.as_tensor(scales, dtype=dtype, device=device)
        widths, heights = (1 / root[:, None] * sides).flatten(), (root[:, None] * sides).flatten()
        return torch.stack([-widths, -heights, widths, heights], dim=1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Per image all anchors, (A, 4): level by level, row by row."""
        self.set_cell_anchors(precise(feature_maps[0]).dtype, feature_maps[0].device)
        sizes = [list(x.shape[-2:]) for x in feature_maps]
        strides = [[stride, stride] for stride in self.strides]
        anchors = torch.cat(self.grid_anchors(sizes, strides))  # type: ignore[arg-type]  # numbers do as well
        return [anchors] * len(image_list.image_sizes)


class Coder(BoxCoder):
    """Boxes from codes (dx, dy, dw, dh), with limits on both sides."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """(N, 4 k) codes and (N, 4) boxes -> (N, 4 k) boxes."""
        free = float("inf")
        _, _, width, height = self.weights
        low = [-free, -free, -self.bbox_xform_clip * width, -self.bbox_xform_clip * height]
        codes = precise(rel_codes).unflatten(1, (-1, 4))
        return super().decode_single(codes.maximum(codes.new_tensor(low)).flatten(1), boxes)


class MaxIoUMatcher(Matcher):
    """The object of each box, by overlap.

    Args:
        high: a box that overlaps its best object by so much belongs to it.
        low: a box below is background; between the two it is neither.
        best: the boxes that overlap an object most belong to it too, if by so much; later objects win.
    """

    def __init__(self, high: float, low: float, best: float) -> None:
        super().__init__(high, low, allow_low_quality_matches=True)
        self.best = best

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        """Give each object its best boxes; `matches` (N,) changes in place."""
        for index, overlaps in enumerate(match_quality_matrix):
            highest = overlaps.max()
            matches[(overlaps == highest) & (highest >= self.best)] = index


class RoIPool(nn.Module):
    """The features of boxes, each from the level that fits its size.

    Args:
        output_size: side of the result.
        strides: pixels per position of each level, finest first.
    """

    def __init__(self, output_size: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.output_size = output_size
        self.strides = tuple(strides)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool.

        Args:
            features: per level (B, C, H / stride, W / stride).
            boxes: per image (N, 4), in pixels.

        Returns:
            (sum of N, C, output_size, output_size), image by image, of the type of the features.
        """
        pictures = torch.cat([torch.full((len(b), 1), i, dtype=b.dtype, device=b.device) for i, b in enumerate(boxes)])
        rois = torch.cat([pictures, torch.cat(list(boxes))], dim=1)
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        level = (side / (14 * self.strides[0]) + 1e-6).log2().floor().clamp(0, len(self.strides) - 1)
        pooled, order = [], []
        for index, (x, stride) in enumerate(zip(features, self.strides, strict=True)):
            chosen = torch.where(level == index)[0]
            order.append(chosen)
            pooled.append(roi_align(precise(x), rois[chosen], self.output_size, 1 / stride, 0, aligned=True))
        return torch.cat(pooled)[torch.cat(order).argsort()].to(features[0].dtype)


def mask_targets(masks: Tensor, boxes: Tensor, owners: Tensor, side: int) -> Tensor:
    """What the mask head should say of each box: the owner's mask cropped and resized, then cut at one half.

    Args:
        masks: (G, H, W), bool.
        boxes: (N, 4).
        owners: index of the object of each box, (N,).
        side: of the result.

    Returns:
        (N, side, side), of the type of the boxes: 0 and 1.
    """
    if not len(boxes):
        return boxes.new_zeros(0, side, side)
    rois = torch.cat([owners[:, None].to(boxes.dtype), boxes], dim=1)
    return (roi_align(masks[:, None].to(boxes.dtype), rois, side, 1.0, 0, aligned=True)[:, 0] >= 0.5).to(boxes.dtype)


def paste_masks(probs: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of boxes as masks of the image.

    Args:
        probs: (N, S, S), the probabilities over each box.
        boxes: (N, 4), in pixels of the image.
        size: height and width of the image.

    Returns:
        (N, H, W), bool: where the probability is one half or more.
    """
    height, width = size
    result = torch.zeros(len(probs), height, width, dtype=torch.bool, device=probs.device)
    probs = precise(probs)
    limits = boxes.new_tensor([width, height, width, height])
    windows = torch.stack([boxes[:, :2].floor() - 1, boxes[:, 2:].ceil() + 1], dim=1).flatten(1)
    for index, (x1, y1, x2, y2) in enumerate(windows.clamp(min=0).minimum(limits).int().tolist()):
        if x1 >= x2 or y1 >= y2:
            continue
        left, top, right, bottom = boxes[index].unbind()
        x = (torch.arange(x1, x2, device=boxes.device) + 0.5 - left) / (right - left) * 2 - 1
        y = (torch.arange(y1, y2, device=boxes.device) + 0.5 - top) / (bottom - top) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).nan_to_num(0.0, 0.0, 0.0)
        sampled = F.grid_sample(probs[index][None, None], grid[None].to(probs.dtype), align_corners=False)
        result[index, y1:y2, x1:x2] = sampled[0, 0] >= 0.5
    return result
