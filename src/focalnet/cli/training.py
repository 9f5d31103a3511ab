"""The options of `focalnet train`.

`--task`, `--recipe`, `--model` and `--data` are looked at first, because they choose what the other options are and
what they default to.
"""

import dataclasses
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from focalnet.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What chooses the other options."""

    task: str = "classify"
    """What to train for: classify, detect, segment or panoptic; without it, what --model is for."""
    recipe: str | None = None
    """Where the other defaults come from (`focalnet recipes`); without it, one for the task and the data."""
    out: Path | None = None
    """The run folder to make; without it, runs/MODEL-DATA-N."""


def parse_train(arguments: Sequence[str]) -> tuple[Any, Any, Choice]:
    """The task, the `TrainConfig` and the `Choice` that the arguments of `focalnet train` mean."""
    from focalnet.engine.config import TrainConfig
    from focalnet.engine.recipes import get_recipe
    from focalnet.models.registry import parse_name
    from focalnet.tasks import get_task, task_of_model

    early = ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("task", "recipe", "model", "data"):
        early.add_argument(f"--{name}")
    chosen = early.parse_known_args([argument for argument in arguments if argument not in ("-h", "--help")])[0]
    task = task_of_model(chosen.model) if chosen.task is None else get_task(chosen.task)
    embedded = chosen.data in (None, task.embedded.data)
    model = chosen.model or (task.embedded.model if embedded else task().model)
    parse_name(model)
    recipe = get_recipe(chosen.recipe or (task.embedded.recipe if embedded else task.recipe), model)
    if task.name not in recipe.tasks:
        raise UserError(f"The recipe {recipe.name} is for --task {' or '.join(recipe.tasks)}, not for {task.name}.")

    kind = dataclasses.make_dataclass(
        "TrainArguments",
        [
            ("run", tyro.conf.OmitArgPrefixes[Choice]),
            ("task", tyro.conf.OmitArgPrefixes[task]),
            ("training", tyro.conf.OmitArgPrefixes[TrainConfig]),
        ],
        frozen=True,
    )
    default = kind(
        Choice(task=task.name, recipe=recipe.name), task(model=model, **recipe.task), TrainConfig(**recipe.train)
    )
    description = (
        f"Train a network. These are the defaults of the recipe {recipe.name!r}: {recipe.summary} "
        f"It costs {recipe.cost} and gives {recipe.result}."
    )
    parsed = tyro.cli(kind, prog="focalnet train", description=description, args=list(arguments), default=default)
    return parsed.task, parsed.training, parsed.run


def new_run(task: Any) -> Path:
    """A run folder that is not there yet: runs/MODEL-DATA-N."""
    name = f"{task.model}-{Path(task.data).name if task.data else task.embedded.data}"
    number = 1
    while Path("runs", f"{name}-{number}").exists():
        number += 1
    return Path("runs", f"{name}-{number}")
