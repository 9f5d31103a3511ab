"""Training and validation: which split is which by its name, and how one is set aside where there is none."""

import logging
from collections.abc import Iterable, Sequence

import torch

from focalnet.data.problems import preview
from focalnet.errors import UserError

log = logging.getLogger(__name__)


def choose_splits(names: Iterable[str]) -> tuple[str | None, str | None]:
    """Which of `names` is the training split and which the validation split, if any; upper or lower case.

    Training is "train"; validation is the first there is of "val", "valid", "validation" and "test".
    """
    known = {name.lower(): name for name in names}
    val = next((known[name] for name in ("val", "valid", "validation", "test") if name in known), None)
    return known.get("train"), val


def stratified_split(names: Sequence[str], val_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation split, each class split by itself.

    Every class of two samples or more has at least one in each; a single one goes to training. The result depends on
    the arguments only.

    Args:
        names: the class of each sample.
        val_fraction: share of each class for validation, between 0 and 1.
        seed: of the shuffle.

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
        raise UserError("No class has two images, so none can be set aside for validation; add images or a val/.")
    if single:
        log.warning("not validated, because they have a single image: %s", preview(single))
    return sorted(train), sorted(val)


def random_split(count: int, val_fraction: float, seed: int, place: str) -> tuple[list[int], list[int]]:
    """Indices of a training and a validation split of `count` samples; each has at least one.

    Args:
        count, val_fraction, seed: as in `stratified_split`.
        place: what to call the data in the error.

    Raises:
        UserError: `val_fraction` is not between 0 and 1, or there are no two samples.
    """
    _check_fraction(val_fraction)
    if count < 2:
        raise UserError(f"{place} has {count} image, so none can be set aside for validation; add images.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = _held_out(count, val_fraction)
    return sorted(order[held_out:]), sorted(order[:held_out])


def sort_labels(values: Iterable[str]) -> tuple[str, ...]:
    """Class names out of labels: whole numbers in their order, anything else in the order of characters."""
    distinct = set(values)
    numbers = all(value.isdecimal() for value in distinct)
    return tuple(sorted(distinct, key=lambda value: (int(value) if numbers else 0, value)))


def _check_fraction(val_fraction: float) -> None:
    if not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction is {val_fraction}; give a share between 0 and 1, for example 0.2.")


def _held_out(count: int, val_fraction: float) -> int:
    return min(max(int(count * val_fraction + 0.5), 1), count - 1)
