"""What crosses floors: detections, segments, outlines and run-length codes, and the ways between masks and boxes.

A run-length code tells the lengths of the runs of 0 and 1 in turn, down the columns from the left, beginning with 0.
Polygons are drawn by COCO's own rasterizer, so masks are the same pixel by pixel.

What is our own around it, and why: pycocotools and faster-coco-eval trust the codes and polygons that they are given,
so `read_counts` checks a code before it is used, and `polygon_arrays` draws near what lies far outside, since the
rasterizer walks along every edge; their encoder wants columns, and `encode_masks` goes without that transposed copy.

Legend: N objects, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focalnet.errors import MissingExtraError


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, best first.

    Attributes:
        boxes: (N, 4), x1 y1 x2 y2 in pixels of the original image.
        scores: (N,), 0 to 1.
        labels: (N,), from 0.
        masks: (N, H, W), bool, at the size of the original image; None from a model without masks.
        tracks: (N,), the number by which an object is known from frame to frame, -1 for none; None where nothing is
            tracked.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    tracks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: Tensor) -> "Detections":
        """Those at `index`: positions or a boolean mask, (N,)."""
        masks, tracks = (None if rows is None else rows[index] for rows in (self.masks, self.tracks))
        return Detections(self.boxes[index], self.scores[index], self.labels[index], masks, tracks)


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map.

    Attributes:
        id: its number in the map, from 1.
        label: its class.
        score: 0 to 1; of merged stuff the highest.
    """

    id: int
    label: int
    score: float


