"""Predictions as files of the field.

    csv     a line per object with image, label, score, x1, y1, x2, y2 in pixels; of other tasks, what they tell
    coco    one JSON: images, categories, and annotations with a score; ids of categories are those trained on
    counts  a line per image or frame: how many objects it has of each class, and of a film whose objects are tracked
            how many different ones there were of each until then; CSV, too
    yolo    per image a text file NAME.txt, a line per object: label cx cy w h score in shares of the sides; classes.txt
    npz     per sound a file of its tokens, of codecs; wav the sound that they give back, html a page to hear both

Labels of YOLO are the numbers that the data has, where it is in that format, else the places among the classes.
"""

import csv
import io
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TextIO, get_args

import torch

from focalnet.data.base import CategoryIds
from focalnet.errors import UserError
from focalnet.labels import COCO_CLASSES, COCO_IDS, COCO_RAW_CLASSES
from focalnet.reading import write_json
from focalnet.structures import Detections, encode_masks

ResultFormat = Literal["csv", "coco", "yolo", "counts", "npz", "wav", "html"]
COLUMNS = ("image", "label", "score", "x1", "y1", "x2", "y2")
TRACKED = (*COLUMNS, "track")


def category_ids(classes: Sequence[str], known: CategoryIds | None = None) -> list[int | str]:
    """What result files call the classes.

    Args:
        classes: their names.
        known: what annotations call them. A class that these do not have gets a number that none of them is.

    Returns:
        `known`; without it COCO's numbers for its 80 classes, the place for DINO's 91, else numbers from 1.
    """
    usual = list(range(len(classes)) if tuple(classes) == COCO_RAW_CLASSES else range(1, len(classes) + 1))
    if tuple(classes) == COCO_CLASSES:
        usual = list(COCO_IDS)
    if known is None:
        return [*usual]
    free = (number for number in itertools.chain(usual, itertools.count(len(usual) + 1)) if number not in known)
    wished = [number if number is not None else place for number, place in zip(known, usual, strict=True)]
    taken = set(known)
    return [
        number if given is not None or number not in taken else next(free)
        for given, number in zip(known, wished, strict=True)
    ]


def category_numbers(count: int, ids: Sequence[int | str | None] | None) -> list[int]:
    """The number of each class in YOLO's files: its id where all are numbers from 0, else its place."""
    numbers = [number for number in ids or () if isinstance(number, int)]
    return numbers if sorted(numbers) == list(range(count)) else list(range(count))


def yolo_text(objects: Iterable[tuple[int, float, Sequence[float]]], size: tuple[int, int]) -> str:
    """YOLO's lines for one image.

    Args:
        objects: number of the class, score, and x y w h of the box in pixels.
        size: height and width of the image.
    """
    height, width = size
    lines = [
        f"{number} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f} {score:.6f}\n"
        for number, score, (x, y, w, h) in objects
    ]
    return "".join(lines)


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = COLUMNS, *, head: bool = True) -> str:
    """Rows as lines of CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def coco_rows(detections: Detections, category_ids: Sequence[int | str]) -> list[dict[str, Any]]:
    """Detections of one image as rows of COCO's results, without the id of the image."""
    boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in detections.boxes.double().tolist()]
    rows: list[dict[str, Any]] = [
        {"category_id": category_ids[label], "bbox": box, "score": score}
        for label, box, score in zip(detections.labels.tolist(), boxes, detections.scores.tolist(), strict=True)
    ]
    if detections.masks is not None:
        for row, mask in zip(rows, encode_masks(detections.masks), strict=True):
            row["segmentation"] = mask
    return rows


