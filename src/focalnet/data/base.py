"""Labelled images with random access, whatever they are stored in.

`Images` is the only data set class; a `Reader` knows one kind of storage, and a `Part` is what it found there. Data
sets hold no state and draw no random numbers: sample i is the same in every process and after every restart.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from PIL import Image
from torch.utils.data import Dataset

from focalnet.errors import UserError
from focalnet.inputs.image import BadImageError

log = logging.getLogger(__name__)

OnBadImage = Literal["stop", "skip"]


class Reader(Protocol):
    """One kind of storage. `where` is whatever it keeps for one image; it goes to worker processes as it is."""

    def name(self, where: Any) -> str:
        """What to call the image."""
        ...

    def read(self, where: Any) -> Image.Image:
        """The image, RGB; `BadImageError` where it cannot be decoded."""
        ...


class Part(NamedTuple):
    """What an opener found: one side of the data.

    Attributes:
        reader: how to read an image.
        where: one entry per image, for `reader`.
        names: the class of each image, by name.
        classes: all class names, in the order of the labels.
    """

    reader: Reader
    where: Sequence[Any]
    names: Sequence[str]
    classes: tuple[str, ...]

    def take(self, indices: Iterable[int]) -> "Part":
        indices = list(indices)
        return self._replace(where=[self.where[i] for i in indices], names=[self.names[i] for i in indices])


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        image: RGB.
        label: index into `Images.classes`.
        path: where the image lies.
        skipped: paths of the images that could not be read, in whose place this one stands.
    """

    image: Image.Image
    label: int
    path: str
    skipped: tuple[str, ...] = ()


class Pictures(Dataset[Sample]):
    """Labelled images, read when asked for.

    With `on_bad_image="skip"`, the place of an image that cannot be read is taken by the next one that can, and the
    sample names what it stands for in `skipped`. So nothing is kept between calls: the order of a resumed run and the
    work of other processes cannot change a sample, and who collects the samples counts and reports the bad images.
    For a measurement leave samples with `skipped` out, or the next image counts twice.

    Args:
        part: what to read, and how.
        classes: the names that labels index; every class in `part` must be among them.
        on_bad_image: "stop" raises `BadImageError`, "skip" takes the next image.
    """

    def __init__(self, part: Part, classes: Sequence[str], on_bad_image: OnBadImage) -> None:
        index = {name: label for label, name in enumerate(classes)}
        self.classes = tuple(classes)
        self.labels = [index[name] for name in part.names]
        self.on_bad_image = on_bad_image
        self._reader, self._where = part.reader, part.where

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """The sample; `BadImageError` names an image that cannot be read."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        skipped = []
        for step in range(len(self)):
            place = (index + step) % len(self)
            where = self._where[place]
            path = self._reader.name(where)
            try:
                return Sample(self._reader.read(where), self.labels[place], path, tuple(skipped))
            except BadImageError as error:
                if self.on_bad_image == "stop":
                    raise BadImageError(f"{error} To go on without it: --on-bad-image skip.") from error
                skipped.append(path)
        raise BadImageError(f"None of the {len(self)} images can be read, the first is {skipped[0]}: check the data.")


def choose_splits(names: Iterable[str]) -> tuple[str | None, str | None]:
    """Which of `names` is the training side and which the validation side, if any; upper or lower case.

    Training is "train"; validation is the first there is of "val", "valid", "validation" and "test".
    """
    known = {name.lower(): name for name in names}
    val = next((known[name] for name in ("val", "valid", "validation", "test") if name in known), None)
    return known.get("train"), val


def stratified_split(names: Sequence[str], val_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation side, each class split by itself.

    Every class of two images or more has at least one on each side; a single image goes to training. The result
    depends on the arguments only.

    Args:
        names: the class of each image.
        val_fraction: share of each class for validation, between 0 and 1.
        seed: of the shuffle.

    Raises:
        UserError: `val_fraction` is not between 0 and 1, or no class has two images.
    """
    if not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction is {val_fraction}; give a share between 0 and 1, for example 0.2.")
    generator = torch.Generator().manual_seed(seed)
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(name, []).append(index)
    train, val, single = [], [], []
    for name, indices in sorted(members.items()):
        order = torch.randperm(len(indices), generator=generator).tolist()
        held_out = min(max(int(len(indices) * val_fraction + 0.5), 1), len(indices) - 1)
        val += [indices[i] for i in order[:held_out]]
        train += [indices[i] for i in order[held_out:]]
        if len(indices) == 1:
            single.append(name)
    if not val:
        raise UserError("No class has two images, so none can be set aside for validation; add images or a val/.")
    if single:
        log.warning("not validated, because they have a single image: %s", preview(single))
    return sorted(train), sorted(val)


def sort_labels(values: Iterable[str]) -> tuple[str, ...]:
    """Class names out of labels: whole numbers in their order, anything else in the order of characters."""
    distinct = set(values)
    numbers = all(value.isdecimal() for value in distinct)
    return tuple(sorted(distinct, key=lambda value: (int(value) if numbers else 0, value)))


def preview(names: Sequence[str], most: int = 8) -> str:
    """The first few names, for a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def endings(files: Iterable[str]) -> str:
    """How often each ending occurs among files, for a sentence: ".txt 3, .heic 1"."""
    counts = Counter("." + name.rpartition(".")[2].lower() if "." in name[1:] else name for name in files)
    return preview([f"{ending} {count}" for ending, count in counts.most_common()])