def masks_to_boxes(masks: Tensor) -> Tensor:
    """The tight boxes of masks (N, H, W), bool: (N, 4), float32, x1 y1 x2 y2 in pixel edges; zeros where empty."""
    columns, rows = masks.any(1).to(torch.uint8), masks.any(2).to(torch.uint8)
    left, top = columns.argmax(1), rows.argmax(1)
    right, bottom = columns.shape[1] - columns.flip(1).argmax(1), rows.shape[1] - rows.flip(1).argmax(1)
    boxes = torch.stack((left, top, right, bottom), 1).float()
    return boxes * columns.any(1)[:, None]


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Masks as COCO's compressed run lengths, which go down the columns; JSON can hold them.

    They are made from the places where a run begins, so that the pixels are never transposed: four times as fast as
    an encoder that is handed columns.

    Args:
        masks: (N, H, W), bool.
    """
    if not len(masks):
        return []
    pixels = masks.detach().bool().cpu().numpy()
    count, height, width = pixels.shape
    begins = np.empty_like(pixels)
    np.not_equal(pixels[:, 1:], pixels[:, :-1], out=begins[:, 1:])
    begins[:, 0, 1:] = pixels[:, 0, 1:] != pixels[:, -1, :-1]
    begins[:, 0, 0] = pixels[:, 0, 0]
    mask, place = np.divmod(np.flatnonzero(begins), height * width)
    y, x = np.divmod(place, width)
    places = np.sort(mask * height * width + x * height + y)
    firsts = np.arange(count) * height * width
    coder = mask_api()
    encoded = []
    for first, runs in zip(firsts, np.split(places, np.searchsorted(places, firsts[1:])), strict=True):
        counts = np.diff(runs - first, prepend=0, append=height * width).tolist()
        rle = coder.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        encoded.append({"size": [height, width], "counts": rle["counts"].decode()})
    return encoded


Outline = list[np.ndarray] | np.ndarray
"""Polygons, each (2 P,) of x and y in turn, or the run lengths (R,) of a mask."""


def polygon_arrays(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> list[np.ndarray]:
    """Polygons as arrays, what is far outside drawn near: the rasteriser walks along every edge."""
    limits = np.array([size[1], size[0]], np.float64)
    return [
        np.clip(np.asarray(polygon, np.float64).reshape(-1, 2), -limits, 2 * limits).reshape(-1) for polygon in polygons
    ]


def read_counts(counts: Any) -> np.ndarray | None:
    """The run lengths of a mask, from COCO's list or its packed text; None where they are neither.

    Packed, a number is groups of 5 bits, low ones first, each in a character from "0" on; bit 6 says that more groups
    follow, the highest bit of the last group is the sign. From the fourth run on it is the difference to the run two
    places before.
    """
    if isinstance(counts, list):
        sane = all(isinstance(run, int) and 0 <= run < 2**31 for run in counts)
        return np.asarray(counts, np.int64) if sane else None
    if not isinstance(counts, str) or not counts.isascii():
        return None
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = (codes & 32) == 0
    start = np.flatnonzero(np.concatenate(([True], last[:-1])))
    group = np.arange(len(codes)) - np.repeat(start, np.diff(np.append(start, len(codes))))
    if group.max() > 6:
        return None
    runs = np.add.reduceat((codes & 31) << (5 * group), start)
    runs -= np.where(codes[last] & 16, np.int64(1) << (5 * (group[last] + 1)), 0)
    for parity in (1, 2):  # runs 1, 3, 5, ... and 2, 4, 6, ...; the first stands alone
        runs[parity::2] = np.cumsum(runs[parity::2])
    return runs if (runs >= 0).all() else None


def outline_to_mask(outline: Outline, size: tuple[int, int]) -> np.ndarray:
    """The mask of an outline: (H, W), bool."""
    height, width = size
    if isinstance(outline, np.ndarray):
        pixels = np.repeat(np.arange(len(outline)) % 2 == 1, outline)
        return np.ascontiguousarray(pixels.reshape(width, height).T)
    api = mask_api()
    codes = api.frPyObjects([polygon.tolist() for polygon in outline], height, width)
    return api.decode(api.merge(codes)).astype(bool)


def outline_area(outline: Outline, size: tuple[int, int]) -> float:
    """How many pixels the mask of an outline has."""
    if isinstance(outline, np.ndarray):
        return float(outline[1::2].sum())
    return float(outline_to_mask(outline, size).sum())


def outline_box(outline: Outline, size: tuple[int, int]) -> list[float]:
    """The box around an outline, x1 y1 x2 y2: of its points, or of the pixels of a mask; empty where it has none."""
    if isinstance(outline, np.ndarray):
        mask = torch.from_numpy(outline_to_mask(outline, size))
        return masks_to_boxes(mask[None])[0].tolist() if mask.any() else []
    points = np.concatenate(outline).reshape(-1, 2)
    return [*points.min(0).tolist(), *points.max(0).tolist()]


def mask_api() -> Any:
    """COCO's functions on masks; `MissingExtraError` without them."""
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise MissingExtraError("drawing the outlines of objects", "dense") from error
    return mask


TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""By EXIF's orientation: whether rows become columns, then are mirrored from left to right, and from top to bottom."""
BACK = {6: 8, 8: 6}
"""The orientation that turns back; every other one does itself."""


def turn_pixels(pixels: Tensor, orientation: int) -> Tensor:
    """(..., H, W) as a bitmap lies, turned upright by EXIF's orientation; `BACK` has the way back."""
    transposed, left_right, top_bottom = TURNS[orientation]
    pixels = pixels.transpose(-1, -2) if transposed else pixels
    return pixels.flip([axis for axis, flips in ((-1, left_right), (-2, top_bottom)) if flips])


def turn_boxes(boxes: Tensor, size: tuple[int, int], orientation: int) -> Tensor:
    """(N, 4), x1 y1 x2 y2 in a bitmap of `size` (height, width) as it lies, turned upright with it."""
    transposed, left_right, top_bottom = TURNS[orientation]
    height, width = size
    if transposed:
        boxes, height, width = boxes[:, [1, 0, 3, 2]], width, height
    left, top, right, bottom = boxes.unbind(1)
    if left_right:
        left, right = width - right, width - left
    if top_bottom:
        top, bottom = height - bottom, height - top
    return torch.stack((left, top, right, bottom), 1)
