"""Outlines of objects to masks: polygons and COCO's run-length codes.

A run-length code tells the lengths of the runs of 0 and 1 in turn, down the columns from the left, beginning with 0.
Polygons are drawn by COCO's own rasteriser, so masks are the same pixel by pixel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from focalnet.errors import MissingExtraError

Outline = list[np.ndarray] | np.ndarray
"""Polygons, each (2 P,) of x and y in turn, or the run lengths (R,) of a mask."""


def polygon_arrays(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> list[np.ndarray]:
    """Polygons as arrays, what is far outside drawn near: the rasteriser walks along every edge."""
    limits = np.array([size[1], size[0]], np.float64)
    return [
        np.clip(np.asarray(polygon, np.float64).reshape(-1, 2), -limits, 2 * limits).reshape(-1) for polygon in polygons
    ]


def run_lengths(counts: Any) -> np.ndarray | None:
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


def draw(outline: Outline, size: tuple[int, int]) -> np.ndarray:
    """The mask of an outline: (H, W), bool."""
    height, width = size
    if isinstance(outline, np.ndarray):
        pixels = np.repeat(np.arange(len(outline)) % 2 == 1, outline)
        return np.ascontiguousarray(pixels.reshape(width, height).T)
    api = mask_api()
    codes = api.frPyObjects([polygon.tolist() for polygon in outline], height, width)
    return api.decode(api.merge(codes)).astype(bool)


def mask_api() -> Any:
    """COCO's functions on masks; `MissingExtraError` without them."""
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise MissingExtraError("drawing the outlines of objects", "dense") from error
    return mask
