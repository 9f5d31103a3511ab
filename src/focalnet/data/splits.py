"""Which split is which by its name, which files are on two of them, and how one is set aside where there is none.

A name tells its split by one word, in upper or lower case, beside any others: Training, train2017, seg_train, my-val,
validation_matched, dev, testA.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from focalnet.data.problems import preview
from focalnet.errors import UserError, counted

log = logging.getLogger(__name__)

WORDS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "development", "minival", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
"""The words of each split, the usual one first."""
FILLERS = frozenset(
    "set data dataset split seg image images img imgs photos files folder coco instances panoptic".split()  # noqa: SIM905
)
"""Words that say nothing else about a folder."""
LONGEST_NUMBER = 19
"""Digits from which on a label is no number."""
STAT_ALL = 200_000
"""Most files that are all looked up; of more, those whose names occur more than once."""


class Splits(NamedTuple):
    """The names of the splits, None of those that there are not; a test split stands in where there is no val."""

    train: str | None
    val: str | None
    test: str | None


def split_of(name: str) -> str | None:
    """What a name calls itself: "train", "val", "test", or None."""
    return _read(name)[0]


def choose_splits(names: Iterable[str], *, place: str | Path = "the data", among_classes: bool = False) -> Splits:
    """Which of `names` are the splits.

    Where several name one split, the one that is called just so is taken; for validation, else the first.

    Args:
        names: of splits.
        place: what to call the data in the error.
        among_classes: `names` may be those of classes, such as "training shoes": a word of a split then counts only
            beside words that say nothing, or where the same words stand beside that of another split.

    Raises:
        UserError: two names of training splits.
    """
    found: dict[str, list[tuple[str, frozenset[str]]]] = {split: [] for split in WORDS}
    for name in sorted(names):
        split, rest = _read(name)
        if split is not None:
            found[split].append((name, rest))
    if among_classes:
        found = {
            split: [(name, rest) for name, rest in rows if not rest or _paired(rest, split, found)]
            for split, rows in found.items()
        }
    chosen: dict[str, str | None] = dict.fromkeys(WORDS)
    for split, rows in found.items():
        ranked = sorted((_rank(name, split), name) for name, _ in rows)
        if split == "train" and len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            several = preview([name for _, name in ranked])
            raise UserError(f"{several} of {place} are all called training splits: keep one, or give one of them.")
        chosen[split] = ranked[0][1] if ranked else None
    return Splits(chosen["train"], chosen["val"] or chosen["test"], chosen["test"])


def _read(name: str) -> tuple[str | None, frozenset[str]]:
    """The split that a name tells, and its other words."""
    words = [word.lower() for word in re.split(r"[\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)) if word]
    splits, rest = set(), set()
    for word in words:
        stem = next((word.removesuffix(tail) for tail in ("set", "data", "images") if word.endswith(tail)), word)
        split = next((split for split, known in WORDS.items() if word in known or stem in known), None)
        if split is None:
            rest.add(word)
        else:
            splits.add(split)
    if splits == {"train", "val"}:
        splits = {"train"}
    return (splits.pop() if len(splits) == 1 else None), frozenset(rest - FILLERS)


def _paired(rest: frozenset[str], split: str, found: dict[str, list[tuple[str, frozenset[str]]]]) -> bool:
    return any(rest == other for name, rows in found.items() if name != split for _, other in rows)


def _rank(name: str, split: str) -> int:
    words = WORDS[split]
    return words.index(name.lower()) if name.lower() in words else len(words)


def identities(*splits: Sequence[str]) -> list[list[Hashable]]:
    """A key for each file of each split, the same for a file under whatever name: through links, or spelled otherwise.

    Args:
        splits: paths, or names of what is no file; these are compared as text.
    """
    if not all(splits) or not os.path.exists(splits[0][0]):
        return [list(names) for names in splits]
    if sum(map(len, splits)) <= STAT_ALL:
        return [[_identity(name) for name in names] for names in splits]
    counts = Counter(os.path.basename(name) for names in splits for name in names)
    return [[_identity(name) if counts[os.path.basename(name)] > 1 else name for name in names] for names in splits]


def _identity(path: str) -> Hashable:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return path
    return found.st_dev, found.st_ino


def stratified_split(
    names: Sequence[str], val_fraction: float, seed: int, noun: str = "image"
) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation split, each class split by itself.

    Every class of two samples or more has at least one in each; a single one goes to training. The result depends on
    the arguments only.

    Args:
        names: the class of each sample.
        val_fraction: share of each class for validation, between 0 and 1.
        seed: of the shuffle.
        noun: what a sample is called.

    Raises:
        UserError: `val_fraction` is not between 0 and 1, or no class has two samples.
    """
    _check_fraction(val_fraction)
    generator = torch.Generator().manual_seed(seed)
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(name, []).append(index)
    train, val, single = [], [], []
    for name, indices in sorted(members.items()):
        order = torch.randperm(len(indices), generator=generator).tolist()
        held_out = _held_out(len(indices), val_fraction)
        val += [indices[i] for i in order[:held_out]]
        train += [indices[i] for i in order[held_out:]]
        if len(indices) == 1:
            single.append(name)
    if not val:
        raise UserError(f"No class has two {noun}s, so none can be set aside for validation; add {noun}s or a val/.")
    if single:
        log.warning("not validated, because they have a single %s: %s", noun, preview(single))
    return sorted(train), sorted(val)


