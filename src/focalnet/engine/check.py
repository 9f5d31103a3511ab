"""The check of a data set: `focalnet.check`, `focalnet check`, and what a training begins with.

All images are decoded once. What was seen is kept in the cache folder (`$XDG_CACHE_HOME/focalnet/checks`, else
`~/.cache/focalnet/checks`) under a hash of the entries of both splits, and of the sizes and times of the files that
they name; so a second look at the same data costs as much as asking for these.
"""

import hashlib
import json
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from focalnet.data.base import Datasets, OnBadImage, Samples
from focalnet.data.check import Facts, look
from focalnet.data.faults import Check, Fault, judge
from focalnet.data.opening import open_data
from focalnet.data.problems import OnBadAnnotation
from focalnet.data.register import formats_at
from focalnet.data.survey import reading
from focalnet.engine.check_page import write_page
from focalnet.engine.choice import OnFault, defaults
from focalnet.engine.display import EVERY_SECONDS
from focalnet.engine.run import disk_errors, write_atomically
from focalnet.errors import UserError
from focalnet.inputs.folders import cache_folder
from focalnet.inputs.image import ChannelsError
from focalnet.models.registry import parse_name
from focalnet.reading import read_object, write_json
from focalnet.schemas import build
from focalnet.tasks import get_task
from focalnet.tasks.base import ImageTask, Task
from focalnet.tasks.options import OPTIONS
from focalnet.weights.spec import ModelSpec

log = logging.getLogger(__name__)

VERSION = 1
"""Of what is kept: another one where `Facts` or how they are found changes."""
MOST_TOLD = 5
"""Faults that a training tells."""
PATIENCE = 1.0
"""Seconds after which a bar shows how far the look at the images is."""


def check(
    data: str | os.PathLike[str] | None = None,
    *,
    task: str | None = None,
    model: str | None = None,
    out: str | os.PathLike[str] | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    on_bad_image: OnBadImage = "stop",
    on_bad_annotation: OnBadAnnotation = "skip",
    **options: Any,
) -> Check:
    """Look at all images and labels of a data set, as a training would read them.

    Args:
        data: what `focalnet train --data` takes.
        task: "classify", "detect", "segment" or "panoptic"; without it, what the data looks like.
        model: the network whose input and augmentation are shown; without it, the one that is trained by default.
        out: a folder for `check.html`, with the labels drawn on some images and what the augmentation makes of ten,
            and `check.json`.
        val_fraction, seed, on_bad_image, on_bad_annotation: as in a training.
        options: of the task besides, for example `augment`, `image_size`, `channels`, `range`.

    Raises:
        UserError: the data cannot be opened for the task; the message says why.
    """
    data = None if data is None else os.fspath(data)
    said = {"task": task or task_of_data(data), "data": data, "model": model}
    chosen, _, choice = defaults({name: value for name, value in said.items() if value is not None})
    given = {name: value for name, value in options.items() if value is not None}
    if not issubclass(get_task(choice.task), ImageTask):
        raise UserError(f"the check looks at images, and --task {choice.task} takes none; train says what is wrong.")
    fields = {**vars(chosen), "data": data, "weights": None, "freeze": None, **given}
    settings: Any = build(get_task(choice.task), fields, "focalnet check", "give another value").located()
    opened = open_data(
        settings.kind, settings.data, val_fraction=val_fraction, seed=seed, on_bad_image=on_bad_image,
        on_bad_annotation=on_bad_annotation,
    )  # fmt: skip
    spec = parse_name(settings.model)
    if settings.channels is not None:
        spec = spec.replace(preprocessing=spec.preprocessing.for_channels(settings.channels))
    spec = settings.seen(spec, opened).replace(task=settings.name)
    opened = reading(opened, spec.preprocessing.read)
    facts = facts_of(settings, opened, spec)
    faults = judge(facts, on_bad_image=on_bad_image, set_aside=opened.set_aside)
    with suppress(ChannelsError):  # `judge` has told it
        faults += tuple(map(Fault, settings.remarks(spec, opened.train)))
    result = Check(
        data=settings.data or settings.embedded.data,
        task=choice.task,
        description=opened.description,
        facts=facts,
        faults=faults,
        left_out=tuple(finding for findings in opened.findings for finding in findings.found),
    )
    if out is not None:
        with disk_errors(Path(out)):
            Path(out).mkdir(parents=True, exist_ok=True)
            write_page(Path(out) / "check.html", result, settings, spec, opened)
            write_atomically(Path(out) / "check.json", write_json(result.to_dict(), 1).encode(errors="replace"))
    return result


