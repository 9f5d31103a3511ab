"""What a recipe is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from focalnet.models.registry import parse_name
from focalnet.weights.hub import ENTRIES, WeightsEntry, is_reachable

FEW = {"least_steps": 20, "least_total": 460}
"""Options of `TrainConfig` for data of any size: few samples make small batches and many epochs."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Options of a run, with their provenance."""

    name: str
    tasks: tuple[str, ...] = ("classify",)
    """The tasks that it is for."""
    summary: str
    """What it is for, one sentence."""
    command: str
    """A command that uses it."""
    cost: str
    """What it takes."""
    result: str
    """What it should give, and who says so."""
    task: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task that it sets."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Options of `TrainConfig` that it sets."""


def has_start(model: str) -> bool:
    """Whether a fine-tuning of `model` can begin: the released file of its variant is here, or can be fetched."""
    return any(map(is_reachable, _official(model)))


def released(model: str) -> Literal["official"] | None:
    """Where a fine-tuning of `model` starts: the official file of its variant, random weights where there is none."""
    return "official" if any(row.unreachable is None for row in _official(model)) else None


def _official(model: str) -> list[WeightsEntry]:
    """The released files of a model's variant."""
    variant = parse_name(model).variant
    return [row for row in ENTRIES.values() if (row.variant, row.source) == (variant, "official")]
