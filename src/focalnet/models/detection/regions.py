"""Regions of maps and masks: what is pooled from a box, and pasted over one.

    level       ⌊log2(√(w h) / (14 · finest stride) + 1e-6)⌋, kept within the levels
    RoIAlign    aligned: shifted by half a pixel; as many samples per bin as the box has pixels there
    pasting     a mask is an image over its exact box, sampled at the centres of the pixels

Legend: N boxes, G objects of one image.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from focalnet.models.detection.boxes import precise


class RoIPool(nn.Module):
    """The features of boxes, each from the level that fits its size.

    Args:
        output_size: side of the result.
        strides: pixels per position of each level, finest first.
        samples: points per bin and side; 0 for one per position.
    """

    def __init__(self, output_size: int, strides: Sequence[int], samples: int = 0) -> None:
        super().__init__()
        self.output_size, self.samples = output_size, samples
        self.strides = tuple(strides)

    def forward(self, features: Sequence[Tensor], boxes: Tensor, images: Tensor) -> Tensor:
        """Pool.

        Args:
            features: per level (B, C, H / stride, W / stride).
            boxes: (N, 4), in pixels.
            images: (N,), which image each box is of.

        Returns:
            (N, C, output_size, output_size), of the type of the features.
        """
        rois = torch.cat([images[:, None].to(boxes), boxes], dim=1)
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        level = (side / (14 * self.strides[0]) + 1e-6).log2().floor().clamp(0, len(self.strides) - 1)
        size, pooled, order = self.output_size, [], []
        for index, (x, stride) in enumerate(zip(features, self.strides, strict=True)):
            chosen = torch.where(level == index)[0]
            order.append(chosen)
            pooled.append(roi_align(precise(x), rois[chosen], size, 1 / stride, self.samples, aligned=True))
        order = torch.cat(order)
        place = torch.zeros_like(images).index_copy(0, order, torch.arange(order.shape[0], device=order.device))
        return torch.cat(pooled)[place].to(features[0].dtype)


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
