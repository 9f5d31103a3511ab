"""COCO's JSON: objects with boxes and outlines.

    images[]        id, file_name, width, height
    annotations[]   id, image_id, category_id, bbox [x, y, width, height], area, iscrowd, segmentation
    categories[]    id, name

A segmentation is a list of polygons [x, y, x, y, ...], or a run-length code {"size": [h, w], "counts": ...}: the
lengths of runs of 0 and 1 in turn down the columns, as a list or packed into text. Polygons are drawn by COCO's own
rasteriser, so masks are the same pixel by pixel.

Labels are the categories in the order of their ids, counted from 0; the ids (COCO's go from 1 to 90 with gaps) stay
out of the library. What is broken is counted and left out, or mended where that is said; see `_objects`. Boxes that
reach over the edge by up to a pixel are COCO's own rounding and stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from focalnet.data.base import DenseSample, Openers, Request, Split
from focalnet.data.formats.coco_files import (
    Found,
    categories,
    find_images,
    find_json,
    is_id,
    is_json,
    listed,
    load_json,
)
from focalnet.data.problems import Problems
from focalnet.data.sizes import Fit
from focalnet.inputs.image import BadImageError, load_image
from focalnet.structures import (
    Outline,
    mask_api,
    outline_to_mask,
    polygon_arrays,
    read_counts,
    turn_boxes,
    turn_pixels,
)

LARGEST = 1e9
"""Numbers from here on are no coordinates or areas."""
SLACK = 1.0
"""Pixels by which a box may reach over the edge."""


class Record(NamedTuple):
    """One image and its N objects, as the file has them."""

    path: str
    image_id: int | str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    outlines: list[Outline]
    orientation: int = 1


@dataclass(frozen=True)
class Objects:
    """Reads images with objects from files; an entry is a `Record`.

    Attributes:
        masks: whether the objects have outlines.
    """

    masks: bool

    def name(self, entry: Record) -> str:
        return entry.path

    def read(self, entry: Record) -> DenseSample:
        image = load_image(entry.path)
        height, width = Fit(entry.size, entry.orientation).upright
        if (image.height, image.width) != (height, width):
            raise BadImageError(
                f"{entry.path} is {image.width} x {image.height} pixels, its annotations say {width} x {height}."
            )
        masks = None
        if self.masks:
            masks = torch.zeros(len(entry.labels), *entry.size, dtype=torch.bool)
            for index, outline in enumerate(entry.outlines):
                masks[index] = torch.from_numpy(outline_to_mask(outline, entry.size))
            masks = turn_pixels(masks, entry.orientation)
        return DenseSample(
            image=image,
            path=entry.path,
            boxes=turn_boxes(torch.from_numpy(entry.boxes.copy()), entry.size, entry.orientation),
            labels=torch.from_numpy(entry.labels.copy()),
            masks=masks,
            crowd=torch.from_numpy(entry.crowd.copy()),
            area=torch.from_numpy(entry.area.copy()),
            semantic=None,
            image_id=entry.image_id,
            orientation=entry.orientation,
        )


def is_coco(source: str) -> bool:
    """Whether a source is a JSON file, or has one of objects, COCO's or Roboflow's."""
    return is_json(source, "instances")


def find_coco(source: str, request: Request) -> Openers:
    """Find the JSON files of a folder, or take the one that the source is; see `coco_files.py`."""
    return find_json(source, "instances", partial(open_coco, problems=request.problems, masks=request.masks))


def open_coco(annotations: Path, folders: Sequence[Path], problems: Problems, *, masks: bool) -> Split:
    """Open one JSON file with its images; nothing is decoded yet.

    Args:
        annotations: the JSON file.
        folders: where the images may lie.
        problems: takes in what is wrong.
        masks: whether outlines are wanted. They are read only if some object has one.

    Raises:
        UserError: no COCO file, no image of it is there, or masks are wanted and a package for them is missing.
    """
    content = load_json(annotations, ("images", "annotations", "categories"))
    labels, classes = categories(content, annotations)
    masks = masks and any(isinstance(note, dict) and note.get("segmentation") for note in content["annotations"])
    if masks:
        mask_api()
    entries = find_images(content, annotations, folders, problems)
    notes = _notes(content, labels, listed(content), problems)
    records = []
    for image_id, found in entries.items():
        objects = [_object(note, found.size, masks, problems) for note in notes.get(image_id, [])]
        records.append(_record(found, image_id, [one for one in objects if one], labels))
    return Split(
        reader=Objects(masks), entries=records, classes=classes, things=(True,) * len(classes),
        sizes=[Fit(record.size, record.orientation).upright for record in records],
        labels=[record.labels.tolist() for record in records], crowd=[record.crowd for record in records],
        category_ids=tuple(labels),
    )  # fmt: skip


def _notes(
    content: Mapping[str, Any], labels: Mapping[int, int], images: set[int | str], problems: Problems
) -> dict[Any, list[dict[str, Any]]]:
    """Annotations by image, without those that refer to nothing."""
    notes: dict[Any, list[dict[str, Any]]] = {}
    seen = set()
    for place, note in enumerate(content["annotations"]):
        if not isinstance(note, dict):
            problems.add(
                "annotations that are no objects of JSON, left out", f"annotations[{place}]", lost="annotations"
            )
            continue
        number, image, category = note.get("id"), note.get("image_id"), note.get("category_id")
        number = number if is_id(number) else f"[{place}]"
        example = f"annotation {number}"
        if number in seen:
            problems.add("annotations of an id that another has, left out", example, lost="annotations")
        elif not is_id(image) or image not in images:
            problems.add("annotations of an unknown image, left out", f"{example}, image {image}", lost="annotations")
        elif not isinstance(category, int) or category not in labels:
            problems.add(
                "annotations of an unknown category, left out", f"{example}, category {category}", lost="annotations"
            )
        else:
            notes.setdefault(image, []).append(note)
        seen.add(number)
    return notes


class _Object(NamedTuple):
    box: tuple[float, float, float, float]
    category: int
    crowd: bool
    area: float
    outline: Outline


def _object(note: Mapping[str, Any], size: tuple[int, int], masks: bool, problems: Problems) -> _Object | None:
    example = f"annotation {note.get('id')}"
    box = note.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        problems.add("annotations without four numbers as bbox, left out", example, lost="annotations")
        return None
    corners = clip_box((box[0], box[1], box[0] + box[2], box[1] + box[3]), size, example, problems)
    if corners is None:
        return None
    outline = _outline(note.get("segmentation"), size, example, problems) if masks else []
    if outline is None:
        return None
    area: Any = note.get("area")
    if not _is_number(area):
        area = (corners[2] - corners[0]) * (corners[3] - corners[1])
    return _Object(corners, note["category_id"], bool(note.get("iscrowd", 0)), float(area), outline)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < LARGEST  # which nan is not


def clip_box(
    box: tuple[float, float, float, float], size: tuple[int, int], example: str, problems: Problems
) -> tuple[float, float, float, float] | None:
    """The part of a box inside the image; None where nothing is left.

    Args:
        box: x1 y1 x2 y2 in pixels.
        size: (height, width).
        example: what to call it.
        problems: takes in boxes that reach over the edge by more than a pixel, or have no area.
    """
    left, top, right, bottom = box
    height, width = size
    if not (right > left and bottom > top):
        problems.add("boxes of no area, left out", example, lost="annotations")
        return None
    if left < -SLACK or top < -SLACK or right > width + SLACK or bottom > height + SLACK:
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if not (right > left and bottom > top):
            problems.add("boxes outside the image, left out", example, lost="annotations")
            return None
        problems.add("boxes that reach out of the image, clipped", example)
    return left, top, right, bottom


def _outline(segmentation: Any, size: tuple[int, int], example: str, problems: Problems) -> Outline | None:
    if isinstance(segmentation, dict):
        if segmentation.get("size") != list(size):
            kind = "run-length codes of another size than the image, left out"
            problems.add(kind, f"{example}, {segmentation.get('size')} not {list(size)}", lost="annotations")
            return None
        counts = read_counts(segmentation.get("counts"))
        if counts is None or counts.sum() != size[0] * size[1]:
            problems.add("run-length codes that do not fill the image, left out", example, lost="annotations")
            return None
        return counts
    polygons = segmentation if isinstance(segmentation, list) else []
    sane = [p for p in polygons if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(map(_is_number, p))]
    if not sane:
        problems.add("objects without an outline of three points, left out", example, lost="annotations")
        return None
    return polygon_arrays(sane, size)


def _record(found: Found, image_id: int | str, objects: Sequence[_Object], labels: Mapping[int, int]) -> Record:
    return Record(
        path=found.path,
        image_id=image_id,
        size=found.size,
        orientation=found.orientation,
        boxes=np.array([one.box for one in objects], np.float32).reshape(-1, 4),
        labels=np.array([labels[one.category] for one in objects], np.int64),
        crowd=np.array([one.crowd for one in objects], bool),
        area=np.array([one.area for one in objects], np.float32),
        outlines=[one.outline for one in objects],
    )
