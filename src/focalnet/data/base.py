"""Samples with random access, whatever they are stored in and whatever is known of them.

    Reader     one kind of storage: it reads one sample
    Split      what an opener found: a reader, one entry per sample, and the class names
    Samples    the one data set class: a split, with the labels of the classes that a model has
    Datasets   both splits, as a task trains on them

What a sample holds depends on the kind of data, see `kinds.py`. Data sets hold no state and draw no random numbers:
sample i is the same in every process and after every restart. Boxes are x1 y1 x2 y2 in pixels and count edges, not
centres: the box around the one pixel in the corner is 0 0 1 1.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from focalnet.data.kinds import SIGNALS, noun_of, option_of
from focalnet.data.problems import Finding, Findings, Problems
from focalnet.errors import BadFileError
from focalnet.inputs.image import Signal, load_image

IGNORE = 255
"""The label of pixels that are neither trained on nor scored."""

OnBadImage = Literal["stop", "skip"]
Crowd = Literal["learn", "ignore"]
SplitName = Literal["train", "val", "test"]
CategoryIds = tuple[int | str | None, ...]
"""What annotations call the classes, in the order of the labels; None for a class that they do not have."""


@dataclass(frozen=True)
class Sample:
    """A signal and its class, or its classes.

    Attributes:
        signal: what the input of a model takes: an image, RGB.
        label: index into `Samples.classes`; of multi-label data all of them, in order; None where nothing is known.
        path: where the signal lies.
        skipped: paths of those that could not be read, in whose place this one stands.
    """

    signal: Any
    label: Any
    path: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class DenseSample:
    """An image and what is on it. N objects, H x W pixels.

    Attributes:
        image: RGB, or of as many channels as the network takes.
        path: where the image lies.
        boxes: (N, 4), float32, x1 y1 x2 y2 in pixels.
        labels: (N,), int64, indices into `Samples.classes`.
        masks: (N, H, W), bool, or None where objects have boxes only.
        outlined: (N,), bool: which objects have a mask, where some have a box only (their masks are empty); None where
            all have one, or none.
        crowd: (N,), bool; a crowd is a region of many objects, which is not trained on and not held against a model.
        area: (N,), float32, in pixels as annotated: what COCO calls small, medium and large goes by it.
        semantic: (H, W), uint8, the class of each pixel, 255 to ignore; None in detection.
        image_id: what the annotations call the image.
        category_ids: what the annotations call each of `Samples.classes`, None where they do not know it; None where
            they number nothing. `Samples` puts them in.
        orientation: EXIF's, by which the annotations were turned with the image; 1 where they were upright.
        written_as: the format in which detections are written beside COCO's results: "yolo", or "" for none.
        skipped: paths of the images that could not be read, in whose place this one stands.
    """

    image: Signal
    path: str
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    crowd: Tensor
    area: Tensor
    semantic: Tensor | None
    image_id: int | str
    outlined: Tensor | None = None
    category_ids: CategoryIds | None = None
    orientation: int = 1
    written_as: str = ""
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count, size = len(self.labels), (self.image.height, self.image.width)
        assert self.boxes.shape == (count, 4)
        assert len(self.crowd) == len(self.area) == count
        assert self.masks is None or self.masks.shape == (count, *size)
        assert self.outlined is None or self.outlined.shape == (count,)
        assert self.semantic is None or self.semantic.shape == size

    @property
    def signal(self) -> Signal:
        """The image, by the name that it has in every kind of sample."""
        return self.image

    def relabel(self, table: Tensor) -> "DenseSample":
        """The sample with `table[label]` in place of every label; (K,), `IGNORE` for what has none."""
        semantic = self.semantic
        if semantic is not None:
            pixels = torch.full((256,), IGNORE, dtype=torch.uint8)
            pixels[: len(table)] = table.to(torch.uint8)
            semantic = pixels[semantic.long()]
        return replace(self, labels=table[self.labels], semantic=semantic)


Load = Callable[..., Any]
"""Decodes a source: `inputs.Input.read`, or a function like it."""


class Reader(Protocol):
    """One kind of storage. `entry` is whatever it keeps for one sample; it goes to worker processes as it is.

    One of label maps may have `unknown(entry)`: the values of a map that mean nothing; and one whose entries name no
    files `content`: another text where it reads something else.
    """

    def name(self, entry: Any) -> str:
        """What to call the sample."""
        ...

    def read(self, entry: Any, load: Load = ...) -> Any:
        """The signal where the split says the classes of each entry (`Split.whole`), or nothing is known of it; else
        the `DenseSample`, labelled by the classes of its split. `load` decodes a file as the network wants it; a reader
        that paints its samples need not take it. `BadFileError` where it cannot be decoded."""
        ...


@dataclass(frozen=True, kw_only=True)
class Split:
    """What an opener found: training or validation data, none of it decoded.

    Attributes:
        reader: how to read a sample.
        entries: one per sample, for `reader`.
        classes: class names in the order of the labels.
        names: the class of each entry, by name, where there is one; None where there may be several.
        things: for each class, whether its objects are counted (things) or not (stuff); None of whole signals.
        sizes: (height, width) of each image, where known without decoding.
        used: the classes that occur, where known without decoding; `names` and `labels` tell it too.
        labels: of each entry, its labels, or those of its objects or segments, where known without decoding.
        crowd: of each entry, which of these are crowd regions, as 0 or 1.
        category_ids: what the annotations call the classes, where they number them.
    """

    reader: Reader
    entries: Sequence[Any]
    classes: tuple[str, ...]
    names: Sequence[str] | None = None
    things: tuple[bool, ...] | None = None
    sizes: Sequence[tuple[int, int]] | None = None
    used: frozenset[str] | None = None
    labels: Sequence[Any] | None = None
    crowd: Sequence[Any] | None = None
    category_ids: CategoryIds | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def whole(self) -> bool:
        """Whether it says the classes of every entry, which then belong to the whole signal."""
        return self.names is not None or (self.things is None and self.labels is not None)

    def take(self, indices: Iterable[int]) -> "Split":
        """The split of the entries at `indices`."""
        indices = list(indices)
        rows = {name: getattr(self, name) for name in ("names", "sizes", "labels", "crowd")}
        taken = {name: None if row is None else [row[i] for i in indices] for name, row in rows.items()}
        return replace(self, entries=[self.entries[i] for i in indices], **taken)

    def occurring(self) -> list[str]:
        """The classes that occur, in their order; all of them where that is not known."""
        used = self.used if self.names is None else set(self.names)
        if self.labels is not None:
            used = {self.classes[label] for labels in self.labels for label in set(labels)}
        return [name for name in self.classes if used is None or name in used]

    @property
    def most(self) -> int | None:
        """The most objects of one image, crowd regions left out; None where that is not known."""
        if self.labels is None:
            return None
        crowds = [0] * len(self) if self.crowd is None else [int(sum(flags)) for flags in self.crowd]
        return max((len(labels) - crowd for labels, crowd in zip(self.labels, crowds, strict=True)), default=0)

    def findings(self, split: str, found: tuple[Finding, ...] = ()) -> Findings:
        """What is known of it, and what was found when it was opened as `split`."""
        annotations = None if self.labels is None else sum(map(len, self.labels))
        crowd = sum(int(sum(flags)) for flags in self.crowd or ())
        return Findings(split=split, images=len(self), annotations=annotations, crowd=crowd, found=found)


Opener = Callable[[], Split]
"""Opens a split when it is wanted: an evaluation needs no training images."""


class Openers(NamedTuple):
    """What a format found in a source: how to open each split that there is.

    The training split may be missing too: its opener then raises `UserError`. Each opens what it needs alone, so that
    an evaluation works where the images of the other splits are not.
    """

    train: Opener
    val: Opener | None
    test: Opener | None = None
    """Another name for the validation split where that is called test."""


class Request(NamedTuple):
    """What a format is asked for.

    Attributes:
        kind: of the data, see the table in `kinds.py`.
        problems: takes in what is wrong with the annotations.
        masks: of detection; False leaves the outlines alone, which is faster.
        crowd: of detection, what crowd regions are: objects to "learn", or regions to "ignore"; None for regions, and
            objects where there is nothing else.
    """

    kind: str
    problems: Problems
    masks: bool = True
    crowd: Crowd | None = None


class MapDataset(Protocol):
    """A data set with random access; what its samples are is between it and `Task.example`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Samples(Dataset[Any]):
    """The samples of a split, read when asked for.

    With `on_bad_image="skip"`, the place of an image that cannot be read is taken by the next one that can, and the
    sample names what it stands for in `skipped`. So nothing is kept between calls: the order of a resumed run and the
    work of other processes cannot change a sample, and who collects the samples counts and reports the bad images.
    For an evaluation leave samples with `skipped` out, or the next image counts twice.

    Args:
        split: what to read, and how.
        classes: the names that labels index; every class that occurs must be among them. None: those of `split`.
        on_bad_image: "stop" raises `BadFileError`, "skip" takes the next sample.

    Attributes:
        classes: class names in the order of the labels.
        labels: the label of each sample, or of multi-label data all of them; None where they belong to objects.
        things: for each class, whether it is a thing; True for classes that only the model knows.
        sizes: (height, width) of each image in pixels, for batches of like shapes; None where unknown.
        findings: what the opening step knows of the split, where that opened it.
        category_ids: what the annotations call each class, where they number them; None for those they do not have.
        masked: whether some object has a mask, where the reader of samples knows.
        most: the most objects of one image, where known.
        load: how a source is decoded: as the published networks want it, until `survey.reading` says otherwise.
        reader, entries: of the split.
    """

    def __init__(
        self,
        split: Split,
        classes: Sequence[str] | None,
        on_bad_image: OnBadImage,
        findings: Findings | None = None,
        kind: str = "class",
    ) -> None:
        self.classes = split.classes if classes is None else tuple(classes)
        self.findings, self.option, self.noun = findings, option_of(kind), noun_of(kind)
        self.sizes, self.most, self.on_bad_image = split.sizes, split.most, on_bad_image
        self.load: Load = SIGNALS[kind]().read if kind in SIGNALS else load_image
        self._loads = "load" in inspect.signature(split.reader.read).parameters
        self.reader, self.entries = split.reader, split.entries
        self.masked: bool = getattr(split.reader, "masks", True)
        index = {name: label for label, name in enumerate(self.classes)}
        assert all(name in index for name in split.used or ())
        self.labels: list[Any] | None = None if split.names is None else [index[name] for name in split.names]
        if split.whole and split.names is None:
            self.labels = [tuple(sorted(index[split.classes[i]] for i in labels)) for labels in split.labels or ()]

        def by_class(values: tuple[Any, ...] | None, missing: Any) -> tuple[Any, ...] | None:
            known = dict(zip(split.classes, values or (), strict=values is not None))
            return None if values is None else tuple(known.get(name, missing) for name in self.classes)

        self.things, self.category_ids = by_class(split.things, True), by_class(split.category_ids, None)
        self._table = None
        if self.classes != split.classes:
            self._table = torch.tensor([index.get(name, IGNORE) for name in split.classes])

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, index: int, load: Load | None = None) -> Any:
        """The sample at a place, and no other in its stead; `load` decodes it instead of the own."""
        entry = self.entries[index]
        content = self.reader.read(entry, load or self.load) if self._loads else self.reader.read(entry)
        if not isinstance(content, DenseSample):
            return Sample(content, None if self.labels is None else self.labels[index], self.reader.name(entry))
        content = replace(content, category_ids=self.category_ids)
        return content if self._table is None else content.relabel(self._table)

    def __getitem__(self, index: int) -> Any:
        """The `Sample` or `DenseSample`; `BadFileError` names a file that cannot be read."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        skipped, kind = list[str](), BadFileError
        for step in range(len(self)):
            place = (index + step) % len(self)
            try:
                sample = self.read(place)
            except BadFileError as error:
                if self.on_bad_image == "stop":
                    raise type(error)(f"{error} To go on without it: {self.option} skip.") from error
                skipped.append(self.reader.name(self.entries[place]))
                kind = type(error)
                continue
            return replace(sample, skipped=tuple(skipped)) if skipped else sample
        raise kind(f"No {self.noun} can be read, of {len(self)}; the first is {skipped[0]}: check the data.")


@dataclass(frozen=True)
class Datasets:
    """Both splits of the data.

    Attributes:
        classes: names in the order of the labels; empty where there are none.
        train: for training.
        val: for evaluation; labels index the same classes.
        description: where the data came from and how it was split, one sentence.
        things: for each class whether it is a thing, where its objects are annotated; else None.
        findings: of both splits: what was kept, left out or mended, and what is on both.
        set_aside: whether the validation split was drawn at random from what was given.
    """

    classes: tuple[str, ...]
    train: MapDataset
    val: MapDataset
    description: str
    things: tuple[bool, ...] | None = None
    findings: tuple[Findings, ...] = ()
    set_aside: bool = False
