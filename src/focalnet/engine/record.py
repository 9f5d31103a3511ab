"""What a run folder keeps of its beginning, read again: the task, the options and the data of a run."""

import dataclasses
import os
from typing import Any

from focalnet.engine.config import TrainConfig
from focalnet.engine.loader import stable_seed
from focalnet.engine.run import FACTS, RunFolder
from focalnet.errors import UserError
from focalnet.schemas import as_type, build
from focalnet.tasks import get_task
from focalnet.tasks.base import Datasets, Task


def load_run(run: RunFolder) -> tuple[Task, TrainConfig]:
    """The task and the options that a run folder was made with.

    A place in it is taken for a name of the hub only where the run had it from the hub.
    """
    path, record = run.path / "config.json", run.config()
    for part in ("task", "train", "data"):
        if part not in record:
            raise UserError(f"{path} lacks {part}; give the folder that `focalnet train` made.")
    for fact, hint in FACTS.items():
        as_type(record["data"].get(fact), hint, f"{path}: data: {fact}")
    options = dict(record["task"])
    kind = get_task(as_type(options.pop("name", None), str, f"{path}: the name of the task"))
    return build(kind, options, f"{path}: task").located(recorded=True), build(
        TrainConfig, record["train"], f"{path}: train"
    )


def open_run_data(
    run: RunFolder, task: Task, config: TrainConfig, moved: str | None = None
) -> tuple[Task, Datasets, str]:
    """The data that a run was trained on.

    Args:
        run: the run folder.
        task, config: of `load_run`.
        moved: where the data is now; without it, where it was.

    Returns:
        the task, which knows where its data is; both splits; and how they differ from what the run began with, empty
        where they do not.

    Raises:
        UserError: nothing is there, or no data.
    """
    if moved is None and data_is_gone(task):
        raise UserError(
            f"{run.path} was trained on {task.data}, which is not there: put it back, or say where it is now with the "
            "--data of resume and evaluate; predict and explain take images."
        )
    task = task if moved is None else dataclasses.replace(task, data=moved).located()
    data = task.datasets(config.seed)
    before = run.config()["data"]
    changes = (
        f"The data changed since the run began: {fact} were {before[fact]} and are {present}"
        for fact, present in fingerprint(data).items()
        if present != before[fact]
    )
    return task, data, next(changes, "")


def data_is_gone(task: Task) -> bool:
    """Whether the data of a task is a place on the disk with nothing there."""
    place = task.data or ""
    return os.path.isabs(place) and not os.path.exists(place) and not set("*?[{") & set(place)


def fingerprint(data: Datasets) -> dict[str, Any]:
    """What tells whether data is what it was."""
    return {
        "training samples": len(data.train),
        "validation samples": len(data.val),
        "classes": stable_seed(*data.classes) if len(data.classes) > 1000 else list(data.classes),
    }
