"""A look at all of the data before anything is trained on it.

`look` decodes every image of both splits once, by threads, as training will; `faults.py` says what of the facts makes a
training wrong.

Nothing here asks for a format: a sample, its boxes, labels and masks are what the reader of its split gives. What is
kept of an image are its size, its hash and its thumbnail (`duplicates.py`), about 300 bytes.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from focalnet.data.base import IGNORE, Datasets, DenseSample, Samples
from focalnet.data.duplicates import SIDE, Twins, find_twins, fingerprint
from focalnet.data.problems import Problems
from focalnet.inputs.ahead import default_threads, in_order
from focalnet.inputs.image import STORED, BadImageError, Bands, stored_as

TINY = 4
"""Least pixels of a side of a box; below that, a network sees less than a position of its finest map."""
KEPT = 1000
"""Most examples of anything that are kept, and sizes of images."""
AT_ONCE = 256
"""Images that wait for a thread."""

UNREADABLE = "images that cannot be read"
STRANGE = "label maps with values that mean nothing"
ALONE = "images of a single color"
BARE = "images without an object"
EMPTY = "boxes of no area"
SMALL = f"boxes with a side below {TINY} pixels"
OUTSIDE = "boxes that reach out of the image"
VOID = "label maps without a pixel of any class"


@dataclass(frozen=True, kw_only=True)
class ClassFacts:
    """How often a class occurs in a split: on how many images, as how many objects, in how many pixels."""

    name: str
    images: int = 0
    objects: int = 0
    pixels: int = 0


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """What a split holds.

    Attributes:
        split: "train" or "val".
        images: how many there are.
        kinds: how many images are stored how: "JPEG RGB", "PNG I;16".
        sizes: (width, height) of 1000 images, evenly spread, or of all.
        values: the least and the greatest value in the files, None where none could be read.
        classes: in the order of the labels.
        found: what is wrong with some images: how many there are, and the first of them.
        unreadable: the reasons why images cannot be read, at most 1000.
    """

    split: str
    images: int
    kinds: Mapping[str, int]
    sizes: tuple[tuple[int, int], ...]
    values: tuple[float, float] | None
    classes: tuple[ClassFacts, ...]
    found: Mapping[str, tuple[int, str]]
    unreadable: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TwinFacts:
    """An image that is there twice.

    Attributes:
        kind: "same" or "near", and the split of both, "train" or "val", or "both" where they are on two.
        names: of the one that comes first, and of the other.
        places: of both in their splits.
        contradict: whether they are of different classes.
    """

    kind: str
    names: tuple[str, str]
    places: tuple[int, int]
    contradict: bool = False


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a look at the data showed.

    Attributes:
        kind: of the data, see `data.base`.
        splits: training and validation.
        twins: images that are there twice, at most 1000 of each kind.
        repeats: how many images repeat an earlier one, by `TwinFacts.kind`; "same classes": one of another class.
    """

    kind: str
    splits: tuple[SplitFacts, ...]
    twins: tuple[TwinFacts, ...] = ()
    repeats: Mapping[str, int]


class _Seen(NamedTuple):
    """One image, as a thread saw it.

    Attributes:
        name: of the sample.
        error: why it cannot be read.
        stored: format and mode of the file.
        size: (width, height).
        values: the least and the greatest one.
        likeness: see `duplicates.fingerprint`.
        rows: (R, 3), for each class on it the label, how many objects, how many pixels.
        found: kinds of what is wrong, and how often.
    """

    name: str
    error: str | None = None
    stored: str = ""
    size: tuple[int, int] = (0, 0)
    values: tuple[float, float] = (0.0, 0.0)
    likeness: Any = None
    rows: Any = ()
    found: Mapping[str, int] = {}


def look(data: Datasets, kind: str, on_image: Callable[[int, int], object] = lambda done, total: None) -> Facts:
    """Decode every image of both splits, and say what is in them.

    Args:
        data: of `open_data`: both splits are `Samples`.
        kind: of the data.
        on_image: is told how many of how many images are done.
    """
    splits: dict[str, Any] = {"train": data.train, "val": data.val}
    total = sum(map(len, splits.values()))
    hashes, thumbnails = np.zeros(total, "V16"), np.zeros((total, SIDE, SIDE), np.uint8)
    names, facts = [], []
    for split, samples in splits.items():
        tally = _Tally(split, samples)
        work = partial(_see, samples, kind=kind)
        for seen in in_order(range(len(samples)), work, threads=default_threads(), ahead=AT_ONCE):
            place = len(names)
            hashes[place] = place.to_bytes(16, "little")  # of what cannot be read: like nothing else
            if seen.likeness is not None:
                hashes[place], thumbnails[place] = seen.likeness
            names.append(seen.name)
            tally.add(seen)
            on_image(len(names), total)
        facts.append(tally.facts())
    twins, repeats = _twins(splits, names, find_twins(hashes, thumbnails))
    return Facts(kind=kind, splits=tuple(facts), twins=twins, repeats=repeats)


