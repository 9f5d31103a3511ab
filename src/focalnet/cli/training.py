"""The options of `focalnet train`.

`--task`, `--recipe`, `--model` and `--data` are looked at first, because they choose what the other options are and
what they default to. The options are the fields of `Choice`, of the task's options and of `TrainConfig`; `GROUPS` puts
them in the order in which the help shows them. A field that is `tyro.conf.Suppress` is taken, and not shown.
"""

import ast
import dataclasses
import inspect
import itertools
import logging
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from focalnet.errors import UserError

log = logging.getLogger(__name__)

SMALL = "small"
"""`--model` for a network that a CPU trains, whatever the task."""

GROUPS: dict[str, tuple[str, ...]] = {
    "run": ("task", "recipe", "out", "seed"),
    "data": ("data", "num_classes", "val_fraction", "on_bad_image", "on_bad_annotation"),
    "model": ("model", "weights", "freeze", "detections", "drop_path", "recompute"),
    "input": ("image_size", "resize", "range", "channels"),
    "training": (
        *("epochs", "batch_size", "accumulate", "lr", "warmup_epochs", "weight_decay", "clip_grad", "ema"),
        *("patience", "class_weights"),
    ),
    "augmentation": ("augment", "mixing", "label_smoothing"),
    "machine": ("precision", "compile", "strategy", "workers", "trackers"),
}
"""Group of the help -> names of its options; what is in none of them comes last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What chooses the other options."""

    task: str = "classify"
    """What to train for: classify, detect, segment or panoptic; without it, what --model is for."""
    recipe: str | None = None
    """Where the other defaults come from (`focalnet recipes`); without it, one for the task and the data."""
    out: Path | None = None
    """The run folder to make; without it, runs/MODEL-DATA-N."""


def parse_train(arguments: Sequence[str]) -> tuple[Any, Any, Any]:
    """The task's options, the `TrainConfig` and the `Choice` that the arguments of `focalnet train` mean."""
    from focalnet.engine.config import TrainConfig
    from focalnet.engine.recipes import get_recipe
    from focalnet.models.registry import parse_name
    from focalnet.tasks import get_options, options_of_model

    early = ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("task", "recipe", "model", "data", "weights", "epochs", "batch_size"):
        early.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name)
    chosen = early.parse_known_args([argument for argument in arguments if argument not in ("-h", "--help")])[0]
    named = None if chosen.model == SMALL else chosen.model
    task = options_of_model(named) if chosen.task is None else get_options(chosen.task)
    model, name = _start(task, chosen)
    parse_name(model)
    recipe = get_recipe(name, model)
    if task.name not in recipe.tasks:
        raise UserError(f"The recipe {recipe.name} is for --task {' or '.join(recipe.tasks)}, not for {task.name}.")

    train: dict[str, Any] = dict(recipe.train)
    for option, least in (("batch_size", "least_steps"), ("epochs", "least_total")):
        if getattr(chosen, option) is not None:  # what is asked for is not made to fit the data
            train.pop(least, None)
    parts = (
        Choice(task=task.name, recipe=recipe.name),
        task(model=model, **recipe.task),
        TrainConfig(**train),
    )
    description = (
        f"Train a network. These are the defaults of the recipe {recipe.name!r}: {recipe.summary} "
        f"It costs {recipe.cost} and gives {recipe.result}."
    )
    values = _parse(parts, description, arguments)
    values["model"] = model
    choice, options, training = (type(part)(**{name: values[name] for name in vars(part)}) for part in parts)
    return options, training, choice


def _start(task: Any, chosen: Namespace) -> tuple[str, str]:
    """The model and the recipe that a run begins with.

    A folder is trained from released weights where the network has some, else from random ones. Without --model and
    without a way to the weights, a small network is trained, which the log says.
    """
    from focalnet.engine.recipes.base import has_start, released

    small = task.small or task.embedded.model
    model = small if chosen.model == SMALL else chosen.model
    if chosen.data in (None, task.embedded.data):
        return model or task.embedded.model, chosen.recipe or task.embedded.recipe
    scratch = task.scratch or task.recipe
    anew = chosen.weights == "None" or chosen.recipe == scratch
    if model is None and chosen.weights in (None, "None") and chosen.recipe in (None, scratch):
        model = task().model
        why = None if anew else f"the weights of {model} cannot be fetched"
        if anew or not has_start(model):
            log.info("%s is trained from random weights%s", small, f": {why}" if why else "")
            return small, scratch
    model = model or task().model
    return model, chosen.recipe or (scratch if anew or not (chosen.weights or released(model)) else task.recipe)


def _parse(parts: Sequence[Any], description: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The fields of several dataclasses as one list of flags, with their values here as the defaults."""
    defaults = {name: value for part in parts for name, value in vars(part).items()}
    written = {argument.split("=")[0].lstrip("-").replace("-", "_") for argument in arguments}
    hints = {  # a hidden field is one that tyro knows where it is written
        name: Annotated[get_args(hint)[0] if name in written and _is_hidden(hint) else hint, tyro.conf.arg(help=text)]
        for part in parts
        for name, (hint, text) in _documented(type(part)).items()
    }
    placed = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "other": tuple(name for name in defaults if name not in placed)}
    kinds = {
        group: dataclasses.make_dataclass(group, [(name, hints[name]) for name in names if name in hints], frozen=True)
        for group, names in groups.items()
    }
    whole = dataclasses.make_dataclass(
        "TrainArguments", [(group, tyro.conf.OmitArgPrefixes[kind]) for group, kind in kinds.items()], frozen=True
    )
    default = whole(**{
        group: kind(**{field.name: defaults[field.name] for field in dataclasses.fields(kind)})
        for group, kind in kinds.items()
    })  # fmt: skip
    parsed = tyro.cli(whole, prog="focalnet train", description=description, args=list(arguments), default=default)
    return {name: value for group in vars(parsed).values() for name, value in vars(group).items()}


def _is_hidden(hint: Any) -> bool:
    return get_origin(hint) is Annotated and tyro.conf.Suppress in get_args(hint)


def _documented(cls: type) -> dict[str, tuple[Any, str]]:
    """Name -> type and description of each field of a dataclass: the text under it in the source."""
    texts: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        (body,) = (node.body for node in ast.parse(textwrap.dedent(inspect.getsource(owner))).body)  # type: ignore
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: (hints[field.name], texts.get(field.name, "")) for field in dataclasses.fields(cls)}


def new_run(task: Any) -> Path:
    """A run folder that is not there yet: runs/MODEL-DATA-N."""
    name = f"{task.model}-{Path(task.data).name if task.data else task.embedded.data}"
    number = 1
    while Path("runs", f"{name}-{number}").exists():
        number += 1
    return Path("runs", f"{name}-{number}")
