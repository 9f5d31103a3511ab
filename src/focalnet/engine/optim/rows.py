"""What a row of the registers of optimizers and schedules is, and its options."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from focalnet.errors import unknown

if TYPE_CHECKING:
    import torch
    from torch import nn

Groups = list[dict[str, Any]]
"""Parameter groups, as torch's optimizers take them."""
Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The options of a row that has none."""


class Place(NamedTuple):
    """Where a run is.

    Attributes:
        step: optimizer steps done, over the whole run.
        steps_per_epoch: optimizer steps of an epoch.
        epochs: of the whole run.
    """

    step: int
    steps_per_epoch: int
    epochs: int

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return min(self.step / (self.epochs * self.steps_per_epoch), 1.0)


class Build(Protocol):
    """Makes an optimizer for the `groups` of a `network` with the peak learning rate `lr`."""

    def __call__(self, network: "nn.Module", groups: Groups, lr: float, options: Any, /) -> "torch.optim.Optimizer": ...


class Rate(Protocol):
    """The learning rate after the warm-up, between the `peak` and the `end`."""

    def __call__(self, place: Place, peak: float, end: float, options: Any, /) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer.

    Attributes:
        name: what `TrainConfig.optimizer` calls it.
        build: makes it, or "module:function", imported when it is first needed: an option is checked without torch.
        options: a frozen dataclass: its own options.
        whole: whether it needs whole parameters, which `--strategy fsdp` does not have.
    """

    name: str
    build: Build | str
    options: type[Any] = NoOptions
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A course of the learning rate over a run.

    Attributes:
        name: what `TrainConfig.schedule` calls it.
        rate: the learning rate at a place of the run.
        options: a frozen dataclass: its own options.
    """

    name: str
    rate: Rate
    options: type[Any] = NoOptions


def find(what: str, name: str, rows: Mapping[str, Row]) -> Row:
    """The row called `name`.

    Raises:
        UserError: there is none; the message suggests the nearest names.
    """
    if name not in rows:
        raise unknown(what, name, rows)
    return rows[name]


def build_options(row: Optimizer | Schedule, given: Mapping[str, Any]) -> Any:
    """The options of a row: its defaults with what was `given`; lists, as JSON has them, are tuples.

    Raises:
        UserError: the row has no such option.
    """
    names = [field.name for field in dataclasses.fields(row.options)]
    for name in given:
        if name not in names:
            raise unknown(f"option of the {type(row).__name__.lower()} {row.name!r}", name, names)
    return row.options(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
