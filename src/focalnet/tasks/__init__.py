"""The tasks: every module of this folder but `base` and `scenes` defines one `Task`, found by its file name."""

import importlib
import pkgutil

from focalnet.errors import UserError, unknown
from focalnet.models.registry import get_family, parse_name
from focalnet.tasks.base import Task
from focalnet.weights.spec import ModelSpec

SHARED = ("base", "dense")


def list_tasks() -> list[str]:
    """Names of the tasks."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED)


def get_task(name: str) -> type[Task]:
    """The task class called `name`.

    Raises:
        UserError: there is none; the message suggests the nearest names.
    """
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
