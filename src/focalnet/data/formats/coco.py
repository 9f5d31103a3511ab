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

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from focalnet.data.dense import Complaints, Scene, Side, some
from focalnet.errors import UserError
from focalnet.inputs.image import BadImageError, load_image
from focalnet.structures import Outline, mask_api, outline_to_mask, polygon_arrays, read_counts

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


@dataclass(frozen=True)
class Objects:
    """Reads images with objects from files; `where` is a `Record`.

    Attributes:
        masks: whether the objects have outlines.
    """

    masks: bool

    def name(self, where: Record) -> str:
        return where.path

    def read(self, where: Record) -> Scene:
        image = load_image(where.path)
        if (image.height, image.width) != where.size:
            height, width = where.size
            raise BadImageError(
                f"{where.path} is {image.width} x {image.height} pixels, its annotations say {width} x {height}."
            )
        masks = None
        if self.masks:
            masks = torch.zeros(len(where.labels), *where.size, dtype=torch.bool)
            for index, outline in enumerate(where.outlines):
                masks[index] = torch.from_numpy(outline_to_mask(outline, where.size))
        return Scene(
            image=image,
            path=where.path,
            boxes=torch.from_numpy(where.boxes.copy()),
            labels=torch.from_numpy(where.labels.copy()),
            masks=masks,
            crowd=torch.from_numpy(where.crowd.copy()),
            area=torch.from_numpy(where.area.copy()),
            semantic=None,
            image_id=where.image_id,
        )


def open_coco(annotations: Path, folders: Sequence[Path], complaints: Complaints, *, masks: bool) -> Side:
    """Open one JSON file with its images; nothing is decoded yet.

    Args:
        annotations: the JSON file.
        folders: where the images may lie.
        complaints: takes in what is wrong.
        masks: whether outlines are wanted. They are read only if some object has one.

    Raises:
        UserError: no COCO file, no image of it is there, or masks are wanted and a package for them is missing.
    """
    content = load_json(annotations, ("images", "annotations", "categories"))
    labels, classes = categories(content, annotations)
    masks = masks and any(isinstance(note, dict) and note.get("segmentation") for note in content["annotations"])
    if masks:
        mask_api()
    entries = pictures(content, annotations, folders, complaints)
    notes = _notes(content, labels, listed(content), complaints)
    records = []
    for image_id, (path, size) in entries.items():
        objects = [_object(note, size, masks, complaints) for note in notes.get(image_id, [])]
        records.append(_record(path, image_id, size, [found for found in objects if found], labels))
    used = frozenset(classes[label] for record in records for label in set(record.labels.tolist()))
    return Side(Objects(masks), records, classes, (True,) * len(classes), [record.size for record in records], used)


