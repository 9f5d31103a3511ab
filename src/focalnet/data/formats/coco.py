"""COCO's JSON: objects with boxes and outlines.

    images[]        id, file_name, width, height
    annotations[]   id, image_id, category_id, bbox [x, y, width, height], area, iscrowd, segmentation
    categories[]    id, name

A segmentation is a list of polygons [x, y, x, y, ...], or a run-length code {"size": [h, w], "counts": ...}: the
lengths of runs of 0 and 1 in turn down the columns, as a list or packed into text. Polygons are drawn by COCO's own
rasteriser, so masks are the same pixel by pixel.

Labels are the categories in the order of their ids, counted from 0; results are written with the ids of the file,
numbers or texts. What is missing is made from what is there: `bbox` and `area` from the outline, width and height from
the file. What is broken is counted and left out, or mended where that is said. Objects whose outline is missing or
broken keep their box. The ids of annotations are read by nothing, and may repeat. Boxes that reach over the edge by up
to a pixel are COCO's own rounding and stay as they are.

A crowd (`iscrowd` 1) is a region of many objects in COCO, but every mask that was painted with a brush in other tools:
`Request.crowd` says which; without it they are regions, and objects where a file has nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from focalnet.data.base import DenseSample, Load, Openers, Request, Split
from focalnet.data.formats.coco_files import (
    Found,
    Ids,
    categories,
    find_images,
    find_json,
    is_json,
    listed,
    load_json,
    read_flag,
    read_id,
)
from focalnet.data.problems import Problems, number
from focalnet.data.sizes import Fit, read_size
from focalnet.errors import UserError
from focalnet.inputs.image import BadImageError, load_image
from focalnet.reading import shown
from focalnet.structures import (
    Outline,
    mask_api,
    outline_area,
    outline_box,
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
    outlines: list[Outline | None]
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

    def read(self, entry: Record, load: Load = load_image) -> DenseSample:
        image = load(entry.path)
        height, width = Fit(entry.size, entry.orientation).upright
        if (image.height, image.width) != (height, width):
            raise BadImageError(
                f"{entry.path} is {image.width} x {image.height} pixels, its annotations say {width} x {height}."
            )
        masks, outlined = None, None
        if self.masks:
            masks = torch.zeros(len(entry.labels), *entry.size, dtype=torch.bool)
            for index, outline in enumerate(entry.outlines):
                if outline is not None:
                    masks[index] = torch.from_numpy(outline_to_mask(outline, entry.size))
            masks = turn_pixels(masks, entry.orientation)
            known = [outline is not None for outline in entry.outlines]
            outlined = None if all(known) else torch.tensor(known)
        return DenseSample(
            image=image,
            path=entry.path,
            boxes=turn_boxes(torch.from_numpy(entry.boxes.copy()), entry.size, entry.orientation),
            labels=torch.from_numpy(entry.labels.copy()),
            masks=masks,
            outlined=outlined,
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
    return find_json(source, "instances", partial(open_coco, request=request, learned=[]))


def open_coco(annotations: Path, folders: Sequence[Path], request: Request, learned: list[bool]) -> Split:
    """Open one JSON file with its images; nothing is decoded yet.

    Args:
        annotations: the JSON file.
        folders: where the images may lie.
        request: outlines are read only if they are wanted and some object has one.
        learned: whether crowds were taken for objects in the splits opened before; this one's answer is added.

    Raises:
        UserError: no COCO file, no image of it is there, or masks are wanted and a package for them is missing.
    """
    content, problems = load_json(annotations, ("images", "annotations", "categories")), request.problems
    notes = [note for note in content["annotations"] if isinstance(note, dict)]
    rows = categories(content, annotations, problems, (note.get("category_id") for note in notes))
    masks = request.masks and any(note.get("segmentation") for note in notes)
    if masks:
        mask_api()
    entries = find_images(content, annotations, folders, problems)
    by_image = _by_image(content, Ids(row.id for row in rows), listed(content), problems)
    labels = {row.id: label for label, row in enumerate(rows)}
    records = []
    for image_id, found in entries.items():
        notes = [note for one in (image_id, *found.also) for note in by_image.get(one, [])]
        for other in found.also:
            kind = "images that are listed under two ids, whose annotations are taken together"
            problems.note(kind, f"{found.path} ({image_id} and {other})")
        objects = [_object(note, label, found.size, masks, problems) for note, label in notes]
        records.append(_record(found, image_id, [one for one in objects if one], labels))
    _check_pixels(records, annotations)
    if _learn_crowds(records, request, any(learned)):
        records = [record._replace(crowd=np.zeros_like(record.crowd)) for record in records]
        learned.append(True)
    return Split(
        reader=Objects(masks), entries=records, classes=tuple(row.name for row in rows), things=(True,) * len(rows),
        sizes=[Fit(record.size, record.orientation).upright for record in records],
        labels=[record.labels.tolist() for record in records], crowd=[record.crowd for record in records],
        category_ids=tuple(labels),
    )  # fmt: skip


def _check_pixels(records: Sequence[Record], annotations: Path) -> None:
    """Refuse a file whose boxes all lie within the first pixel."""
    if 0 < max((record.boxes.max(initial=0) for record in records), default=0) <= 1:
        raise UserError(
            f"{annotations} has no box beyond the first pixel of an image: its coordinates are shares of the sides, "
            "and COCO's are pixels. Multiply x and width by the image's width, y and height by its height."
        )


def _learn_crowds(records: Sequence[Record], request: Request, learned: bool) -> bool:
    """Whether crowds are objects: as asked for, as in the split before, or because there is nothing else."""
    crowds = [(int(record.crowd.sum()), record.path) for record in records if record.crowd.any()]
    if not crowds:
        return False
    count, first = sum(many for many, _ in crowds), crowds[0][1]
    alone = count == sum(len(record.crowd) for record in records)
    if request.crowd == "learn" or (request.crowd is None and (alone or learned)):
        why = "" if request.crowd else ", as there is nothing else" if alone else ", as in the other split"
        request.problems.note(f"annotations with iscrowd 1, taken for objects{why}", first, count=count)
        return True
    advice = "" if request.crowd else " (single objects painted with a brush? --crowd learn)"
    request.problems.note(f"annotations with iscrowd 1, regions that are not learned{advice}", first, count=count)
    return False


def _by_image(
    content: Mapping[str, Any], categories: Ids, images: Ids, problems: Problems
) -> dict[Any, list[tuple[dict[str, Any], int | str]]]:
    """Annotations by image with their category, without those that refer to nothing, or are there twice."""
    found: dict[Any, list[tuple[dict[str, Any], int | str]]] = {}
    seen: dict[Any, Any] = {}
    again: dict[Any, list[Any]] = {}
    for place, note in enumerate(content["annotations"]):
        if not isinstance(note, dict):
            kind = "annotations that are no JSON, left out"
            problems.add(kind, f"annotations[{place}]", lost="annotations")
            continue
        own = read_id(note.get("id"))
        example = f"annotation {f'[{place}]' if own is None else own}"
        image, category = images.find(note.get("image_id")), categories.find(note.get("category_id"))
        first = seen.setdefault((image, str(note.get("bbox"))) if own is None else own, note)
        alike = [] if first is note else again.setdefault((image, own), [first])
        if image is None:
            what = f"{example}, image {shown(note.get('image_id'))}"
            problems.add("annotations of an unknown image, left out", what, lost="annotations")
        elif category is None:
            what = f"{example}, category {shown(note.get('category_id'))}"
            problems.add("annotations of an unknown category, left out", what, lost="annotations")
        elif note in alike:
            problems.add("annotations that are there twice, once left out", example)
        else:
            if own is not None and first is not note:
                problems.note("annotations whose id another has too, which nothing reads", example)
            found.setdefault(image, []).append((note, category))
        alike.append(note)
    return found


class _Object(NamedTuple):
    box: tuple[float, float, float, float]
    category: int | str
    crowd: bool
    area: float
    outline: Outline | None


def _object(
    note: Mapping[str, Any], category: int | str, size: tuple[int, int], masks: bool, problems: Problems
) -> _Object | None:
    example = f"annotation {note.get('id')}"
    box, area, segmentation = _numbers(note.get("bbox")), _number(note.get("area")), note.get("segmentation")
    if len(box) == 4:
        box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    outline = None
    if segmentation and (masks or len(box) != 4 or area is None):
        outline = _outline(segmentation, size, example, problems)
    elif masks:
        problems.note("objects with a box and no outline, good for boxes alone", example)
    if len(box) != 4:
        there = note.get("bbox") not in (None, [])
        if outline is None or len(box := outline_box(outline, size)) != 4:
            kind = "annotations without four numbers as bbox" + ("" if segmentation else " and without an outline")
            problems.add(f"{kind}, left out", example, lost="annotations")
            return None
        if there:
            problems.add("annotations without four numbers as bbox, which is made from the outline", example)
        else:
            problems.note("annotations without bbox, which is made from the outline", example)
    corners = clip_box((box[0], box[1], box[2], box[3]), size, example, problems)
    if corners is None:
        return None
    if area is None or area < 0:
        area = (corners[2] - corners[0]) * (corners[3] - corners[1])
        if outline is not None:
            area = outline_area(outline, size) or area
    crowd = read_flag(note.get("iscrowd"))
    return _Object(corners, category, crowd, area, outline if masks else None)


def _number(value: Any) -> float | None:
    """What `number` reads, if it can be a coordinate or an area."""
    read = number(value)
    return read if read is not None and abs(read) < LARGEST else None


def _numbers(values: Any) -> list[float]:
    """Numbers of a list; none where one of them is not."""
    read = [_number(value) for value in values] if isinstance(values, list) else []
    return [] if None in read else [value for value in read if value is not None]


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
        said = read_size(*segmentation["size"][:2]) if _pair(segmentation.get("size")) else None
        if said != size:
            kind = "run-length codes of another size than the image, only the box kept"
            problems.add(kind, f"{example}, {shown(segmentation.get('size'))} not {list(size)}")
            return None
        counts = read_counts(segmentation.get("counts"))
        if counts is None or counts.sum() != size[0] * size[1]:
            problems.add("run-length codes that do not fill the image, only the box kept", example)
            return None
        return counts
    polygons = segmentation if isinstance(segmentation, list) else []
    if all(isinstance(value, int | float) for value in polygons):  # one polygon, not in a list of its own
        polygons = [polygons]
    elif len(polygons) > 2 and all(map(_pair, polygons)):  # one polygon of points
        polygons = [[value for point in polygons for value in point]]
    sane = [numbers for polygon in polygons if len(numbers := _numbers(polygon)) >= 6 and len(numbers) % 2 == 0]
    if not sane:
        problems.add("outlines of less than three points, only the box kept", example)
        return None
    return polygon_arrays(sane, size)


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _record(found: Found, image_id: int | str, objects: Sequence[_Object], labels: Mapping[int | str, int]) -> Record:
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
