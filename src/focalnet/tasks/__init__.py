"""The tasks: every module of this folder but the `SHARED` ones defines one `Task`, found by its file name; `register`
adds one from outside the package. Options are told without importing a task, see `options`."""

import importlib
import pkgutil
from typing import TYPE_CHECKING, TypeVar

from focalnet.errors import UserError, unknown
from focalnet.models.registry import get_family, parse_name
from focalnet.tasks.options import OPTIONS, TaskOptions
from focalnet.weights.spec import ModelSpec

if TYPE_CHECKING:
    from focalnet.tasks.base import Task

SHARED = (
    "adversary", "base", "batches", "classes", "coded", "common_options", "dense", "detection_report", "figures",
    "options", "parts", "results", "signal_options", "signals", "weighting",
)  # fmt: skip
_REGISTERED: "dict[str, type[Task]]" = {}

Class = TypeVar("Class", bound="type[Task]")


def register(task: Class) -> Class:
    """Make a task from outside the package known, so that run folders and `--task` can name it. Also a decorator."""
    _REGISTERED[task.name] = task
    return task


def list_tasks() -> list[str]:
    """Names of the tasks."""
    ours = (module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED)
    return sorted({*ours, *_REGISTERED})


def get_task(name: str) -> "type[Task]":
    """The task class called `name`.

    Raises:
        UserError: there is none; the message suggests the nearest names.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in list_tasks():
        raise unknown("task", name, list_tasks())
    from focalnet.tasks.base import Task

    module = importlib.import_module(f"{__name__}.{name}")
    (task,) = (
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Task) and item.__module__ == module.__name__
    )
    return task


def get_options(name: str) -> type[TaskOptions]:
    """The options of the task called `name`: those of the package without its module.

    Raises:
        UserError: there is none; the message suggests the nearest names.
    """
    return get_task(name) if name in _REGISTERED or name not in OPTIONS else OPTIONS[name]


def name_of_task(head: str) -> str:
    """The first task that models with this `ModelSpec.head` serve.

    Raises:
        UserError: they serve none.
    """
    for name in get_family(head).tasks:
        return name
    raise UserError(f"No task uses a model with the head {head!r}; load it with focalnet.create_model and call it.")


def options_of_model(name: str | None) -> type[TaskOptions]:
    """The options of the task for the model called `name`; those of classification without one."""
    return get_options(name_of_task("classifier" if name is None else parse_name(name).head))


def task_of(spec: ModelSpec) -> "type[Task]":
    """What a network was trained for."""
    return get_task(spec.task or name_of_task(spec.head))