def _see(samples: Samples, index: int, kind: str) -> _Seen:
    entry, stored = samples.entries[index], []
    name = samples.reader.name(entry)

    def load(source: Any, **options: Any) -> Any:
        stored.append(stored_as(source))
        return samples.load(source, **options)

    try:
        sample = samples.read(index, load)
        unknown = getattr(samples.reader, "unknown", lambda entry: ())(entry)
    except BadImageError as error:
        return _Seen(name, str(error))
    signal, (rows, found) = sample.signal, _rows(sample, kind)
    low, high = _values(signal)
    found |= {ALONE: int(low == high), STRANGE: int(bool(unknown))}
    return _Seen(name, None, "".join(stored[:1]), signal.size, (low, high), fingerprint(signal), rows, found)


def _rows(sample: Any, kind: str) -> tuple[np.ndarray, dict[str, int]]:
    """The classes of a sample, as in `_Seen.rows`, and what is wrong with its boxes and its label map."""
    if not isinstance(sample, DenseSample):
        labels = np.array(sample.label, np.int64, ndmin=1)  # one, or several
        return np.stack((labels, 0 * labels, 0 * labels), 1), {}
    objects = np.bincount(sample.labels[~sample.crowd].numpy(), minlength=256)
    pixels, found = np.zeros_like(objects), {}
    if sample.semantic is not None:
        pixels = np.bincount(sample.semantic.numpy().ravel(), minlength=len(objects))
        pixels[IGNORE] = 0
        found[VOID] = int(not pixels.any())
    if kind == "detection":
        left, top, right, bottom = sample.boxes.numpy().T
        width, height = sample.image.size
        beyond = (left < -1) | (top < -1) | (right > width + 1) | (bottom > height + 1)
        sides = np.minimum(right - left, bottom - top)
        empty = sides <= 0
        found = {BARE: int(not objects.any()), EMPTY: empty.sum(), OUTSIDE: beyond.sum()}
        found[SMALL] = ((sides < TINY) & ~empty).sum()
    there = np.flatnonzero((objects > 0) | (pixels > 0))
    return np.stack((there, objects[there], pixels[there]), 1), found


def _values(signal: Any) -> tuple[float, float]:
    """The least and the greatest value in the file of an image."""
    if (file := signal.info.get(STORED)) is not None and file.bits > 8:
        return file.low, file.high
    if isinstance(signal, Bands):
        return float(signal.values.min()), float(signal.values.max())
    lows, highs = zip(*signal.getextrema(), strict=True)
    return float(min(lows)), float(max(highs))


class _Tally:
    """Counts what is seen of a split."""

    def __init__(self, split: str, samples: Samples) -> None:
        self.split, self.classes, self.problems = split, samples.classes, Problems()
        self.counts = np.zeros((len(samples.classes), 3), np.int64)
        self.kinds: Counter[str] = Counter()
        self.step = max(1, -(-len(samples) // KEPT))
        self.sizes: list[tuple[int, int]] = []
        self.unreadable: list[str] = []
        self.low, self.high, self.images = math.inf, -math.inf, 0

    def add(self, seen: _Seen) -> None:
        self.images += 1
        if seen.error is not None:
            self.problems.add(UNREADABLE, seen.error)
            self.unreadable += [seen.error] if len(self.unreadable) < KEPT else []
            return
        self.kinds.update([seen.stored] if seen.stored else [])
        if self.images % self.step == 0 or not self.sizes:
            self.sizes.append(seen.size)
        self.low, self.high = min(self.low, seen.values[0]), max(self.high, seen.values[1])
        for label, objects, pixels in seen.rows:
            self.counts[label] += (1, objects, pixels)
        for kind, count in seen.found.items():
            self.problems.add(kind, seen.name, count=int(count))

    def facts(self) -> SplitFacts:
        rows = zip(self.classes, self.counts.tolist(), strict=True)
        return SplitFacts(
            split=self.split,
            images=self.images,
            kinds=dict(self.kinds.most_common()),
            sizes=tuple(self.sizes),
            values=(self.low, self.high) if self.sizes else None,
            classes=tuple(ClassFacts(name=name, images=i, objects=o, pixels=p) for name, (i, o, p) in rows),
            found={one.kind: (one.count, one.first) for one in self.problems.found},
            unreadable=tuple(self.unreadable),
        )


def _twins(
    splits: Mapping[str, Samples], names: Sequence[str], pairs: Sequence[Twins]
) -> tuple[tuple[TwinFacts, ...], dict[str, int]]:
    """Pairs by name and split, the first of each kind, and how many there are of it."""
    border = len(splits["train"])
    labels = [label for samples in splits.values() for label in samples.labels or [None] * len(samples)]
    repeats: Counter[str] = Counter()
    twins = []
    for first, second, same in pairs:
        where = "train" if second < border else "val" if first >= border else "both"
        kind, contradict = f"{'same' if same else 'near'} {where}", labels[first] != labels[second]
        repeats[kind] += 1
        repeats["same classes"] += int(same and contradict)
        if repeats[kind] <= KEPT:
            places = first - border * (first >= border), second - border * (second >= border)
            twins.append(
                TwinFacts(kind=kind, names=(names[first], names[second]), places=places, contradict=contradict)
            )
    return tuple(twins), dict(repeats)
