"""What a run trains with, where its caller says little: the task, the network, the recipe, and what that sets.

The command line (`cli.training`) and Python (`focalnet.train`) begin here, so a recipe means the same in both. Nothing
here imports torch.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from focalnet.engine.config import TrainConfig
from focalnet.engine.recipes import get_recipe
from focalnet.engine.recipes.base import has_start, released
from focalnet.errors import UserError, unknown
from focalnet.models.registry import parse_name
from focalnet.schemas import as_type, build
from focalnet.tasks import get_options, options_of_model
from focalnet.tasks.options import TaskOptions

OnFault = Literal["stop", "warn", "off"]
Options = TypeVar("Options", TaskOptions, TrainConfig)
log = logging.getLogger(__name__)

SMALL = "small"
"""The `model` that is a network which a CPU trains, whatever the task."""
CHOOSING = ("task", "recipe", "model", "data", "weights", "epochs", "batch_size")
"""The options that the defaults of the others depend on."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What chooses the other options."""

    task: str = "classify"
    """What to train for: classify, multilabel, detect, segment or panoptic; without it, what --model is for."""
    recipe: str | None = None
    """Where the other defaults come from (`focalnet recipes`); without it, one for the task and the data."""
    out: Path | None = None
    """The run folder to make; without it, runs/MODEL-DATA-N."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1, mps or xpu; without it, the GPU if there is one."""
    check: Annotated[OnFault, tyro.conf.Suppress] = "stop"
    """What `focalnet check` finds wrong before the first step stops the run, is told alone, or is not looked for."""


def choose(said: Mapping[str, Any]) -> tuple[TaskOptions, TrainConfig, Choice]:
    """The options that a call of `focalnet.train` means.

    Args:
        said: its arguments by name: fields of `Choice`, of the task's options and of `TrainConfig`.

    Raises:
        UserError: one is unknown, which the sentence compares with the nearest names, of another type, or out of range.
    """
    said = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in said.items()}
    options, training, choice = parts = defaults(said)
    known = {field.name for part in parts for field in dataclasses.fields(part)}
    for name in said:
        if name not in known:
            raise unknown(f"option of --task {choice.task}", name, known)
    said["model"] = options.model
    out, device = said.get("out"), said.get("device")
    place = {"out": None if out is None else Path(out), "device": None if device is None else str(device)}
    place["check"] = as_type(said.get("check", choice.check), OnFault, "focalnet.train: check", "give another value")
    return _changed(options, said), _changed(training, said), dataclasses.replace(choice, **place)


def _changed(options: Options, said: Mapping[str, Any]) -> Options:
    """A dataclass of options with what is said in the place of its defaults."""
    fields = {name: said.get(name, value) for name, value in vars(options).items()}
    return build(type(options), fields, "focalnet.train", "give another value")


def defaults(said: Mapping[str, Any]) -> tuple[TaskOptions, TrainConfig, Choice]:
    """The task's options, the `TrainConfig` and the `Choice` that a run has where nothing else is said.

    Args:
        said: those of `CHOOSING` that are said, by name; `weights` None means random ones.

    Raises:
        UserError: an unknown task, recipe or model, or a recipe for another task.
    """
    model = said.get("model")
    named = None if model == SMALL else model
    task = options_of_model(named) if said.get("task") is None else get_options(said["task"])
    model, name = _start(task, said)
    parse_name(model)
    recipe = get_recipe(name, model)
    if task.name not in recipe.tasks:
        raise UserError(f"The recipe {recipe.name} is for --task {' or '.join(recipe.tasks)}, not for {task.name}.")
    train: dict[str, Any] = dict(recipe.train)
    for option, least in (("batch_size", "least_steps"), ("epochs", "least_total")):
        if said.get(option) is not None:  # what is asked for is not made to fit the data
            train.pop(least, None)
    return task(model=model, **recipe.task), TrainConfig(**train), Choice(task=task.name, recipe=recipe.name)


def _start(task: type[TaskOptions], said: Mapping[str, Any]) -> tuple[str, str]:
    """The model and the recipe that a run begins with.

    A folder is trained from released weights where the network has some, else from random ones. Without a model and
    without a way to the weights, a small network is trained, which the log says.
    """
    recipe, weights = said.get("recipe"), said.get("weights")
    small = task.small or task.embedded.model
    model = small if said.get("model") == SMALL else said.get("model")
    if said.get("data") in (None, task.embedded.data):
        return model or task.embedded.model, recipe or task.embedded.recipe
    scratch = task.scratch or task.recipe
    anew = ("weights" in said and weights is None) or recipe == scratch
    if model is None and weights is None and recipe in (None, scratch):
        model = task().model
        why = None if anew else f"the weights of {model} cannot be fetched"
        if anew or not has_start(model):
            log.info("%s is trained from random weights%s", small, f": {why}" if why else "")
            return small, scratch
    model = model or task().model
    return model, recipe or (scratch if anew or not (weights or released(model)) else task.recipe)


def leaves_model(said: Mapping[str, Any]) -> bool:
    """Whether a caller who says this leaves it to us which network is trained."""
    return said.get("model") in (None, SMALL) and said.get("recipe") is None


def new_run(task: TaskOptions) -> Path:
    """A run folder that is not there yet: runs/MODEL-DATA-N."""
    name = f"{task.model}-{Path(task.data).name if task.data else task.embedded.data}"
    number = 1
    while Path("runs", f"{name}-{number}").exists():
        number += 1
    return Path("runs", f"{name}-{number}")
