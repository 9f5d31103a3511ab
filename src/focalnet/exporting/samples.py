"""The samples that a file in int8 is calibrated with, and those that it is measured on."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focalnet.data.survey import reading
from focalnet.engine.evaluate import own_split
from focalnet.engine.loader import Subset
from focalnet.engine.record import load_run
from focalnet.engine.run import RunFolder, is_run
from focalnet.errors import UserError
from focalnet.inputs.files import find_files
from focalnet.tasks import task_of
from focalnet.tasks.base import MapDataset, Task
from focalnet.weights.spec import ModelSpec

CALIBRATION = 128
"""Samples that give the ranges of values, at most."""
MEASURED = 2000
"""Held-out samples of the metrics, at most."""


@dataclass(frozen=True)
class Samples:
    """What a file in int8 is made and judged with.

    Attributes:
        task: of the network.
        signals: reads those to calibrate with, one by one.
        count: how many they are.
        held_out: others, with their labels.
    """

    task: Task
    signals: Callable[[], Iterator[Any]]
    count: int
    held_out: MapDataset


def find_samples(model: Any, spec: ModelSpec, source: str | os.PathLike[str]) -> Samples:
    """Samples of a run, or of a user's own.

    Args:
        model: a run folder, whose validation split is measured on; or any other model.
        spec: of the network.
        source: "run" for the training split of the run; else a folder to calibrate with. Of a model that is no run, it
            is measured on the folder's validation split, or on every other sample, and so has their labels.

    Raises:
        UserError: "run" of what is none, or the samples cannot be opened.
    """
    how, source = spec.preprocessing, os.fspath(source)
    if is_run(model):
        run = RunFolder.open(Path(model))
        task, config = load_run(run)
        held_out = reading(own_split(run, task, config, lambda: spec)[0], how.read)
        if source != "run":
            files = _spread(find_files([source], how.kind), CALIBRATION)
            return Samples(task, lambda: map(how.read, files), len(files), _measured(held_out))
        learned = reading(own_split(run, task, config, lambda: spec, "train")[0], how.read)
    elif source == "run":
        raise UserError("--int8 run takes the training samples of a run, and this model is none: give a folder.")
    else:
        task = task_of(spec)().with_options(data=source)
        try:
            held_out = reading(task.evaluation_data(spec), how.read)
        except UserError as error:
            raise UserError(f"{error} What int8 costs is measured on the folder, by its labels.") from error
        try:
            learned = reading(task.evaluation_data(spec, "train"), how.read)
            divided = task.signal(learned[0])[0] != task.signal(held_out[0])[0]
        except UserError:
            divided = False
        if not divided:
            learned, held_out = (Subset(held_out, range(first, len(held_out), 2)) for first in (0, 1))
    chosen = _spread(range(len(learned)), CALIBRATION)

    def signals() -> Iterator[Any]:
        return (task.signal(learned[index])[1] for index in chosen)

    return Samples(task, signals, len(chosen), _measured(held_out))


def _measured(dataset: MapDataset) -> MapDataset:
    return Subset(dataset, _spread(range(len(dataset)), MEASURED))


def _spread(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most so many, from the first to the last."""
    return items[:: max(1, -(-len(items) // most))]
