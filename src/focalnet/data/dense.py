"""Images with objects or with a label per pixel, with random access, whatever they are stored in.

`Scenes` is the only data set class of detection and segmentation; a `SceneReader` knows one kind of storage, and a
`Side` is what an opener found there. Data sets hold no state and draw no random numbers: scene i is the same in every
process and after every restart.

    detection   objects with boxes and, where they were annotated, masks; `semantic` is None
    semantic    no objects; `semantic` has a class per pixel, 255 where none is to be learned or scored
    panoptic    every segment is an object: one per thing, one per kind of stuff; masks do not overlap, what no mask
                covers is void; `semantic` says the same by class, 255 where void or crowd

Boxes are x1 y1 x2 y2 in pixels and count edges, not centres: the box around the one pixel in the corner is 0 0 1 1.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from focalnet.data.base import OnBadImage
from focalnet.errors import UserError
from focalnet.inputs.image import BadImageError

log = logging.getLogger(__name__)

IGNORE = 255
"""The label of pixels that are neither learned nor scored."""

Entry = TypeVar("Entry")

Kind = Literal["detection", "semantic", "panoptic"]
OnBadAnnotation = Literal["skip", "stop"]


@dataclass(frozen=True)
class Scene:
    """One image and what is on it. N objects, H x W pixels.

    Attributes:
        image: RGB.
        path: where the image lies.
        boxes: (N, 4), float32, x1 y1 x2 y2 in pixels.
        labels: (N,), int64, indices into `Scenes.classes`.
        masks: (N, H, W), bool, or None where objects have boxes only.
        crowd: (N,), bool; a crowd is a region of many objects, which is not learned and not held against a model.
        area: (N,), float32, in pixels as annotated: what COCO calls small, medium and large goes by it.
        semantic: (H, W), uint8, the class of each pixel, 255 to ignore; None in detection.
        image_id: what the annotations call the image.
        skipped: paths of the images that could not be read, in whose place this one stands.
    """

    image: Image.Image
    path: str
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    crowd: Tensor
    area: Tensor
    semantic: Tensor | None
    image_id: int | str
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count, size = len(self.labels), (self.image.height, self.image.width)
        assert self.boxes.shape == (count, 4)
        assert len(self.crowd) == len(self.area) == count
        assert self.masks is None or self.masks.shape == (count, *size)
        assert self.semantic is None or self.semantic.shape == size


class SceneReader(Protocol):
    """One kind of storage. `where` is whatever it keeps for one scene; it goes to worker processes as it is."""

    def name(self, where: Any) -> str:
        """What to call the image."""
        ...

    def read(self, where: Any) -> Scene:
        """The scene, labelled by the classes of its `Side`; `BadImageError` where it cannot be decoded."""
        ...


class Side(NamedTuple):
    """What an opener found: one side of the data.

    Attributes:
        reader: how to read a scene.
        where: one entry per scene, for `reader`.
        classes: class names in the order of the reader's labels.
        things: for each class, whether its objects are counted (things) or not (stuff).
        sizes: (height, width) of each image, where known without decoding.
        used: the classes that occur, where known without decoding.
    """

    reader: SceneReader
    where: Sequence[Any]
    classes: tuple[str, ...]
    things: tuple[bool, ...]
    sizes: Sequence[tuple[int, int]] | None = None
    used: frozenset[str] | None = None

    def take(self, indices: Sequence[int]) -> "Side":
        sizes = None if self.sizes is None else [self.sizes[i] for i in indices]
        return self._replace(where=[self.where[i] for i in indices], sizes=sizes)


LOOKED_AT = 50
"""About so many files of each side are looked at when the data is opened."""

Opener = Callable[[], Side]
"""Opens one side when it is wanted: a measurement needs no training images."""


class Scenes(Dataset[Scene]):
    """Scenes, read when asked for.

    With `on_bad_image="skip"`, the place of an image that cannot be read is taken by the next one that can, and the
    scene names what it stands for in `skipped`, as in `labelled.Images`. For a measurement leave scenes with
    `skipped` out, or the next image counts twice.

    Args:
        side: what to read, and how.
        classes: the names that labels index; every used class of `side` must be among them. None: those of `side`.
        on_bad_image: "stop" raises `BadImageError`, "skip" takes the next image.

    Attributes:
        classes: class names in the order of the labels.
        things: for each class, whether it is a thing; True for classes that only the model knows.
        sizes: (height, width) of each image in pixels, for batches of like shapes; None where unknown.
    """

    def __init__(self, side: Side, classes: Sequence[str] | None, on_bad_image: OnBadImage) -> None:
        self.classes = side.classes if classes is None else tuple(classes)
        self.sizes, self.on_bad_image = side.sizes, on_bad_image
        self._reader, self._where, self._table = side.reader, side.where, None
        index = {name: label for label, name in enumerate(self.classes)}
        things = dict(zip(side.classes, side.things, strict=True))
        self.things = tuple(things.get(name, True) for name in self.classes)
        if self.classes != side.classes:
            assert all(name in index for name in side.used or ())
            self._table = torch.tensor([index.get(name, IGNORE) for name in side.classes])

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Scene:
        """The scene; `BadImageError` names an image that cannot be read."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        skipped = []
        for step in range(len(self)):
            where = self._where[(index + step) % len(self)]
            path = self._reader.name(where)
            try:
                return self._relabel(replace(self._reader.read(where), skipped=tuple(skipped)))
            except BadImageError as error:
                if self.on_bad_image == "stop":
                    raise BadImageError(f"{error} To go on without it: --on-bad-image skip.") from error
                skipped.append(path)
        raise BadImageError(f"None of the {len(self)} images can be read, the first is {skipped[0]}: check the data.")

    def _relabel(self, scene: Scene) -> Scene:
        if self._table is None:
            return scene
        semantic = scene.semantic
        if semantic is not None:
            table = torch.full((256,), IGNORE, dtype=torch.uint8)
            table[: len(self._table)] = self._table.to(torch.uint8)
            semantic = table[semantic.long()]
        return replace(scene, labels=self._table[scene.labels], semantic=semantic)


@dataclass(frozen=True)
class SceneData:
    """The two sides of a data set.

    Attributes:
        classes: names in the order of the labels.
        things: for each class, whether it is a thing.
        train: what is learned from.
        val: what is measured on; labels index the same classes.
        description: where the data came from and how it was split, one sentence.
    """

    classes: tuple[str, ...]
    things: tuple[bool, ...]
    train: Scenes
    val: Scenes
    description: str


class Complaints:
    """What is wrong with the annotations of one place: counted by kind, with the first example of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, kind: str, example: str) -> None:
        """Count one. `kind` is a plural with what became of them: "boxes of no area, left out"."""
        self.counts[kind] += 1
        self.examples.setdefault(kind, example)

    def settle(self, place: str, on_bad_annotation: OnBadAnnotation) -> None:
        """Report all in one line of the log, or stop.

        Raises:
            UserError: something is wrong and `on_bad_annotation` is "stop".
        """
        if not self.counts:
            return
        found = "; ".join(f"{count} {kind} (first: {self.examples[kind]})" for kind, count in self.counts.items())
        if on_bad_annotation == "stop":
            raise UserError(f"{place} has broken annotations: {found}. Mend them, or --on-bad-annotation skip.")
        log.warning("%s: broken annotations: %s", place, found)


def some(entries: Sequence[Entry]) -> Sequence[Entry]:
    """About `LOOKED_AT` of them, evenly spread."""
    return entries[:: max(1, len(entries) // LOOKED_AT)]
