"""A caller's own transform of training samples, before they are resized and normalized.

    a class           transform(image) -> image
    dense samples     transform(image, target) -> image, target          as torchvision.transforms.v2 calls them

The image is a PIL image (a tensor where it has other than three channels); what comes back may be a PIL image, an array
(H, W, 3) or a tensor (3, H, W), of uint8 or of floats from 0 to 1. `target` has `boxes`, `labels`, and where there are
some `masks` and `semantic`, as `tv_tensors`, so that every transform of torchvision keeps them in step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from focalnet.data.base import DenseSample, Load, Sample
from focalnet.data.transforms.geometry import start
from focalnet.errors import UserError

Transform = Callable[..., Any]


def apply_transform(sample: Any, transform: Transform, read: Load) -> Any:
    """The sample after a caller's transform.

    Args:
        sample: a `Sample` or a `DenseSample`.
        transform: see the text of the module.
        read: makes a signal of what it gives, as the network takes it.

    Raises:
        UserError: the transform gives something else than an image and what is on it.
    """
    if isinstance(sample, Sample):
        return replace(sample, signal=_image(transform(sample.signal), read))
    return _dense(sample, transform, read)


def _image(result: Any, read: Load) -> Any:
    if isinstance(result, Tensor) and result.is_floating_point() and len(result) and result.min() < 0:
        raise UserError("the transform gives normalized values; leave Normalize out, it is done for you.")
    if isinstance(result, str | bytes) or result is None:
        raise UserError(f"the transform gives {type(result).__name__}, wanted is an image: PIL, an array or a tensor.")
    return read(result)


def _dense(sample: DenseSample, transform: Transform, read: Load) -> DenseSample:
    from torchvision.tv_tensors import BoundingBoxes, Mask

    view = start(sample)
    place: Any = {"format": "XYXY", "canvas_size": view.size}
    target: dict[str, Any] = {"boxes": BoundingBoxes(view.boxes, **place), "labels": view.labels}
    maps = {"masks": view.masks, "semantic": view.semantic}
    target |= {name: Mask(value) for name, value in maps.items() if value is not None}
    image, after = _pair(transform(sample.image, dict(target)), list(target))
    image, changed = _image(image, read), {name: _plain(after[name]) for name in target}
    size = (image.height, image.width)
    counts = {name: len(changed[name]) for name in ("boxes", "labels", "masks") if name in changed}
    wrong = [name for name in ("masks", "semantic") if name in changed and tuple(changed[name].shape[-2:]) != size]
    if len(set(counts.values())) > 1 or wrong:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UserError(f"the transform gives {told} for an image of {size[1]}x{size[0]}; they must keep in step.")
    boxes, masks = changed["boxes"].float(), changed.get("masks")
    masks = None if masks is None else masks.bool()
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return replace(
        sample, image=image, boxes=boxes, labels=changed["labels"].long(), masks=masks,
        crowd=torch.zeros(len(boxes), dtype=torch.bool), area=sides.prod(1), semantic=changed.get("semantic"),
        outlined=None if sample.outlined is None or masks is None else masks.flatten(1).any(1),
    )  # fmt: skip


def _pair(result: Any, names: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    match result:
        case (image, Mapping() as target) if all(name in target for name in names):
            return image, target
    raise UserError(
        f"the transform gives {type(result).__name__}; wanted are an image and its target, with {', '.join(names)}."
    )


def _plain(value: Any) -> Tensor:
    return value.as_subclass(Tensor) if isinstance(value, Tensor) else torch.as_tensor(value)