def load_json(path: Path, fields: Sequence[str]) -> dict[str, Any]:
    """The content of a JSON file, which must be an object with lists under `fields`."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path.absolute()} cannot be read ({error.strerror}): check the path.") from error
    except ValueError as error:
        raise UserError(f"{path.absolute()} is no JSON ({error}): was it copied completely?") from error
    if missing := [name for name in fields if not isinstance(content, dict) or not isinstance(content.get(name), list)]:
        raise UserError(f"{path.absolute()} has no list {missing[0]!r}: give a COCO file with {', '.join(fields)}.")
    return content


def categories(content: Mapping[str, Any], path: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    """Category id to label, and the class names: the categories in the order of their ids."""
    entries = content["categories"]
    sane = [
        e for e in entries if isinstance(e, dict) and isinstance(e.get("id"), int) and isinstance(e.get("name"), str)
    ]
    if len(sane) < len(entries):
        raise UserError(f"{path.absolute()} has a category without a whole number as id or a name: mend categories[].")
    entries = sorted(sane, key=lambda entry: entry["id"])
    ids, names = [entry["id"] for entry in entries], tuple(entry["name"] for entry in entries)
    for what, values in (("id", ids), ("name", names)):
        if twice := [value for value in values if values.count(value) > 1]:
            raise UserError(f"{path.absolute()} has two categories of the {what} {twice[0]!r}: rename or merge them.")
    if not names:
        raise UserError(f"{path.absolute()} has no categories: add them with their ids and names.")
    return {number: label for label, number in enumerate(ids)}, names


def pictures(
    content: Mapping[str, Any], path: Path, folders: Sequence[Path], complaints: Complaints
) -> dict[int | str, tuple[str, tuple[int, int]]]:
    """Image id to file and (height, width), for the images that are there, in the order of the file."""
    entries: dict[int | str, Mapping[str, Any]] = {}
    for entry in content["images"]:
        if not isinstance(entry, dict) or not _sane_picture(entry):
            complaints.add("images without id, file_name, width or height, left out", str(entry)[:80])
        elif entry["id"] in entries:
            complaints.add("images of an id that another has, left out", f"{entry['file_name']} ({entry['id']})")
        else:
            entries[entry["id"]] = entry
    names = [entry["file_name"] for entry in entries.values()]
    looked_at = some(names)
    root = max(folders, key=lambda folder: sum((folder / name).is_file() for name in looked_at))
    found: dict[int | str, tuple[str, tuple[int, int]]] = {}
    for number, entry in entries.items():
        file = os.path.join(root, entry["file_name"])
        if os.path.isfile(file):
            found[number] = (file, (entry["height"], entry["width"]))
        else:
            complaints.add("missing images, left out", entry["file_name"])
    if not found:
        places = " or ".join(str(folder.absolute()) for folder in folders)
        first = f"; the first is {names[0]}" if names else ""
        raise UserError(f"No image of {path.absolute()} is in {places}{first}: put them there.")
    return found


def listed(content: Mapping[str, Any]) -> set[int | str]:
    """The ids of all images in the file, be they there or not."""
    return {entry["id"] for entry in content["images"] if isinstance(entry, dict) and is_id(entry.get("id"))}


def is_id(value: Any) -> bool:
    """Whether a value of JSON can name something."""
    return isinstance(value, int | str)


def _sane_picture(entry: Mapping[str, Any]) -> bool:
    sides = (entry.get("width"), entry.get("height"))
    return (
        is_id(entry.get("id"))
        and isinstance(entry.get("file_name"), str)
        and all(isinstance(side, int) and side > 0 for side in sides)
    )


def _notes(
    content: Mapping[str, Any], labels: Mapping[int, int], pictures: set[int | str], complaints: Complaints
) -> dict[Any, list[dict[str, Any]]]:
    """Annotations by image, without those that refer to nothing."""
    notes: dict[Any, list[dict[str, Any]]] = {}
    seen = set()
    for place, note in enumerate(content["annotations"]):
        if not isinstance(note, dict):
            complaints.add("annotations that are no objects of JSON, left out", f"annotations[{place}]")
            continue
        number, picture, category = note.get("id"), note.get("image_id"), note.get("category_id")
        number = number if is_id(number) else f"[{place}]"
        example = f"annotation {number}"
        if number in seen:
            complaints.add("annotations of an id that another has, left out", example)
        elif not is_id(picture) or picture not in pictures:
            complaints.add("annotations of an unknown image, left out", f"{example}, image {picture}")
        elif not isinstance(category, int) or category not in labels:
            complaints.add("annotations of an unknown category, left out", f"{example}, category {category}")
        else:
            notes.setdefault(picture, []).append(note)
        seen.add(number)
    return notes


class _Object(NamedTuple):
    box: tuple[float, float, float, float]
    category: int
    crowd: bool
    area: float
    outline: Outline


def _object(note: Mapping[str, Any], size: tuple[int, int], masks: bool, complaints: Complaints) -> _Object | None:
    example = f"annotation {note.get('id')}"
    box = note.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        complaints.add("annotations without four numbers as bbox, left out", example)
        return None
    corners = clip_box((box[0], box[1], box[0] + box[2], box[1] + box[3]), size, example, complaints)
    if corners is None:
        return None
    outline = _outline(note.get("segmentation"), size, example, complaints) if masks else []
    if outline is None:
        return None
    area: Any = note.get("area")
    if not _is_number(area):
        area = (corners[2] - corners[0]) * (corners[3] - corners[1])
    return _Object(corners, note["category_id"], bool(note.get("iscrowd", 0)), float(area), outline)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < LARGEST  # which nan is not


def clip_box(
    box: tuple[float, float, float, float], size: tuple[int, int], example: str, complaints: Complaints
) -> tuple[float, float, float, float] | None:
    """The part of a box inside the image; None where nothing is left.

    Args:
        box: x1 y1 x2 y2 in pixels.
        size: (height, width).
        example: what to call it.
        complaints: takes in boxes that reach over the edge by more than a pixel, or have no area.
    """
    left, top, right, bottom = box
    height, width = size
    if not (right > left and bottom > top):
        complaints.add("boxes of no area, left out", example)
        return None
    if left < -SLACK or top < -SLACK or right > width + SLACK or bottom > height + SLACK:
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if not (right > left and bottom > top):
            complaints.add("boxes outside the image, left out", example)
            return None
        complaints.add("boxes that reach out of the image, clipped", example)
    return left, top, right, bottom


def _outline(segmentation: Any, size: tuple[int, int], example: str, complaints: Complaints) -> Outline | None:
    if isinstance(segmentation, dict):
        if segmentation.get("size") != list(size):
            kind = "run-length codes of another size than the image, left out"
            complaints.add(kind, f"{example}, {segmentation.get('size')} not {list(size)}")
            return None
        counts = read_counts(segmentation.get("counts"))
        if counts is None or counts.sum() != size[0] * size[1]:
            complaints.add("run-length codes that do not fill the image, left out", example)
            return None
        return counts
    polygons = segmentation if isinstance(segmentation, list) else []
    sane = [p for p in polygons if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(map(_is_number, p))]
    if not sane:
        complaints.add("objects without an outline of three points, left out", example)
        return None
    return polygon_arrays(sane, size)


def _record(
    path: str, image_id: int | str, size: tuple[int, int], objects: Sequence[_Object], labels: Mapping[int, int]
) -> Record:
    return Record(
        path=path,
        image_id=image_id,
        size=size,
        boxes=np.array([found.box for found in objects], np.float32).reshape(-1, 4),
        labels=np.array([labels[found.category] for found in objects], np.int64),
        crowd=np.array([found.crowd for found in objects], bool),
        area=np.array([found.area for found in objects], np.float32),
        outlines=[found.outline for found in objects],
    )
