"""Training and evaluation from Python, with the recipes and the options of the command line, which calls this.

>>> run = focalnet.train(data="flowers/", model="focalnet_tiny_lrf", epochs=10)
>>> run.metrics["top1"]
>>> focalnet.evaluate(run, data="other flowers/")["top1"]
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from focalnet.engine.callbacks import NONE, Callback, Hooks
from focalnet.engine.choice import Choice, OnFault, choose, leaves_model, new_run
from focalnet.engine.config import Precision, TrainConfig
from focalnet.engine.devices import Device
from focalnet.engine.evaluate import evaluate as evaluate
from focalnet.engine.results import Evaluation as Evaluation
from focalnet.engine.results import Run
from focalnet.engine.train import resume as resume_run
from focalnet.engine.train import train as train_task
from focalnet.errors import OtherModelError
from focalnet.inputs.image import Range, View
from focalnet.tasks import get_task
from focalnet.tasks.options import TaskOptions
from focalnet.variants import Recompute

log = logging.getLogger(__name__)

Place = str | os.PathLike[str]


class TrainOptions(TypedDict, total=False):
    """Options of a training by their flags, see `focalnet train --help`: those of the tasks, and how to train."""

    weights: Place | None
    num_classes: int | None
    val_fraction: float
    freeze: int | Literal["backbone"] | None
    drop_path: float | None
    recompute: Recompute
    image_size: int | tuple[int, int] | None
    channels: int | None
    range: Range | None
    normalize: Literal["weights", "data"]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    max_pixels: int | None
    on_bad_image: Literal["stop", "skip"]
    augment: Literal[
        "none", "light", "imagenet", "digits", "kinetics", "drop",
        "detr", "hres", "lsj", "semantic", "semantic_steps", "slices", "turns", "digit_scenes", "digit_crops",
    ]  # fmt: skip
    mixing: tuple[float, float]
    resize: View | None
    draft: bool
    raw_batches: bool
    label_smoothing: float
    class_weights: Literal["balanced"] | tuple[float, ...] | None
    on_bad_annotation: Literal["skip", "stop"]
    on_bad_file: Literal["stop", "skip"]
    frames: int | None
    seconds: float | None
    size: int | None
    scale: float | None
    interpretation: bool
    stage: Literal["features", "decoder", "both"]
    temporal_gates: Literal["random", "open"]
    segment: int
    decoder_lr: float | None
    discriminator_share: float
    dwer: bool
    num_queries: int | None
    tta: bool
    detections: int | None
    crowd: Literal["learn", "ignore"] | None
    threshold: float | None
    window: int | None
    dice: bool
    epochs: int
    batch_size: int
    least_steps: int
    least_total: int
    accumulate: int
    optimizer: str
    optimizer_options: Mapping[str, Any]
    lr: float
    min_lr: float
    schedule: str
    schedule_options: Mapping[str, Any]
    backbone_lr: float
    warmup_epochs: float
    weight_decay: float
    official_decay_bug: bool
    clip_grad: float
    ema: float
    precision: Precision
    compile: bool
    strategy: Literal["ddp", "fsdp"]
    patience: int
    seed: int
    workers: int | None
    cache: float
    train_sample: int
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...]
    checkpoint_minutes: float


def train(
    *,
    data: Place | None = None,
    model: str | None = None,
    out: Place | None = None,
    recipe: str | None = None,
    task: str | None = None,
    device: Device = None,
    callbacks: Sequence[Callback] = (),
    transform: Callable[..., Any] | None = None,
    loss: Callable[..., Any] | None = None,
    check: OnFault = "stop",
    **options: Unpack[TrainOptions],
) -> Run:
    """Train a network: `focalnet train`, from Python.

    Args:
        data: what to train on: a folder of one folder of images per class, or whatever `focalnet train --data` takes;
            without it, handwritten digits.
        model: the network; a name from `list_models`, or "small" for one that a CPU trains.
        out: the run folder to make; without it, runs/MODEL-DATA-N.
        recipe: where the defaults of `options` come from; without it, one for the task and the data.
        task: "classify", "multilabel", "detect", "segment" or "panoptic"; without it, what `model` is for.
        device: where to compute, for example "cuda:1"; without it, the GPU if there is one.
        callbacks: are told of every step and epoch, and may end the run; see `Callback`.
        transform: changes a training image before it is resized and normalized, in the place of the recipe's
            augmentation (of both, where `augment` is given): `transform(image)` gives an image, PIL, array or tensor.
            For detection and segmentation `transform(image, target)` gives both, as torchvision.transforms.v2 does.
        loss: in the place of the network's own: `loss(outputs, targets)` gives a scalar. Of a classifier, outputs are
            logits (B, K), targets probabilities (B, K) after mixing and smoothing; of other networks what `forward`
            gives, and the truth as its `loss` takes it.
        check: what `focalnet.check` finds wrong in the data before the first step is an error ("stop"), is told alone
            ("warn"), or is not looked for ("off").
        options: any other option of `focalnet train`.

    Returns:
        the run: its folder, metrics and history.

    Raises:
        UserError: an unknown option, one out of range, bad data or weights, a loss that is not a number.
        KeyboardInterrupt, SystemExit: a signal asked the run to stop, after its checkpoint was written.

    Example:
        >>> run = focalnet.train(data="flowers/", model="small", epochs=20, transform=v2.RandomRotation(20))
    """
    if transform is not None:
        options.setdefault("augment", "none")
    said = {"data": data, "model": model, "out": out, "recipe": recipe, "task": task, "device": device, "check": check}
    said = {name: value for name, value in said.items() if value is not None}

    def again(model: str) -> Any:
        return choose({**said, **options, "model": model})

    hooks = Hooks(transform, loss, callbacks)
    return train_chosen(*choose({**said, **options}), hooks, again=again if leaves_model(said) else None)


def train_chosen(
    options: TaskOptions,
    config: TrainConfig,
    choice: Choice,
    hooks: Hooks = NONE,
    command: str | None = None,
    again: Callable[[str], tuple[TaskOptions, TrainConfig, Choice]] | None = None,
) -> Run:
    """Train what `train` and the command line chose.

    Args:
        options, config, choice: of `choose`.
        hooks: what the caller brings along.
        command: what was typed, for the run to remember.
        again: chooses anew for another network, where the caller named none and the data needs one.
    """
    task = get_task(options.name)(**vars(options))
    how = {"recipe": choice.recipe, "device": choice.device, "check": choice.check}
    try:
        run = train_task(task, config, choice.out or new_run(options), command=command, hooks=hooks, **how)
    except OtherModelError as error:
        if again is None:
            raise
        log.info("%s It is taken, as no network was asked for.", error)
        return train_chosen(*again(error.model), hooks, command)
    return Run(run.path)


def resume(
    run: Place | Run,
    *,
    epochs: int | None = None,
    checkpoint: str = "last",
    data: Place | None = None,
    device: Device = None,
    callbacks: Sequence[Callback] = (),
    transform: Callable[..., Any] | None = None,
    loss: Callable[..., Any] | None = None,
) -> Run:
    """Go on with a run that was stopped, as if it had not been: `focalnet resume`, from Python.

    Args:
        run: the run folder.
        epochs: a new total number of epochs.
        checkpoint: which checkpoint to go on from: "last" or "best".
        data: where the data of the run is now, if it was moved.
        device: as in `train`.
        callbacks: as in `train`.
        transform, loss: those that the run began with; no file keeps them.

    Raises:
        UserError: no run, nothing left to do, a damaged checkpoint, other data, or a transform or loss is missing.
    """
    place = None if data is None else os.fspath(data)
    hooks = Hooks(transform, loss, callbacks)
    done = resume_run(Path(run), epochs=epochs, checkpoint=checkpoint, data=place, hooks=hooks, device=device)
    return Run(done.path)
