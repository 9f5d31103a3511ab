"""YOLO's text files: a data.yaml, and for each image a text file with a line per object.

    data.yaml   names: a list, or numbers to names; train:, val: (or valid:, test:), each a folder, a text file that
                lists images, a pattern, or several of these; path: what they are relative to; kpt_shape: of poses
    classes.txt instead (Label Studio, LabelImg): a name per line, beside images/ and labels/
    images      any/images/more/x.jpg, its objects in any/labels/more/x.txt, in upper or lower case, or beside it; no
                text file means no objects
    box         label cx cy w h              centre and sides, as shares of the width and height
    outline     label x1 y1 x2 y2 x3 y3 ...  a polygon of three points or more, likewise
    pose        label cx cy w h, and the points of kpt_shape, which are not read
    prediction  any of these with a score at its end, which is not read

Where a data set has outlines, objects of which only the box is known teach boxes and count in the AP of boxes.
Categories are called by their numbers, images by their names without the ending, with as many folders as tell them
apart.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from focalnet.data.base import DenseSample, Load, Opener, Openers, Request, Split
from focalnet.data.formats.yolo_files import (
    CLASS_LISTS,
    DESCRIPTIONS,
    find_description,
    find_label_files,
    image_ids,
    list_images,
    split_folders,
)
from focalnet.data.problems import Problems, preview, whole
from focalnet.data.splits import choose_splits, split_of
from focalnet.errors import UserError, agreeing, counted
from focalnet.inputs.folders import locate
from focalnet.inputs.image import load_image
from focalnet.reading import read_lines, read_yaml, shown
from focalnet.structures import mask_api, outline_to_mask, polygon_arrays

log = logging.getLogger(__name__)

EDGE = 1e-3
"""Share of a side by which coordinates may reach over the edge, for rounding."""
LINES = 64 * 2**20
"""Most bytes of a text file of one image."""


class Row(NamedTuple):
    """One image; boxes (N, 4) as x1 y1 x2 y2 and polygons (2 P,) in shares of the sides."""

    path: str
    image_id: str
    boxes: np.ndarray
    labels: np.ndarray
    outlines: list[np.ndarray | None]


@dataclass(frozen=True)
class YoloFiles:
    """Reads images with objects; an entry is a `Row`.

    Attributes:
        masks: whether some objects have outlines.
    """

    masks: bool

    def name(self, entry: Row) -> str:
        return entry.path

    def read(self, entry: Row, load: Load = load_image) -> DenseSample:
        image = load(entry.path)
        size = (image.height, image.width)
        boxes = torch.from_numpy(entry.boxes * np.tile([image.width, image.height], 2)).float()
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        masks, outlined = None, None
        if self.masks:
            masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
            for index, outline in enumerate(entry.outlines):
                if outline is not None:
                    points = outline.reshape(-1, 2) * (image.width, image.height)
                    polygons = polygon_arrays([points.reshape(-1).tolist()], size)
                    masks[index] = torch.from_numpy(outline_to_mask(polygons, size))
            known = torch.tensor([outline is not None for outline in entry.outlines], dtype=torch.bool)
            area = torch.where(known, masks.sum((1, 2)).float(), area)
            outlined = None if known.all() else known
        return DenseSample(
            image=image,
            path=entry.path,
            boxes=boxes,
            labels=torch.from_numpy(entry.labels.copy()),
            masks=masks,
            outlined=outlined,
            crowd=torch.zeros(len(boxes), dtype=torch.bool),
            area=area,
            semantic=None,
            image_id=entry.image_id,
            written_as="yolo",
        )


def is_yolo(source: str) -> bool:
    """Whether a source is a YAML file, or a folder with a data.yaml, or with a list of classes beside text files."""
    path = Path(source).expanduser()
    return (path.is_file() and path.suffix.lower() in (".yaml", ".yml")) or find_description(path) is not None


def find_yolo(source: str, request: Request) -> Openers:
    """Find the splits of a data.yaml, or of a folder with a list of classes; each is opened by itself.

    Args:
        source: the YAML file, or the folder.
        request: outlines are read only if they are wanted and some object of the split has one.

    Raises:
        UserError: it is no YAML, or has no names.
    """
    path = Path(os.path.abspath(Path(source).expanduser()))
    description = path if path.is_file() else find_description(path) or path / DESCRIPTIONS[0]
    if description.name in CLASS_LISTS:
        fields: dict[str, Any] = {"names": read_lines(description), **split_folders(description)}
    else:
        fields = read_yaml(description)
        if not isinstance(fields, dict):
            raise UserError(f"{description} is no data.yaml: it needs names, train and val.")
    classes = _classes(fields.get("names"), description)
    points = _points(fields.get("kpt_shape"), description)
    names = [name for name, value in fields.items() if isinstance(name, str) and value and split_of(name)]
    train, val, test = choose_splits(names)

    def opener(name: str | None) -> Opener | None:
        if name is None:
            return None
        return lambda: _split(list_images(fields, name, description, request.problems), classes, points, request)

    def no_train() -> Split:
        raise UserError(f"{description} has no train: add the folder of the training images.")

    return Openers(opener(train) or no_train, opener(val), opener(test))


def _classes(names: Any, path: Path) -> tuple[str, ...]:
    if isinstance(names, str):
        (found,) = locate([names], [path.parent])
        names = read_lines(found) if found else None
    if isinstance(names, dict) and sorted(map(whole, names), key=str) == sorted(range(len(names)), key=str):
        numbered = {whole(number): name for number, name in names.items()}
        names = [numbered[number] for number in range(len(names))]
    if isinstance(names, dict) and names:
        raise UserError(f"{path} numbers its names {preview(list(map(str, names)))}: number them from 0 without gaps.")
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has no names: list the classes.")
    classes = tuple(str(name) for name in names)
    if twice := [name for name in classes if classes.count(name) > 1]:
        raise UserError(f"{path} has two classes of the name {shown(twice[0])}: rename or merge them.")
    return classes


def _points(shape: Any, path: Path) -> int | None:
    """How many numbers follow the box of a pose; None where the objects are none."""
    if shape is None:
        return None
    numbers = [whole(side) or 0 for side in shape] if isinstance(shape, list) else []
    if len(numbers) != 2 or min(numbers) < 1:
        raise UserError(f"{path} has kpt_shape: {shown(shape)}; give two numbers, of points and of values for each.")
    return numbers[0] * numbers[1]


def _split(files: list[str], classes: tuple[str, ...], points: int | None, request: Request) -> Split:
    problems, rows, bare = request.problems, [], 0
    there = [file for file in files if os.path.isfile(file)]
    for file in sorted(set(files) - set(there)):
        problems.add("missing images, left out", file, lost="images")
    for file, image_id, label_file in zip(there, image_ids(there), find_label_files(there), strict=True):
        lines: list[str] = []
        if label_file is None:
            bare += 1
        else:
            try:
                lines = read_lines(label_file, most=LINES)
            except UserError as error:
                problems.add("images whose text file cannot be read, left out", str(error), lost="images")
                continue
        rows.append(_row(file, image_id, label_file or "", lines, len(classes), points, problems))
    if bare and bare == len(rows):
        folder, name = os.path.split(there[0])
        wanted = os.path.join(folder.replace(f"{os.sep}images", f"{os.sep}labels"), f"{os.path.splitext(name)[0]}.txt")
        raise UserError(
            f"None of {counted(len(rows), 'images')} has a text file of objects; the first would be {wanted}."
        )
    if bare:
        lack = f"{bare} of {counted(len(rows), 'images')} {agreeing(bare, 'have')}"
        log.info("%s no text file: taken as without objects", lack)
    masks = request.masks and any(outline is not None for row in rows for outline in row.outlines)
    if masks:
        mask_api()
        for row in rows:
            if lacking := sum(outline is None for outline in row.outlines):
                problems.note("objects with a box and no outline, good for boxes alone", row.path, count=lacking)
    return Split(
        reader=YoloFiles(masks), entries=rows, classes=classes, things=(True,) * len(classes),
        labels=[row.labels.tolist() for row in rows], category_ids=tuple(range(len(classes))),
    )  # fmt: skip


def _row(
    file: str, image_id: str, label_file: str, lines: Sequence[str], classes: int, points: int | None,
    problems: Problems,
) -> Row:  # fmt: skip
    boxes, labels, outlines, seen = [], [], [], set()
    for number, line in enumerate(lines, 1):
        words = _words(line)
        if not words:
            continue
        example = f"{label_file} line {number}"
        try:
            values = np.array([float(word) for word in words])
        except ValueError:
            values = np.array([np.nan])
        if 0 <= values[-1] <= 1 and _has_score(len(values) - 1, points):
            problems.note("lines with a score at the end, which is not read", example)
            values = values[:-1]
        coordinates = values[1:]
        if points is not None and len(coordinates) == 4 + points:
            coordinates = coordinates[:4]
        is_box = len(coordinates) == 4
        polygon = points is None and len(coordinates) >= 6 and len(coordinates) % 2 == 0
        if not np.isfinite(values[:5]).all() or not np.isfinite(coordinates).all() or not (is_box or polygon):
            what = "box and no polygon" if points is None else f"box and no pose of {points} numbers after it"
            problems.add(f"lines that are no {what}, left out", example, lost="annotations")
        elif values[0] not in range(classes):
            kind = "objects of an unknown class, left out"
            problems.add(kind, f"{example}, class {words[0][:40]}", lost="annotations")
        elif tuple(values) in seen:
            problems.add("objects that occur twice, once left out", example)
        elif (box := _box(coordinates, is_box, example, problems)) is not None:
            boxes.append(box)
            labels.append(int(values[0]))
            outlines.append(None if is_box else coordinates)
        seen.add(tuple(values))
    return Row(file, image_id, np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64), outlines)


def _words(line: str) -> list[str]:
    """The numbers of a line, between spaces or commas; a comma inside a number is a decimal point in many languages."""
    words = line.split()
    if len(words) > 4 and "." not in line:
        return [word.replace(",", ".") for word in words]
    return line.replace(",", " ").split()


def _has_score(count: int, points: int | None) -> bool:
    """Whether of so many numbers after the label the last one is a score, as tools write it into predictions."""
    if points is None:
        return count >= 5 and count % 2 == 1
    return count in (5, 5 + points) and count != 4 + points


def _box(coordinates: np.ndarray, is_box: bool, example: str, problems: Problems) -> np.ndarray | None:
    corners = coordinates.reshape(-1, 2)
    low, high = corners.min(0), corners.max(0)
    if is_box:
        low, high = corners[0] - corners[1] / 2, corners[0] + corners[1] / 2
    if not (high > low).all():
        problems.add("boxes of no area, left out", example, lost="annotations")
        return None
    if (low < -EDGE).any() or (high > 1 + EDGE).any():
        if (low >= 1).any() or (high <= 0).any():
            kind = "boxes outside the image, left out (coordinates are shares of the sides, from 0 to 1)"
            problems.add(kind, example, lost="annotations")
            return None
        problems.add("boxes that reach out of the image, clipped", example)
    return np.concatenate((low, high)).clip(0, 1)