def task_of_data(data: str | None) -> str:
    """The task that a source looks like; classification where it looks like several or like none."""
    for row in formats_at(data, "class"):
        for name, options in OPTIONS.items():
            if options.kind in row.kinds:
                return name
    return "classify"


def check_before_training(task: Task, data: Datasets, spec: ModelSpec, accelerator: Any, on_fault: OnFault) -> None:
    """Look at the data of a run before its first step, and tell what is wrong with it and how it is read.

    The data inside the package is known to be whole; of samples from elsewhere than `open_data`, nothing is known.

    Args:
        task: of the run.
        data: opened, and read as the network reads it.
        spec: of the network.
        accelerator: the main process looks, and all learn what it saw.
        on_fault: "stop" where something is fatal, "warn" of it too, or do not look, "off".

    Raises:
        UserError: the training would be wrong.
    """
    for remark in task.remarks(spec, data.train) if accelerator.is_main_process else ():
        log.warning(remark)
    known = isinstance(data.train, Samples) and isinstance(data.val, Samples)
    if on_fault == "off" or not known or not isinstance(task, ImageTask) or task.data in (None, task.embedded.data):
        return
    faults: list[tuple[Fault, ...]] = [()]
    if accelerator.is_main_process:
        facts = facts_of(task, data, spec)
        faults = [judge(facts, on_bad_image=task.on_bad_image, set_aside=data.set_aside)]
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        faults = broadcast_object_list(faults)
    fatal = [fault.text for fault in faults[0] if fault.fatal]
    if fatal and on_fault == "stop":
        raise UserError(f"{task.data}: {' '.join(fatal)} To train all the same: --check warn.")
    if accelerator.is_main_process:
        for fault in faults[0][:MOST_TOLD]:
            log.warning("%s: %s", task.data, fault.text)
        if len(faults[0]) > MOST_TOLD:
            more = len(faults[0]) - MOST_TOLD
            log.warning("%s: and %d more: focalnet check %s --task %s", task.data, more, task.data, task.name)


def facts_of(task: ImageTask, data: Datasets, spec: ModelSpec) -> Facts:
    """What is in the data, from the cache where it was looked at before."""
    key = _key(task.kind, data, spec)
    path = None if key is None else cache_folder("checks") / f"{key}.json"
    if path is not None and path.is_file():
        try:
            return build(Facts, read_object(path), path)
        except UserError as error:
            log.info("%s; the data is looked at again", error)
    with _bar() as on_image:
        facts = look(data, task.kind, on_image)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(asdict(facts)).encode(errors="replace"))
        except (OSError, UserError) as error:
            log.info("%s could not be written (%s): the next run looks at the data again", path, error)
    return facts


def _key(kind: str, data: Datasets, spec: ModelSpec) -> str | None:
    """A hash that another state of the data would not have; None where that cannot be told."""
    how = spec.preprocessing
    said = [VERSION, kind, data.classes, how.channels, how.range, how.max_pixels]
    digest, found = hashlib.blake2b(repr(said).encode(errors="replace"), digest_size=16), {}
    for samples in (data.train, data.val):
        assert isinstance(samples, Samples)
        digest.update(repr((len(samples), getattr(samples.reader, "masks", None), samples.labels)).encode())
        content = getattr(samples.reader, "content", None)
        if content is not None:
            digest.update(str(content).encode())
        for entry in samples.entries:
            parts = entry if isinstance(entry, tuple) else (entry,)
            files = [part for part in parts if isinstance(part, str)]
            if not files and content is None:
                return None
            digest.update(pickle.dumps(entry))
            for file in files:
                if file not in found:
                    found[file] = _state(file)
                digest.update(found[file])
    return digest.hexdigest()


def _state(path: str) -> bytes:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return b"none"
    return f"{found.st_size} {found.st_mtime_ns}".encode()


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Shows how far a look at the images is, if it takes long: as a bar in a terminal, else as lines of the log."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("looking at the images"), BarColumn(), MofNCompleteColumn(), TextColumn("left"),
        TimeRemainingColumn(), console=console, transient=True,
    )  # fmt: skip
    bar = progress.add_task("", total=None)
    began = told = time.monotonic()

    def on_image(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if not console.is_terminal and now - told > EVERY_SECONDS:
            told, left = now, (now - began) / done * (total - done)
            log.info("looked at %d of %d images, about %d seconds left", done, total, left)
        elif console.is_terminal and now - began > PATIENCE:
            progress.start()
            progress.update(bar, completed=done, total=total)

    try:
        yield on_image
    finally:
        progress.stop()