class Writer(ABC):
    """Takes in predictions one by one, and writes them.

    Args:
        out: a file, or of YOLO a folder; None for `stream`.
        stream: where to write instead.
        classes: names of the classes.
        category_ids: what the annotations call them.
    """

    def __init__(
        self, out: Path | None, stream: TextIO, classes: Sequence[str], category_ids: Sequence[int | str]
    ) -> None:
        self.classes, self.category_ids, self.opened = tuple(classes), tuple(category_ids), None
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            self.opened = out.open("w", encoding="utf-8", errors="surrogateescape")  # names of files of any bytes
        self.stream = self.opened or stream

    @abstractmethod
    def add(self, image: str, prediction: Any, place: Mapping[str, Any] = {}) -> None:
        """Take in the prediction for one image, or for a frame, which has a place: `frame` and `seconds`."""

    def close(self) -> None:
        """Write what is left."""
        if self.opened is not None:
            self.opened.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class CsvWriter(Writer):
    """Of detectors the table on top of this module; of other tasks a line for each thing that a prediction tells."""

    columns: Sequence[str] | None = None

    def add(self, image: str, prediction: Any, place: Mapping[str, Any] = {}) -> None:
        if isinstance(getattr(prediction, "detections", None), Detections):
            head, rows = self.columns is None, _boxes(image, prediction)
            self.columns = self.columns or (COLUMNS if prediction.detections.tracks is None else TRACKED)
        else:
            rows = [{"image": image, **row} for row in _told(prediction.to_dict())]
            head = self.columns is None and bool(rows)
            self.columns = self.columns or (list(rows[0]) if rows else None)
        if self.columns:
            self.stream.write(csv_text(rows, self.columns, head=head))


class CocoWriter(Writer):
    """The images are numbered from 1 in their order, and named as they were given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, image: str, prediction: Any, place: Mapping[str, Any] = {}) -> None:
        height, width = prediction.size
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": image, "width": width, "height": height})
        for row in coco_rows(prediction.detections, self.category_ids):
            area = row["bbox"][2] * row["bbox"][3]
            place = {"id": len(self.annotations) + 1, "image_id": number}
            self.annotations.append({**place, **row, "area": area, "iscrowd": 0})

    def close(self) -> None:
        names = zip(self.category_ids, self.classes, strict=True)
        categories = [{"id": number, "name": name} for number, name in names]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        self.stream.write(write_json(content) + "\n")
        super().close()


class YoloWriter(Writer):
    """A text file per image, and classes.txt; of images of one name in several folders, later ones get a number."""

    def __init__(self, out: Path | None, stream: TextIO, *arguments: Any) -> None:
        if out is None:
            raise UserError("--format yolo writes a text file per image; say into which folder: --out FOLDER.")
        super().__init__(None, stream, *arguments)
        self.folder, self.taken = out, set[str]()
        self.numbers = category_numbers(len(self.classes), self.category_ids)
        out.mkdir(parents=True, exist_ok=True)
        names = dict(zip(self.numbers, self.classes, strict=True))
        lines = "".join(f"{names[i]}\n" for i in range(len(names)))
        (out / "classes.txt").write_text(lines, "utf-8", "surrogateescape")

    def add(self, image: str, prediction: Any, place: Mapping[str, Any] = {}) -> None:
        name, detections = _unused(image, self.taken), prediction.detections
        rows = coco_rows(Detections(detections.boxes, detections.scores, detections.labels), self.numbers)
        objects = [(row["category_id"], row["score"], row["bbox"]) for row in rows]
        (self.folder / f"{name}.txt").write_text(yolo_text(objects, prediction.size), encoding="utf-8")


class CountsWriter(Writer):
    """A line is written as soon as its frame is known, so that a film may be without an end."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: dict[str, list[set[int]]] = {}
        self.table = csv.writer(self.stream, lineterminator="\n")
        self.begun = False

    def add(self, image: str, prediction: Any, place: Mapping[str, Any] = {}) -> None:
        name = image.rpartition(":")[0] if place else image
        found: Detections = prediction.detections
        counts = torch.bincount(found.labels.cpu(), minlength=len(self.classes)).tolist()
        different: list[int] = []
        if found.tracks is not None:
            seen = self.seen.setdefault(name, [set() for _ in self.classes])
            for label, track in zip(found.labels.tolist(), found.tracks.tolist(), strict=True):
                seen[label] |= {track} if track >= 0 else set()
            different = [len(tracks) for tracks in seen]
        if not self.begun:
            self.table.writerow(
                [
                    "image",
                    "frame",
                    "seconds",
                    *self.classes,
                    *(f"{label} so far" for label in self.classes if different),
                ]
            )
            self.begun = True
        self.table.writerow([name, place.get("frame", ""), place.get("seconds", ""), *counts, *different])
        self.stream.flush()


