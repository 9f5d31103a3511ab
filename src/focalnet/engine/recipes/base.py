"""What a recipe is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