def multilabel_split(
    labels: Sequence[Sequence[int]], val_fraction: float, seed: int, place: str
) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation split of samples with any number of labels.

    After Sechidis et al. (ECML 2011): label after label, the rarest first, samples go to validation until it has its
    share of the label; each label keeps a training sample. The result depends on the arguments only.

    Args:
        labels: of each sample.
        val_fraction: share of each label for validation, between 0 and 1.
        seed: of the shuffle.
        place: what to call the data in the error.

    Raises:
        UserError: `val_fraction` is not between 0 and 1, or no sample can be set aside.
    """
    _check_fraction(val_fraction)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
    members: dict[int, list[int]] = {}
    for index in order:
        for label in labels[index] or (-1,):  # -1: of those without a label
            members.setdefault(label, []).append(index)
    kept = {label: len(indices) for label, indices in members.items()}
    wanted = {label: _held_out(len(indices), val_fraction) for label, indices in members.items()}
    seen, val = set[int](), []
    for rarest, indices in sorted(members.items(), key=lambda item: (len(item[1]), item[0])):
        for index in indices:
            own = labels[index] or (-1,)
            if index not in seen and wanted[rarest] > 0 and all(kept[label] > 1 for label in own):
                val.append(index)
                for label in own:
                    kept[label] -= 1
                    wanted[label] -= 1
            seen.add(index)
    if not val:
        raise UserError(
            f"{place} has no image that can be set aside for validation; add images, or a validation split."
        )
    held_out = set(val)
    return [index for index in range(len(labels)) if index not in held_out], sorted(val)


def random_split(
    count: int, val_fraction: float, seed: int, place: str, noun: str = "image"
) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation split of `count` samples; each has at least one.

    Args:
        count, val_fraction, seed: as in `stratified_split`.
        place, noun: what to call the data and a sample in the error.

    Raises:
        UserError: `val_fraction` is not between 0 and 1, or there are no two samples.
    """
    _check_fraction(val_fraction)
    if count < 2:
        only = counted(count, f"{noun}s")
        raise UserError(f"{place} has {only}, so none can be set aside for validation; add {noun}s.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = _held_out(count, val_fraction)
    return sorted(order[held_out:]), sorted(order[:held_out])


def sort_labels(values: Iterable[str]) -> tuple[str, ...]:
    """Class names out of labels: whole numbers in their order, anything else in the order of characters."""
    distinct = set(values)
    numbers = all(value.isdecimal() and len(value) < LONGEST_NUMBER for value in distinct)
    return tuple(sorted(distinct, key=lambda value: (int(value) if numbers else 0, value)))


def _check_fraction(val_fraction: float) -> None:
    if not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction is {val_fraction}; give a share between 0 and 1, for example 0.2.")


def _held_out(count: int, val_fraction: float) -> int:
    return min(max(int(count * val_fraction + 0.5), 1), count - 1)
