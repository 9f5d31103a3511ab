"""Evaluation of a finished run, or of a network with released weights, on data."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from torch import nn

from focalnet import inputs
from focalnet.data.base import Samples, SplitName
from focalnet.data.survey import reading
from focalnet.engine.config import MOST, TrainConfig
from focalnet.engine.devices import Device, build_accelerator
from focalnet.engine.evaluation import evaluate_batches
from focalnet.engine.loader import build_eval_loader
from focalnet.engine.record import data_is_gone, load_run, open_run_data
from focalnet.engine.report import write_results, write_run_report
from focalnet.engine.results import Evaluation
from focalnet.engine.run import RunFolder, is_run
from focalnet.errors import UserError
from focalnet.inputs.image import Range
from focalnet.models.create import create_model, load_model
from focalnet.tasks import task_of
from focalnet.tasks.base import MapDataset, Network, Task
from focalnet.weights.spec import ModelSpec

log = logging.getLogger(__name__)


def evaluate(
    model: str | os.PathLike[str] | nn.Module,
    *,
    data: str | None = None,
    split: SplitName | None = None,
    weights: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    tta: bool = False,
    window: int | None = None,
    detections: int | None = None,
    dice: bool = False,
    results: str | Path | None = None,
    range: Range | None = None,  # noqa: A002 - the name of the option
    max_pixels: int | None = None,
    device: Device = None,
) -> Evaluation:
    """Metrics of a model on data, in float32 (a run in bf16 or fp16 is evaluated in that while it trains).

    Args:
        model: a run folder, a model folder, a name with `weights`, or a model of `create_model`.
        data: what to evaluate on; its validation split, or all of it where it has none. Without it, the validation
            split of what the run was trained on; the report of the run is then written anew. So it is with the same
            data in another place, where there is none any more in the place that the run knows.
        split: "train", "val" or "test" of the data, instead. No other split needs to be there.
        weights: as in `create_model`, where `model` is a name.
        batch_size: samples per forward pass, at most; a detector or segmenter takes large images a few at a time, and
            those of different sizes one by one, since padding leaks into the global context.
        workers: processes that prepare samples; without it, as many as suit the machine.
        tta: test-time augmentation: average over mirrored and resized images, where the task can.
        window: see images in overlapping squares of this side in pixels, where the task can.
        detections: most objects of an image that a detector tells; above 100, COCO's table counts so many too.
        dice: measure Dice and HD95 of every image too, where the task is semantic segmentation.
        results: a folder to write the single predictions to, where the task has a format for them: of a detector
            box.json and mask.json, COCO's results with the ids of the data; on data of YOLO also box.csv and labels/.
        range: what the values of images with other than 8 bits mean; without it, what they meant in training.
        max_pixels: most pixels of an image; without it, Pillow's limit.
        device: where to compute, for example "cuda:1"; without it, the GPU if there is one.

    Raises:
        UserError: the classes of data and model do not fit, one of them cannot be opened, or there is no such split or
            option of the task.
    """
    for option, value, least in (("--batch-size", batch_size, 1), ("--workers", workers, 0)):
        if value is not None and not least <= value <= MOST[option[2:].replace("-", "_")]:
            raise UserError(f"{option} is {value}; give {least} or more, within reason.")
    model = os.fspath(model) if isinstance(model, os.PathLike) else model
    own: tuple[RunFolder, MapDataset] | None = None
    run: RunFolder | None = None
    network: Network
    if isinstance(model, str) and is_run(model):
        run = RunFolder.open(model)
        task, config = load_run(run)
        network = create_model(None, weights=str(run.checkpoint("best")))
        if split != "test" and (dataset := _own_data(run, task, config, network.spec, split or "val", data)):
            own = run, dataset
    else:
        network = model if isinstance(model, nn.Module) else load_model(model, weights)
        task = task_of(network.spec)()
    task = task.with_options(data=data, tta=tta or None, window=window, detections=detections, dice=dice or None)
    if results is not None and not task.has_results:
        raise UserError(f"--results writes the predictions of detectors, and {task.name} has no format; leave it out.")
    accelerator = build_accelerator(device=device)
    network.to(accelerator.device)
    if own:
        dataset = own[1]
    else:
        dataset = task.evaluation_data(network.spec, split) if split else task.evaluation_data(network.spec)
    how = inputs.changed(
        network.spec.preprocessing, range=range, max_pixels=max_pixels or getattr(task, "max_pixels", None)
    )
    dataset = reading(dataset, how.read)
    if run and data and own is None and accelerator.is_main_process:
        _say_what_was_learned(run, dataset)
    if accelerator.is_main_process and own is None:
        for remark in task.remarks(network.spec, dataset):
            log.warning(remark)
    loader = build_eval_loader(task, network.spec, dataset, batch_size, accelerator, workers=workers)
    with Progress(console=Console(stderr=True), disable=not accelerator.is_main_process) as progress:
        bar = progress.add_task("evaluating", total=len(loader))
        metrics, details = evaluate_batches(
            task, network, loader, network.spec, accelerator, lambda done, _: progress.update(bar, completed=done)
        )
    if results is not None and accelerator.is_main_process:
        write_results(Path(results), details["results"])
        log.info("%s: %s", results, ", ".join(sorted(details["results"])))
    as_trained = not tta and window is None and detections is None and split in (None, "val")
    if own and as_trained and accelerator.is_main_process:
        write_run_report(own[0], task, dataset, metrics, details)
    return Evaluation(metrics, metrics[task.score], len(dataset), details)


def _say_what_was_learned(run: RunFolder, dataset: MapDataset) -> None:
    """Warn where a run is evaluated on images that it was trained on, by their files."""
    task, config = load_run(run)
    files = _files(dataset)
    root = os.path.realpath(task.data or os.devnull)
    if data_is_gone(task) or not any(file.startswith(root) for file in files):
        return
    try:
        learned = files & _files(task.datasets(config.seed).train)
    except UserError:  # it cannot be opened any more
        return
    if learned:
        log.warning(
            "%d of %d samples are those that %s was trained on: this measures what it remembers. Without --data, its "
            "validation split is taken.", len(learned), len(files), run.path,
        )  # fmt: skip


def _files(dataset: MapDataset) -> set[str]:
    """The files of a data set, as far as it knows them without decoding."""
    if not isinstance(dataset, Samples):
        return set()
    return {os.path.realpath(dataset.reader.name(entry)) for entry in dataset.entries}


def own_split(
    run: RunFolder,
    task: Task,
    config: TrainConfig,
    spec: Callable[[], ModelSpec],
    split: SplitName = "val",
    moved: str | None = None,
) -> tuple[MapDataset, str]:
    """The training or validation split that a run knows, and how the data differs from what it began with.

    The validation split can be had without the training split, which then cannot tell what both have.

    Args:
        run, task, config, moved: as for `open_run_data`.
        spec: gives that of its model, where it is needed.
        split: which one.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        _, datasets, change = open_run_data(run, task, config, moved)
    except UserError as error:
        if split == "train" or data_is_gone(task):
            raise
        try:
            dataset = task.evaluation_data(spec(), "val")
        except (UserError, TypeError):  # TypeError: of a task from outside that has one split
            raise error from None
        log.warning("The training split cannot be opened (%s): validation goes without it.", error)
        return dataset, ""
    return datasets.train if split == "train" else datasets.val, change


def _own_data(
    run: RunFolder, task: Task, config: TrainConfig, spec: ModelSpec, split: SplitName, data: str | None
) -> MapDataset | None:
    """A split of what a run was trained on, where that is what is asked for: by no `data`, or by the place that it was
    moved to."""
    if data is not None and not data_is_gone(task):
        return None
    try:
        dataset, change = own_split(run, task, config, lambda: spec, split, data)
    except UserError:
        if data is None:
            raise
        return None
    if change and data is None:
        log.warning("%s: %s", run.path, change)
    if data is not None:
        what = f"other data than the run's ({change})" if change else f"the data of the run, once at {task.data}"
        log.info("%s: %s", data, what)
    return None if change and data is not None else dataset
