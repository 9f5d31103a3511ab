"""Dense samples to input tensors, for evaluation and for training, and their batches.

    evaluation   resize the whole image (`inputs.Image`), normalize
    training     flip, turn; resize, crop or pad, of one of four kinds; colors; normalize

    whole        the shorter side becomes one of several scales
    detr         that, or, in half of the draws, first another resize and a random crop (DETR; the official detection
                 configs, `AutoAugment` of two policies)
    square       large-scale jitter: resize by a random factor, cut or pad to a fixed square (LSJ, "Simple Copy-Paste")
    window       resize to one of several scales or by a random factor, cut a square; in the official segmentation
                 configs one in which no class has more than 3/4 of the pixels (`cat_max_ratio`)

Lengths are given in proportion to `inputs.Image.input_size`, so that a recipe for 800 pixels serves a small demo too.
Where that is a height and a width, squares have its shape.
Boxes and masks stay in step (`geometry.py`). Objects of which a cut leaves less than a pixel, or none of the mask, are
removed.

What differs from the originals: one rule of rounding sizes (mmdetection's, to the nearest pixel) and one antialiased
bilinear resize of 8-bit pixels (Pillow's) for all; mmdetection's is not antialiased, the same when enlarging. Padding
is the mean (zero after normalizing) as in mmdetection; facebookresearch pads squares with grey of 128.

All randomness comes from torch's global generator: a seed before the call fixes the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet import inputs
from focalnet.data.base import IGNORE, DenseSample
from focalnet.data.transforms.geometry import (
    View,
    crop,
    draw,
    flip,
    photometric,
    quarter_turns,
    resize,
    rotate,
    sane,
    start,
)
from focalnet.errors import UserError
from focalnet.inputs.image import LONGEST, pixels_of, scaled_size

Example = tuple[Tensor, dict[str, Any]]
"""An image (C, H, W), float32, normalized, and its target."""
DenseTransform = Callable[[DenseSample], Example]


@dataclass(frozen=True, kw_only=True)
class DenseAugmentation:
    """How training samples are varied. Lengths are in proportion to `inputs.Image.input_size`.

    Raises:
        UserError: a value out of range.
    """

    kind: Literal["whole", "detr", "square", "window"] = "whole"
    """What is cut; see the table on top of this module."""
    hflip: float = 0.5
    """Probability of a flip from left to right."""
    quarters: float = 0.0
    """Probability of 0 to 3 quarter turns."""
    turn: float = 0.0
    """Most degrees of a rotation, either way, of half of the images that had no quarter turns."""
    scales: tuple[float, ...] = (1.0,)
    """"whole", "detr", "window": the shorter side is one of these, unless the longer one would pass `long_side`."""
    first_scales: tuple[float, ...] = (0.5, 0.625, 0.75)
    """"detr": the shorter side before the crop is one of these."""
    crop: tuple[float, float] = (0.48, 0.75)
    """"detr": least and most of each side of the crop."""
    jitter: tuple[float, float] = (0.1, 2.0)
    """"square", "window": least and most factor of the resize, after `scales`."""
    side: float = 1.0
    """"square", "window": side of the square."""
    most_of_one: float = 0.75
    """"window": most of the labelled pixels that one class may have, given up after 10 draws; 1 takes any square."""
    light: float = 0.0
    """Strength of the change of brightness and contrast; 1 is the usual one (SSD)."""
    color: float = 0.0
    """Strength of the change of saturation and hue, likewise."""

    def __post_init__(self) -> None:
        for name, most in (
            ("hflip", 1),
            ("quarters", 1),
            ("turn", 180),
            ("most_of_one", 1),
            ("light", 1),
            ("color", 1),
        ):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"DenseAugmentation has {name}={getattr(self, name)}; give a number from 0 to {most}.")
        for name in ("scales", "first_scales", "crop", "jitter"):
            values = getattr(self, name)
            if not values or min(values) <= 0 or (name in ("crop", "jitter") and values[0] > values[1]):
                raise UserError(f"DenseAugmentation has {name}={values}; give numbers above 0, the least one first.")
        if self.side <= 0:
            raise UserError(f"DenseAugmentation has side={self.side}; give a number above 0.")


def _steps(least: int, most: int, unit: int) -> tuple[float, ...]:
    return tuple(side / unit for side in range(least, most + 1, 32))


AUGMENTATIONS = {
    "none": DenseAugmentation(hflip=0.0),
    "light": DenseAugmentation(scales=(0.8, 0.9, 1.0)),
    "detr": DenseAugmentation(kind="detr", scales=_steps(480, 800, 800)),
    "hres": DenseAugmentation(
        kind="detr", scales=_steps(480, 1200, 1200), first_scales=(1 / 3, 5 / 12, 1 / 2), crop=(0.32, 0.5)
    ),
    "lsj": DenseAugmentation(kind="square", side=1.28),
    "semantic": DenseAugmentation(kind="window", jitter=(0.5, 2.0), light=1.0, color=1.0),
    "semantic_steps": DenseAugmentation(
        kind="window",
        scales=tuple(tenths / 10 for tenths in range(5, 21)),
        jitter=(1.0, 1.0),
        most_of_one=1.0,
        light=1.0,
        color=1.0,
    ),
    "slices": DenseAugmentation(quarters=0.5, turn=20.0),
    "turns": DenseAugmentation(hflip=0.0, turn=10.0, light=0.5),
    "digit_scenes": DenseAugmentation(kind="square", hflip=0.0, jitter=(1.0, 1.25), light=0.5),
    "digit_crops": DenseAugmentation(kind="square", hflip=0.0, jitter=(1.15, 1.4), side=2 / 3, light=0.5),
}
"""By name: "hres" is "detr" for an input of 1200 pixels (480 to 1200, 2000 the longer side), "lsj" cuts 1024 for 800;
"semantic" is mmsegmentation's, "semantic_steps" facebookresearch's, whose longer side never passes `long_side`;
"slices" is Focal-UNet's, for images without an up and a left; "turns" keeps both; "digit_scenes" enlarges and shifts,
and never flips, as digits are not symmetric; "digit_crops" comes closer, with squares of two thirds of the input."""


def eval_dense_transform(preprocessing: inputs.Image) -> DenseTransform:
    """For evaluation: a sample to its image (3, H, W), float32, and {"size": (H, W)}.

    What is measured against is the sample itself, in pixels of the original image.
    """

    def transform(sample: DenseSample) -> Example:
        image = pixels_of(sample.image)
        size = preprocessing.whole_size((image.shape[1], image.shape[2]))
        return preprocessing.normalize(preprocessing.resize_to(image, size)), {"size": size}

    return transform


def train_dense_transform(preprocessing: inputs.Image, augmentation: DenseAugmentation) -> DenseTransform:
    """Augmentation for training: a sample to its image (3, H, W), float32, and its target.

    The target has `boxes` (N, 4) in pixels of the image, `labels` (N,), `size`: the (height, width) of what is image
    (the image may be padded on the right and at the bottom), and where the sample has them `masks` (N, H, W), bool,
    `outlined` (N,), bool, and `semantic` (H, W), uint8, 255 in the padding. Crowds are left out.
    """

    def transform(sample: DenseSample) -> Example:
        view = start(sample)
        if augmentation.hflip and draw() < augmentation.hflip:
            view = flip(view)
        if augmentation.quarters and draw() < augmentation.quarters:
            view = quarter_turns(view, _draw_int(0, 3))
        elif augmentation.turn and draw() < 0.5:
            view = rotate(view, draw(-augmentation.turn, augmentation.turn))
        view = _GEOMETRY[augmentation.kind](view, preprocessing, augmentation)
        view = sane(view)
        if augmentation.light or augmentation.color:
            view = replace(view, image=photometric(view.image, augmentation.light, augmentation.color))
        target: dict[str, Any] = {"boxes": view.boxes, "labels": view.labels, "size": view.size}
        if view.masks is not None:
            target["masks"] = view.masks
        if view.outlined is not None:
            target["outlined"] = view.outlined
        if view.semantic is not None:
            target["semantic"] = view.semantic
        image = preprocessing.normalize(view.image)
        if augmentation.kind in ("square", "window"):
            return _padded(image, target, _frame(augmentation.side, preprocessing))
        return image, target

    return transform


def collate_dense(examples: Sequence[Example], divisor: int = 32) -> dict[str, Any]:
    """A batch: images are padded with zeros, masks with False and labels per pixel with 255, right and bottom.

    Args:
        examples: images (3, H, W) with their targets.
        divisor: the padded height and width are multiples of it.

    Returns:
        images (B, 3, H, W), sizes (B, 2), the height and width of what is image, and targets, one dict per image.
    """
    height, width = (
        -(-max(image.shape[axis] for image, _ in examples) // divisor) * divisor for axis in (1, 2)
    )  # fmt: skip
    padded = [_padded(image, target, (height, width)) for image, target in examples]
    return {
        "images": torch.stack([image for image, _ in padded]),
        "sizes": torch.tensor([target["size"] for _, target in padded]),
        "targets": [target for _, target in padded],
    }


def _frame(share: float, preprocessing: inputs.Image) -> tuple[int, int]:
    """(height, width) of a square that is a share of the input, in the shape of the input."""
    height, width = (max(1, round(share * side)) for side in preprocessing.size)
    return height, width


def _draw_int(low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, ()))


def _pick(values: Sequence[float]) -> float:
    return values[_draw_int(0, len(values) - 1)]


# --- kinds of geometry


def _whole(view: View, preprocessing: inputs.Image, how: DenseAugmentation) -> View:
    return resize(view, preprocessing.whole_size(view.size, _pick(how.scales)), preprocessing)


def _detr(view: View, preprocessing: inputs.Image, how: DenseAugmentation) -> View:
    if draw() < 0.5:
        first = min(_frame(_pick(how.first_scales), preprocessing))
        size = scaled_size(view.size, min(first / min(view.size), LONGEST * first / max(view.size)))
        view = resize(view, size, preprocessing)
        least, most = (min(_frame(share, preprocessing)) for share in how.crop)
        height, width = (_draw_int(min(least, side), min(most, side)) for side in view.size)
        view = crop(view, *_place(view.size, (height, width)), (height, width))
    return _whole(view, preprocessing, how)


def _square(view: View, preprocessing: inputs.Image, how: DenseAugmentation) -> View:
    frame = _frame(how.side, preprocessing)
    jitter = draw(*how.jitter)
    axis = 0 if frame[0] * view.size[1] <= frame[1] * view.size[0] else 1  # the side that fits last
    factor = jitter * frame[axis] / view.size[axis]
    view = resize(view, scaled_size(view.size, factor), preprocessing)
    return crop(view, *_place(view.size, frame), frame)


def _window(view: View, preprocessing: inputs.Image, how: DenseAugmentation) -> View:
    factor, scale = draw(*how.jitter), _pick(how.scales)
    if isinstance(preprocessing.input_size, int):
        short, long = scale * preprocessing.input_size, preprocessing.long_side or LONGEST * preprocessing.input_size
        size = scaled_size(view.size, factor * min(short / min(view.size), long / max(view.size)))
    else:
        fitting = min(new / old for new, old in zip(preprocessing.size, view.size, strict=True))
        size = scaled_size(view.size, factor * scale * fitting)
    view, frame = resize(view, size, preprocessing), _frame(how.side, preprocessing)
    top, left = _place(view.size, frame)
    for _ in range(10):
        if view.semantic is None or how.most_of_one == 1:
            break
        labels = view.semantic[top : top + frame[0], left : left + frame[1]]
        counts = labels[labels != IGNORE].unique(return_counts=True)[1]
        if len(counts) > 1 and counts.max() < how.most_of_one * counts.sum():
            break
        top, left = _place(view.size, frame)
    return crop(view, top, left, frame)


_GEOMETRY = {"whole": _whole, "detr": _detr, "square": _square, "window": _window}


def _place(size: tuple[int, int], cut: tuple[int, int]) -> tuple[int, int]:
    return _draw_int(0, max(size[0] - cut[0], 0)), _draw_int(0, max(size[1] - cut[1], 0))


def _padded(image: Tensor, target: dict[str, Any], size: tuple[int, int]) -> Example:
    pad = (0, size[1] - image.shape[2], 0, size[0] - image.shape[1])
    if not any(pad):
        return image, target
    target = dict(target)
    if "masks" in target:
        target["masks"] = F.pad(target["masks"], pad)
    if "semantic" in target:
        target["semantic"] = F.pad(target["semantic"], pad, value=IGNORE)
    return F.pad(image, pad), target
