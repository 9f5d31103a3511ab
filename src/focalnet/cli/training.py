"""The options of `focalnet train`.

`--task`, `--recipe`, `--model` and `--data` are looked at first, because they choose what the other options are and
what they default to. The options are the fields of `Choice`, of the task's options and of `TrainConfig`; `GROUPS` puts
them in the order in which the help shows them. A field that is `tyro.conf.Suppress` is taken, and not shown.
"""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

GROUPS: dict[str, tuple[str, ...]] = {
    "run": ("task", "recipe", "out", "seed"),
    "data": ("data", "num_classes", "val_fraction", "on_bad_image", "on_bad_annotation", "on_bad_file"),
    "model": ("model", "weights", "freeze", "detections", "drop_path", "recompute"),
    "input": ("image_size", "resize", "range", "channels", "seconds", "frames"),
    "training": (
        *("epochs", "batch_size", "accumulate", "lr", "warmup_epochs", "weight_decay", "clip_grad", "ema"),
        *("patience", "class_weights", "stage"),
    ),
    "augmentation": ("augment", "mixing", "label_smoothing"),
    "machine": ("device", "precision", "compile", "strategy", "workers", "trackers"),
}
"""Group of the help -> names of its options; what is in none of them comes last."""


def parse_train(arguments: Sequence[str]) -> tuple[Any, Any, Any]:
    """The task's options, the `TrainConfig` and the `Choice` that the arguments of `focalnet train` mean."""
    from focalnet.engine.choice import defaults
    from focalnet.engine.recipes import get_recipe

    said = said_first(arguments)
    parts = defaults(said)
    options, _, choice = parts
    recipe = get_recipe(choice.recipe or "", options.model)
    description = (
        f"Train a network. These are the defaults of the recipe {recipe.name!r}: {recipe.summary} "
        f"It costs {recipe.cost} and gives {recipe.result}."
    )
    values = _parse(parts, description, arguments)
    values["model"] = options.model
    options, training, choice = (type(part)(**{name: values[name] for name in vars(part)}) for part in parts)
    return options, training, choice


def said_first(arguments: Sequence[str]) -> dict[str, str | None]:
    """The options that the defaults of the others depend on, where they are said, by name."""
    from focalnet.engine.choice import CHOOSING

    early = ArgumentParser(add_help=False, allow_abbrev=False)
    for name in CHOOSING:
        early.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name)
    written = early.parse_known_args([argument for argument in arguments if argument not in ("-h", "--help")])[0]
    return {name: None if value == "None" else value for name, value in vars(written).items() if value is not None}


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
