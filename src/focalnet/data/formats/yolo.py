"""YOLO's text files: a data.yaml, and for each image a text file with a line per object.

    data.yaml   names: a list, or numbers to names; train:, val: (or valid:, test:), each a folder, a text file that
                lists images, or several of these; path: what they are relative to
    images    any/images/more/x.jpg, its objects in any/labels/more/x.txt; no text file means no objects
    box         label cx cy w h              centre and sides, as shares of the width and height
    outline     label x1 y1 x2 y2 x3 y3 ...  a polygon of three points or more, likewise

Where a data set has outlines, objects of which only the box is known have no mask and are left out, unless masks are
not wanted.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from focalnet.data.base import DenseSample, Openers, Request, Split
from focalnet.data.problems import Problems, preview
from focalnet.errors import MissingExtraError, UserError
from focalnet.inputs.image import EXTENSIONS, load_image
from focalnet.structures import mask_api, outline_to_mask, polygon_arrays

log = logging.getLogger(__name__)

EDGE = 1e-3
"""Share of a side by which coordinates may reach over the edge, for rounding."""


class Row(NamedTuple):
    """One image; boxes (N, 4) as x1 y1 x2 y2 and polygons (2 P,) in shares of the sides."""

    path: str
    boxes: np.ndarray
    labels: np.ndarray
    outlines: list[np.ndarray | None]


@dataclass(frozen=True)
class YoloFiles:
    """Reads images with objects; an entry is a `Row`.

    Attributes:
        masks: whether the objects have outlines.
    """

    masks: bool

    def name(self, entry: Row) -> str:
        return entry.path

    def read(self, entry: Row) -> DenseSample:
        image = load_image(entry.path)
        size = (image.height, image.width)
        boxes = torch.from_numpy(entry.boxes * np.tile([image.width, image.height], 2)).float()
        masks = None
        if self.masks:
            masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
            for index, outline in enumerate(entry.outlines):
                assert outline is not None
                points = outline.reshape(-1, 2) * (image.width, image.height)
                masks[index] = torch.from_numpy(
                    outline_to_mask(polygon_arrays([points.reshape(-1).tolist()], size), size)
                )
        lengths = boxes[:, 2:] - boxes[:, :2]
        return DenseSample(
            image=image,
            path=entry.path,
            boxes=boxes,
            labels=torch.from_numpy(entry.labels.copy()),
            masks=masks,
            crowd=torch.zeros(len(boxes), dtype=torch.bool),
            area=lengths.prod(1) if masks is None else masks.sum((1, 2)).float(),
            semantic=None,
            image_id=Path(entry.path).stem,
        )


def is_yolo(source: str) -> bool:
    """Whether a source is a YAML file, or a folder with a data.yaml."""
    path = Path(source).expanduser()
    return (path.is_file() and path.suffix in (".yaml", ".yml")) or (path / "data.yaml").is_file()


def find_yolo(source: str, request: Request) -> Openers:
    """Open a data.yaml; no image is decoded yet.

    Args:
        source: the YAML file, or its folder.
        request: outlines are read only if they are wanted and some object has one, in whichever split.

    Raises:
        UserError: it is no YAML, has no names or no train, or a folder of it is missing or has no images.
    """
    path = Path(source).expanduser()
    description, problems = path if path.is_file() else path / "data.yaml", request.problems
    fields = _load_yaml(description)
    classes = _classes(fields.get("names"), description)
    val = next((name for name in ("val", "valid", "validation", "test") if fields.get(name)), None)
    if not fields.get("train"):
        raise UserError(f"{description.absolute()} has no train: add the folder of the training images.")
    splits = [
        _rows(list(_images(fields, name, description)), len(classes), problems) for name in ("train", val) if name
    ]
    masks = request.masks and any(outline is not None for rows in splits for row in rows for outline in row.outlines)
    if masks:
        mask_api()
        splits = [[_with_outlines(row, problems) for row in rows] for rows in splits]

    def open_split(rows: list[Row]) -> Split:
        used = frozenset(classes[label] for row in rows for label in row.labels.tolist())
        things = (True,) * len(classes)
        return Split(reader=YoloFiles(masks), entries=rows, classes=classes, things=things, used=used)

    return Openers(partial(open_split, splits[0]), partial(open_split, splits[1]) if val else None)


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("a data.yaml", "dense") from error
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"{path.absolute()} cannot be read as YAML ({reason}): check the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path.absolute()} is no data.yaml: it needs names, train and val.")
    return content


def _classes(names: Any, path: Path) -> tuple[str, ...]:
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path.absolute()} has no names: list the classes, or number them from 0 without gaps.")
    classes = tuple(str(name) for name in names)
    if twice := [name for name in classes if classes.count(name) > 1]:
        raise UserError(f"{path.absolute()} has two classes of the name {twice[0]!r}: rename or merge them.")
    return classes


def _images(fields: dict[str, Any], split: str, description: Path) -> Iterator[str]:
    entries = fields[split] if isinstance(fields[split], list) else [fields[split]]
    found = False
    for entry in entries:
        place = _place(str(entry), fields.get("path"), description)
        if place.is_dir():
            files = (file for file in sorted(place.rglob("*")) if file.suffix.lower() in EXTENSIONS)
        else:
            try:
                lines = place.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeError) as error:
                raise UserError(f"{place.absolute()} is no text file that lists images: mend {description}.") from error
            files = ((place.parent / line.strip()) for line in lines if line.strip())
        for file in files:
            found = True
            yield str(file)
    if not found:
        raise UserError(f"{description.absolute()}: {split} has no images ({preview([str(e) for e in entries])}).")


def _place(entry: str, root: Any, description: Path) -> Path:
    """Where an entry of a data.yaml lies; Roboflow writes ../train/images for what lies in train/images."""
    bases = [description.parent / str(root), Path(str(root)).expanduser()] if root else []
    tries = [base / entry for base in [*bases, description.parent]]
    tries.append(description.parent / entry.removeprefix("../"))
    for place in tries:
        if place.exists():
            return place
    raise UserError(f"{description.absolute()} names {entry}, but there is no {tries[0].absolute()}: check the path.")


def _label_file(image: str) -> str:
    head, found, tail = image.rpartition(f"{os.sep}images{os.sep}")
    path = f"{head}{os.sep}labels{os.sep}{tail}" if found else image
    return os.path.splitext(path)[0] + ".txt"


def _rows(files: list[str], classes: int, problems: Problems) -> list[Row]:
    rows, bare = [], 0
    for file in files:
        if not os.path.isfile(file):
            problems.add("missing images, left out", file)
            continue
        label_file = _label_file(file)
        try:
            text = Path(label_file).read_text(encoding="utf-8")
        except FileNotFoundError:
            text, bare = "", bare + 1
        except (OSError, UnicodeError):
            problems.add("text files that cannot be read, taken as empty", label_file)
            text = ""
        rows.append(_row(file, label_file, text, classes, problems))
    if not rows or bare == len(rows):
        first = _label_file(files[0])
        raise UserError(f"None of the {len(rows)} images has a text file of objects; the first would be {first}.")
    if bare:
        log.info("%d of %d images have no text file: taken as without objects", bare, len(rows))
    return rows


def _row(file: str, label_file: str, text: str, classes: int, problems: Problems) -> Row:
    boxes, labels, outlines, seen = [], [], [], set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        example = f"{label_file} line {number}"
        try:
            values = np.array([float(word) for word in words])
        except ValueError:
            values = np.array([np.nan])
        coordinates = values[1:]
        is_box = len(coordinates) == 4
        if not np.isfinite(values).all() or not (is_box or (len(coordinates) >= 6 and len(coordinates) % 2 == 0)):
            problems.add("lines that are no box and no polygon, left out", example)
        elif values[0] not in range(classes):
            problems.add("objects of an unknown class, left out", f"{example}, class {words[0]}")
        elif tuple(values) in seen:
            problems.add("objects that occur twice, once left out", example)
        elif (box := _box(coordinates, is_box, example, problems)) is not None:
            boxes.append(box)
            labels.append(int(values[0]))
            outlines.append(None if is_box else coordinates)
        seen.add(tuple(values))
    return Row(file, np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64), outlines)


def _box(coordinates: np.ndarray, is_box: bool, example: str, problems: Problems) -> np.ndarray | None:
    points = coordinates.reshape(-1, 2)
    low, high = (points[0] - points[1] / 2, points[0] + points[1] / 2) if is_box else (points.min(0), points.max(0))
    if not (high > low).all():
        problems.add("boxes of no area, left out", example)
        return None
    if (low < -EDGE).any() or (high > 1 + EDGE).any():
        if (low >= 1).any() or (high <= 0).any():
            kind = "boxes outside the image, left out (coordinates are shares of the sides, from 0 to 1)"
            problems.add(kind, example)
            return None
        problems.add("boxes that reach out of the image, clipped", example)
    return np.concatenate((low, high)).clip(0, 1)


def _with_outlines(row: Row, problems: Problems) -> Row:
    kept = [index for index, outline in enumerate(row.outlines) if outline is not None]
    for _ in range(len(row.outlines) - len(kept)):
        problems.add("objects with a box but no outline, left out", row.path)
    return Row(row.path, row.boxes[kept], row.labels[kept], [row.outlines[index] for index in kept])
