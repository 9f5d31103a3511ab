"""The steps of dense transforms: each keeps image, boxes, masks and labels per pixel in step.

A flip, a quarter turn and a cut are exact. A resize moves boxes by the two factors, and gives each new pixel of a mask
the old one that its centre falls into.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V
from torchvision.tv_tensors import BoundingBoxFormat

from focalnet import inputs
from focalnet.data.base import DenseSample
from focalnet.inputs.image import pixels_of
from focalnet.structures import masks_to_boxes


@dataclass(frozen=True)
class View:
    """A dense sample on its way. N objects.

    Attributes:
        image: (C, H, W), uint8.
        boxes: (N, 4), float32.
        labels: (N,).
        masks: (N, H, W), bool, or None.
        outlined: (N,), bool, which objects have a mask; None where all have one, or none.
        semantic: (H, W), uint8, or None.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    semantic: Tensor | None
    outlined: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]


def start(sample: DenseSample) -> View:
    """A sample without its crowds."""
    kept = ~sample.crowd
    masks = None if sample.masks is None else sample.masks[kept]
    outlined = None if sample.outlined is None else sample.outlined[kept]
    image = pixels_of(sample.image)
    return View(image, sample.boxes[kept], sample.labels[kept], masks, sample.semantic, outlined)


def flip(view: View) -> View:
    """From left to right."""
    left, top, right, bottom = view.boxes.unbind(1)
    width = view.size[1]
    return replace(
        view,
        image=view.image.flip(2),
        boxes=torch.stack((width - right, top, width - left, bottom), 1),
        masks=None if view.masks is None else view.masks.flip(2),
        semantic=None if view.semantic is None else view.semantic.flip(1),
    )


def quarter_turns(view: View, count: int) -> View:
    """By `count` times 90 degrees, counterclockwise."""
    for _ in range(count % 4):
        left, top, right, bottom = view.boxes.unbind(1)
        width = view.size[1]
        view = replace(
            view,
            image=view.image.rot90(1, (1, 2)),
            boxes=torch.stack((top, width - right, bottom, width - left), 1),
            masks=None if view.masks is None else view.masks.rot90(1, (1, 2)),
            semantic=None if view.semantic is None else view.semantic.rot90(),
        )
    return view


def rotate(view: View, degrees: float) -> View:
    """Counterclockwise around the middle, in the same frame: what comes in is black, without an object, and class 0.

    Boxes go around the turned masks, around the turned boxes where there are none.
    """
    bilinear, nearest = V.InterpolationMode.BILINEAR, V.InterpolationMode.NEAREST
    boxes, _ = V.rotate_bounding_boxes(view.boxes, BoundingBoxFormat.XYXY, view.size, degrees)
    semantic = view.semantic if view.semantic is None else V.rotate_mask(view.semantic[None], degrees)[0]
    masks = view.masks
    if masks is not None and len(masks):
        masks = V.rotate_image(masks.to(torch.uint8), degrees, interpolation=nearest).bool()
        seen = masks.flatten(1).any(1, keepdim=True)
        boxes = masks_to_boxes(masks).where(seen, boxes)
    image = V.rotate_image(view.image, degrees, interpolation=bilinear)
    return replace(view, image=image, boxes=boxes, masks=masks, semantic=semantic)


def resize(view: View, size: tuple[int, int], preprocessing: inputs.Image) -> View:
    """To (height, width)."""
    if size == view.size:
        return view
    factors = view.boxes.new_tensor([size[1] / view.size[1], size[0] / view.size[0]]).repeat(2)
    return replace(
        view,
        image=preprocessing.resize_to(view.image, size),
        boxes=view.boxes * factors,
        masks=None if view.masks is None else _nearest(view.masks, size),
        semantic=None if view.semantic is None else _nearest(view.semantic[None], size)[0],
    )


def crop(view: View, top: int, left: int, size: tuple[int, int]) -> View:
    """Cut (height, width) at this place; both are made to fit. Boxes are clipped, and none is removed."""
    height, width = min(size[0], view.size[0] - top), min(size[1], view.size[1] - left)
    rows, columns = slice(top, top + height), slice(left, left + width)
    boxes = view.boxes - view.boxes.new_tensor([left, top, left, top])
    return replace(
        view,
        image=view.image[:, rows, columns],
        boxes=boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height])),
        masks=None if view.masks is None else view.masks[:, rows, columns],
        semantic=None if view.semantic is None else view.semantic[rows, columns],
    )


def _nearest(masks: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for new, old in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows][:, :, columns]


def sane(view: View) -> View:
    """The view without the objects of which less than a pixel, or nothing of their mask, is in the image."""
    height, width = view.size
    boxes = view.boxes.clamp(min=0).minimum(view.boxes.new_tensor([width, height, width, height]))
    kept = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
    if view.masks is not None:
        seen = view.masks.flatten(1).any(1)
        kept &= seen if view.outlined is None else seen | ~view.outlined
    masks, outlined = (None if rows is None else rows[kept] for rows in (view.masks, view.outlined))
    return replace(view, boxes=boxes[kept], labels=view.labels[kept], masks=masks, outlined=outlined)


def draw(low: float = 0.0, high: float = 1.0) -> float:
    """A number from `low` to `high`, from torch's global generator."""
    return low + (high - low) * float(torch.rand(()))


def photometric(image: Tensor, light: float, color: float) -> Tensor:
    """SSD's photometric distortion, in the ranges of mmsegmentation: each change with probability 1/2.

    At strength 1 brightness changes by up to 32 of 255, contrast and saturation by factors from 0.5 to 1.5, hue by up
    to 36 degrees (18 of OpenCV's 180). Contrast comes before or after saturation and hue.

    What differs from mmsegmentation: saturation is a blend with grey (torchvision's), there a factor in HSV;
    pixels are clipped after brightness and contrast, there after each.

    Args:
        image: (C, H, W), uint8.
        light: strength for brightness and contrast, 0 to 1.
        color: strength for saturation and hue, 0 to 1; only three channels have them.
    """
    shift = draw(-32 * light, 32 * light)
    contrast = draw(1 - 0.5 * light, 1 + 0.5 * light)
    saturation = draw(1 - 0.5 * color, 1 + 0.5 * color)
    hue = draw(-0.1, 0.1) * color
    brighter, contrasted, saturated, turned, first = (torch.rand(5) < 0.5).tolist()
    color = color if len(image) == 3 else 0.0
    pixels = image.float() / 255
    if brighter:
        pixels = pixels + shift / 255
    if contrasted and first:
        pixels = pixels * contrast
    pixels = pixels.clamp(0, 1)
    if saturated and color:
        pixels = V.adjust_saturation_image(pixels, saturation)
    if turned and color:
        pixels = V.adjust_hue_image(pixels, hue)
    if contrasted and not first:
        pixels = pixels * contrast
    return (pixels.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
