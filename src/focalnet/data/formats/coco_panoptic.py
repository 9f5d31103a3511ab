"""COCO's panoptic format: one JSON file, and one PNG file of segment ids per image.

    annotations[]   image_id, file_name (of the PNG), segments_info[]: id, category_id, iscrowd, area
    categories[]    id, name, isthing
    PNG             id = R + 256 G + 65536 B; 0 is void

Labels are the categories in the order of their ids. Every segment becomes an object, things and stuff alike. Ids of
the PNG that `segments_info` does not list become void, as 0 is; segments that no pixel has are left out. Some PNG files
of each split are searched for both when the data is opened.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from focalnet.data.base import IGNORE, DenseSample, Load, Openers, Request, Split
from focalnet.data.formats.coco_files import (
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
from focalnet.data.problems import Problems, preview, some, whole
from focalnet.data.sizes import Fit
from focalnet.errors import UserError
from focalnet.inputs.folders import is_file, locate
from focalnet.inputs.image import BadImageError, NotIdsError, load_image, size_of
from focalnet.structures import masks_to_boxes, turn_pixels

log = logging.getLogger(__name__)


class Segments(NamedTuple):
    """One image and its N segments, as the file has them."""

    path: str
    image_id: int | str
    png: str
    size: tuple[int, int]
    ids: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    orientation: int = 1


@dataclass(frozen=True)
class PanopticFiles:
    """Reads images with their PNG of segments; an entry is a `Segments`."""

    def name(self, entry: Segments) -> str:
        return entry.path

    def read(self, entry: Segments, load: Load = load_image) -> DenseSample:
        image = load(entry.path)
        ids = turn_pixels(torch.from_numpy(segment_ids(entry.png)), entry.orientation)
        if ids.shape != (image.height, image.width):
            height, width = ids.shape
            raise BadImageError(
                f"{entry.path} is {image.width} x {image.height} pixels, its segments {entry.png} {width} x {height}."
            )
        masks = ids == torch.from_numpy(entry.ids)[:, None, None]
        there = masks.any(2).any(1)
        if not there.all():
            log.debug("%s: %d segments without a pixel left out", entry.png, int((~there).sum()))
        masks, labels = masks[there], torch.from_numpy(entry.labels)[there]
        crowd = torch.from_numpy(entry.crowd)[there]
        semantic = torch.full(ids.shape, IGNORE, dtype=torch.uint8)
        for mask, label, is_crowd in zip(masks, labels.tolist(), crowd.tolist(), strict=True):
            if not is_crowd:
                semantic[mask] = label
        return DenseSample(
            image=image,
            path=entry.path,
            boxes=masks_to_boxes(masks),
            labels=labels,
            masks=masks,
            crowd=crowd,
            area=masks.sum((1, 2)).float(),
            semantic=semantic,
            image_id=entry.image_id,
            orientation=entry.orientation,
        )


def segment_ids(path: str) -> np.ndarray:
    """The id of each pixel of a PNG of segments: (H, W), int64.

    Raises:
        BadImageError: it is missing or broken, or has no colors.
    """
    try:
        with Image.open(path) as png:
            if png.mode not in ("RGB", "RGBA"):
                raise NotIdsError(f"{path} has mode {png.mode}; the ids of segments are written in RGB.")
            pixels = np.asarray(png.convert("RGB"), np.int64)
    except BadImageError:
        raise
    except Exception as error:  # a decoder fed with garbage may raise anything
        raise BadImageError(f"The segments {path} cannot be read ({error}): replace or remove them.") from error
    return pixels @ np.array([1, 256, 65536])


def is_panoptic(source: str) -> bool:
    """Whether a source is a JSON file, or a folder with one of segments."""
    return is_json(source, "panoptic")


def find_panoptic(source: str, request: Request) -> Openers:
    """Find the JSON files of a folder, or take the one that the source is; see `coco_files.py`."""
    return find_json(source, "panoptic", partial(open_panoptic, problems=request.problems))


def open_panoptic(annotations: Path, folders: Sequence[Path], problems: Problems) -> Split:
    """Open one JSON file with its images and PNG files; no image is decoded yet.

    Args:
        annotations: the JSON file; the PNG files lie in the folder of its name without the ending, in the one without
            "panoptic_" too, or beside it.
        folders: where the images may lie.
        problems: takes in what is wrong.

    Raises:
        UserError: no panoptic file, or none of its images or PNG files is there.
    """
    content = load_json(annotations, ("images", "annotations", "categories"))
    images = listed(content)
    notes: dict[Any, Any] = {}
    for place, note in enumerate(content["annotations"]):
        if not _sane(note):
            kind = "annotations without image_id, file_name or segments_info, left out"
            problems.add(kind, f"annotations[{place}]")
        elif (number := images.find(note["image_id"])) is None:
            kind, count = "annotations of an unknown image, left out", max(1, len(note["segments_info"]))
            problems.add(kind, f"image {note['image_id']}", lost="annotations", count=count)
        elif number in notes:
            problems.add("images annotated twice, the first kept", f"image {number}")
        else:
            notes[number] = note
    segments = (info for note in notes.values() for info in note["segments_info"] if isinstance(info, dict))
    rows = categories(content, annotations, problems, (info.get("category_id") for info in segments))
    classes = tuple(row.name for row in rows)
    labels = {row.id: label for label, row in enumerate(rows)}
    if len(classes) > IGNORE:
        raise UserError(f"{annotations.absolute()} has {len(classes)} categories; at most {IGNORE} fit a mask.")
    things = tuple(read_flag(row.entry.get("isthing", 1)) for row in rows)
    located = _locate_pngs(annotations, [note["file_name"] for note in notes.values()], problems)
    pngs = dict(zip(notes, located, strict=True))
    found: list[Segments] = []
    for image_id, (path, size, orientation, also) in find_images(content, annotations, folders, problems).items():
        for number in also:
            kind = "images that are listed under two ids, once left out"
            problems.add(kind, f"{path} ({image_id} and {number})", lost="images")
        note, png = notes.pop(image_id, None), pngs.get(image_id)
        if note is None:
            problems.add("images without segments, left out", path, lost="images")
        elif png is None:
            kind = "missing PNG files of segments, left out with the image"
            problems.add(kind, note["file_name"], lost="images")
        elif (painted := size_of(png)) not in (None, size):  # a broken file is met when it is read
            example = f"{note['file_name']}, {painted[1]} x {painted[0]} not {size[1]} x {size[0]}"
            kind = "PNG files of segments of another size than the image, both left out"
            problems.add(kind, example, lost="images")
        else:
            segments = _segments(note, labels, problems)
            ids, kinds, crowd = zip(*segments, strict=True) if segments else ((), (), ())
            arrays = np.array(ids, np.int64), np.array(kinds, np.int64), np.array(crowd, bool)
            found.append(Segments(path, image_id, png, size, *arrays, orientation))
    if found:
        _look(some(found), problems)
    return Split(
        reader=PanopticFiles(), entries=found, classes=classes, things=things,
        sizes=[Fit(entry.size, entry.orientation).upright for entry in found],
        labels=[entry.labels.tolist() for entry in found], crowd=[entry.crowd for entry in found],
    )  # fmt: skip


def _look(entries: Sequence[Segments], problems: Problems) -> None:
    """Compare the ids of some PNG files with those of their segments."""
    for entry in entries:
        try:
            painted = set(np.unique(segment_ids(entry.png)).tolist()) - {0}
        except NotIdsError:
            raise
        except BadImageError:
            continue
        listed_ids = set(entry.ids.tolist())
        for ids, kind in (
            (painted - listed_ids, "PNG files with ids that no segment has, such pixels void"),
            (listed_ids - painted, "PNG files without a pixel of some segments, which are left out"),
        ):
            if ids:
                example = f"{entry.png}, {preview([str(i) for i in sorted(ids)])}"
                problems.add(f"{kind} ({len(entries)} looked at)", example)


def _sane(note: Any) -> bool:
    return (
        isinstance(note, dict)
        and read_id(note.get("image_id")) is not None
        and isinstance(note.get("file_name"), str)
        and isinstance(note.get("segments_info"), list)
    )


def _locate_pngs(annotations: Path, names: Sequence[str], problems: Problems) -> list[str | None]:
    parent, stem = annotations.parent, annotations.stem
    folders = [parent / stem, parent.parent / stem, parent / "masks", parent]
    root = max(folders, key=lambda folder: sum(is_file(folder, name) for name in names[:50]))
    return locate(names, [root], problems.note)


def _segments(note: dict[str, Any], labels: Mapping[int | str, int], problems: Problems) -> list[tuple[int, int, bool]]:
    """(id, label, crowd) of the segments of one image that are in order."""
    segments: dict[int, tuple[int, int, bool]] = {}
    known = Ids(labels)
    for info in note["segments_info"]:
        example = f"{note['file_name']}, segment {info.get('id') if isinstance(info, dict) else info}"
        number = whole(info.get("id")) if isinstance(info, dict) else None
        if number is None or not 0 < number < 256**3:
            problems.add("segments without an id from 1 to 16777215, void", example, lost="annotations")
        elif (category := known.find(info.get("category_id"))) is None:
            kind = f"{example}, category {info.get('category_id')}"
            problems.add("segments of an unknown category, void", kind, lost="annotations")
        elif number in segments:
            problems.add("segments of an id that another has, left out", example, lost="annotations")
        else:
            segments[number] = (number, labels[category], read_flag(info.get("iscrowd")))
    return list(segments.values())
