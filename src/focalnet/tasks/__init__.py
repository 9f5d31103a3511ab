"""The tasks: every module of this folder but `base` defines one `Task`, found by its file name."""

import importlib
import pkgutil

from focalnet.errors import UserError, unknown
from focalnet.tasks.base import Task


def list_tasks() -> list[str]:
    """Names of the tasks."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


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
    """The task that uses models with this `ModelSpec.head`.

    Raises:
        UserError: no task does.
    """
    for name in list_tasks():
        if head in get_task(name).heads:
            return get_task(name)
    raise UserError(f"No task uses a model with the head {head!r}; load it with focalnet.create_model and call it.")
