"""The tasks: every module of this folder but `base` and `dense` defines one `Task`, found by its file name; `register`
adds one from outside the package."""

import importlib
import pkgutil
from typing import TypeVar

from focalnet.errors import UserError, unknown
from focalnet.models.registry import get_family, parse_name
from focalnet.tasks.base import Task
from focalnet.weights.spec import ModelSpec

SHARED = ("base", "dense")
_REGISTERED: dict[str, type[Task]] = {}

Class = TypeVar("Class", bound=type[Task])


def register(task: Class) -> Class:
    """Make a task from outside the package known, so that run folders and `--task` can name it. Also a decorator."""
    _REGISTERED[task.name] = task
    return task


def list_tasks() -> list[str]:
    """Names of the tasks."""
    ours = (module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED)
    return sorted({*ours, *_REGISTERED})


def get_task(name: str) -> type[Task]:
    """The task class called `name`.

    Raises:
        UserError: there is none; the message suggests the nearest names.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in list_tasks():
        raise unknown("task", name, list_tasks())
    module = importlib.import_module(f"{__name__}.{name}")
    (task,) = (
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Task) and item.__module__ == module.__name__
    )
    return task


def task_of_head(head: str) -> type[Task]:
    """The first task that models with this `ModelSpec.head` serve.

    Raises:
        UserError: they serve none.
    """
    for name in get_family(head).tasks:
        return get_task(name)
    raise UserError(f"No task uses a model with the head {head!r}; load it with focalnet.create_model and call it.")


def task_of_model(name: str | None) -> type[Task]:
    """The task for the model called `name`; classification without one."""
    return task_of_head("classifier" if name is None else parse_name(name).head)


def task_of(spec: ModelSpec) -> type[Task]:
    """What a network was trained for."""
    return get_task(spec.task) if spec.task else task_of_head(spec.head)