class FileWriter(Writer):
    """A file per prediction, in a folder; or one file, of one prediction."""

    suffix: ClassVar[str]

    def __init__(self, out: Path | None, stream: TextIO, *arguments: Any) -> None:
        if out is None:
            raise UserError(f"--format {self.suffix} writes files; say where: --out FOLDER, or NAME.{self.suffix}.")
        super().__init__(None, stream, *arguments)
        self.out, self.taken, self.single = out, set[str](), out.suffix.lower() == f".{self.suffix}"
        (out.parent if self.single else out).mkdir(parents=True, exist_ok=True)

    def add(self, image: str, prediction: Any, place: Mapping[str, Any] = {}) -> None:
        if self.single and self.taken:
            raise UserError(f"{self.out} is one file, and there are more predictions; give --out a folder.")
        path = self.out / f"{_unused(image, self.taken)}.{self.suffix}"
        path = self.out if self.single else path
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(prediction.written(self.suffix))
        new.replace(path)


class NpzWriter(FileWriter):
    suffix = "npz"


class WavWriter(FileWriter):
    suffix = "wav"


class PageWriter(Writer):
    """One page of all predictions."""

    def __init__(self, out: Path | None, stream: TextIO, *arguments: Any) -> None:
        if out is None:
            raise UserError("--format html writes a page; say where: --out PAGE.html.")
        super().__init__(None, stream, *arguments)
        self.out, self.kept = out, list[tuple[str, Any]]()

    def add(self, image: str, prediction: Any, place: Mapping[str, Any] = {}) -> None:
        self.kept.append((image, prediction))

    def close(self) -> None:
        if self.kept:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_bytes(self.kept[0][1].page(self.kept))


WRITERS: dict[str, type[Writer]] = {
    "csv": CsvWriter, "coco": CocoWriter, "yolo": YoloWriter, "counts": CountsWriter, "npz": NpzWriter,
    "wav": WavWriter, "html": PageWriter,
}  # fmt: skip


def open_writer(
    kind: ResultFormat, out: Path | None, stream: TextIO, *, task: Any, classes: Sequence[str],
    category_ids: Sequence[int | str],
) -> Writer:  # fmt: skip
    """A writer of predictions.

    Args:
        kind: the format.
        out, stream, classes, category_ids: see `Writer`.
        task: whose predictions they are.

    Raises:
        UserError: an unknown format, one that the task's predictions do not fit, or no folder for YOLO's files.
    """
    if kind not in get_args(ResultFormat):
        raise UserError(f"--format is {kind}; give {' or '.join(get_args(ResultFormat))}.")
    if kind in ("npz", "wav", "html"):
        if kind not in task.written:
            raise UserError(f"--format {kind} writes tokens and sounds of codecs; for {task.name} take csv, or --json.")
    elif kind != "csv" and not task.has_results:
        raise UserError(f"--format {kind} writes the objects of detectors; for {task.name} take csv, or --json.")
    return WRITERS[kind](out, stream, classes, category_ids)


def _boxes(image: str, prediction: Any) -> list[dict[str, Any]]:
    found: Detections = prediction.detections
    tracks = itertools.repeat(-1) if found.tracks is None else found.tracks.tolist()
    return [
        {"image": image, "label": name, "score": score, **dict(zip(COLUMNS[3:], box, strict=True))}
        | ({"track": track} if track >= 0 else {})
        for name, score, box, track in zip(
            prediction.names, found.scores.tolist(), found.boxes.double().tolist(), tracks, strict=False
        )
    ]  # fmt: skip


def _told(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a prediction tells as flat rows: its plain values, or, where it has none, the entries of its list."""
    plain = {name: value for name, value in content.items() if isinstance(value, str | int | float)}
    if plain:
        return [plain]
    entries = next((value for value in content.values() if isinstance(value, list)), [])
    return [entry for entry in entries if isinstance(entry, dict)]


def _unused(image: str, taken: set[str]) -> str:
    """The name of an image's text file without its ending; it is taken then."""
    source, colon, frame = image.rpartition(":")
    video = bool(colon) and frame.isdecimal() and "/" not in frame
    stem = f"{Path(source).stem}_{frame}" if video else Path(image).stem
    name, number = stem, 1
    while name in taken or name == "classes":
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name
