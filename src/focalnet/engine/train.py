"""The training loop.

    train()  ->  data, model, run folder  ->  _fit()
    resume() ->  the same from the run folder, and the checkpoint  ->  _fit()

Where a run starts: from a checkpoint if it is resumed, else from `weights`, else from random numbers drawn from the
seed. Everything random is a function of (seed, epoch, index) or (seed, step), see `loader`; so a checkpoint is the
weights, their average, the optimizers and a position, and a killed run ends with the same bits as one that was not.
"""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import focalnet
from focalnet.data.cache import cached
from focalnet.data.survey import reading
from focalnet.engine.callbacks import NONE, Hooks, Listeners
from focalnet.engine.check import check_before_training
from focalnet.engine.choice import OnFault
from focalnet.engine.config import TrainConfig
from focalnet.engine.devices import Device, build_accelerator, described, products, resolved, worker_count
from focalnet.engine.display import Display
from focalnet.engine.evaluation import evaluate_batches
from focalnet.engine.loader import Examples, TrainSample, TrainSampler, build_eval_loader, build_loader, stable_seed
from focalnet.engine.lock import lock_run
from focalnet.engine.losses import Losses
from focalnet.engine.optim.build import learning_rate
from focalnet.engine.record import fingerprint, load_run, open_run_data
from focalnet.engine.report import LiveReport, write_run_report
from focalnet.engine.results import Run
from focalnet.engine.run import RunFolder
from focalnet.engine.signals import Signals, Stopped
from focalnet.engine.training import Position, Training, merit
from focalnet.errors import BadFileError, UserError, counted
from focalnet.tasks.base import Datasets, Network, Task

log = logging.getLogger(__name__)

SAVE_AT = 20
"""Inside an epoch, checkpoints are considered at multiples of this step."""


def train(
    task: Task,
    config: TrainConfig,
    out: str | Path,
    *,
    recipe: str | None = None,
    command: str | None = None,
    hooks: Hooks = NONE,
    device: Device = None,
    check: OnFault = "stop",
) -> RunFolder:
    """Train `task` into a new run folder.

    Args:
        task: what to train, with its options.
        config: how to train.
        out: the run folder to make.
        recipe: name of the recipe that the options came from, for the record.
        command: what was typed, for the record.
        hooks: what the caller brings along.
        device: where to compute, see `devices.find_device`.
        check: what becomes of a fault of the data, see `check_before_training`.

    Raises:
        UserError: bad data, weights or options, a loss that is not a number, a full disk.
        KeyboardInterrupt, SystemExit: a signal asked the run to stop (`signals`), after its checkpoint was written.
    """
    accelerator = build_accelerator(config.precision, config.trackers, Path(out), device)
    task = task.located()
    config = dataclasses.replace(config, precision=resolved(config.precision, accelerator.device))
    torch.manual_seed(config.seed)
    data = task.datasets(config.seed)
    wish, samples = config, len(data.train)
    config = config.fitted(samples, accelerator.num_processes)
    if (wish.batch_size, wish.epochs) != (config.batch_size, config.epochs):
        how = f"batches of {config.batch_size}, {counted(config.epochs, 'epochs')}"
        log.info("%s: %s", counted(samples, "training samples"), how)
    model = task.build_model(data)
    data = reading(data, model.spec.preprocessing.read)
    _sampler(task, config, data, accelerator)
    RunFolder.check_new(out)
    accelerator.wait_for_everyone()  # no process makes the folder before all have looked
    check_before_training(task, data, model.spec, accelerator, check)
    record = {
        "focalnet": focalnet.__version__,
        "recipe": recipe,
        "command": command,
        "task": {"name": task.name, **dataclasses.asdict(task)},
        "train": dataclasses.asdict(config),
        "data": fingerprint(data),
        **({"own": hooks.names()} if hooks.names() else {}),
    }
    with _alone(accelerator, Path(out)):
        if accelerator.is_main_process:
            RunFolder.create(out, record)
        accelerator.wait_for_everyone()
        run = RunFolder.open(out)
        try:
            return _fit(task, config, run, data, model, accelerator, None, hooks)
        except Exception as error:
            # what the system refused (a full disk, a sample) can be mended, and the run resumed
            if accelerator.is_main_process and not isinstance(error.__cause__, OSError):
                run.discard_without_checkpoint()
            raise


def resume(
    path: str | Path,
    *,
    epochs: int | None = None,
    checkpoint: str = "last",
    data: str | None = None,
    hooks: Hooks = NONE,
    device: Device = None,
) -> RunFolder:
    """Continue the run in the folder `path` where it stopped.

    Args:
        path: the run folder.
        epochs: a new total number of epochs; the cosine is stretched to it.
        checkpoint: which checkpoint to continue from, `last` or `best`.
        data: where the data of the run is now, if it was moved.
        hooks: what the run began with, and callbacks.
        device: as in `train`.

    Raises:
        UserError: no run, one that another process works on, a damaged checkpoint, data that is not what it was, or
            nothing left to do.
        KeyboardInterrupt, SystemExit: as for `train`.
    """
    run = RunFolder.open(path)
    task, config = load_run(run)
    hooks.check(run.path, run.config().get("own", ()))
    accelerator = build_accelerator(config.precision, config.trackers, run.path, device)
    with _alone(accelerator, run.path):
        if accelerator.is_main_process:
            run.settle("last")
            run.settle("best")
        accelerator.wait_for_everyone()
        folder = run.to_go_on_from(checkpoint)
        torch.manual_seed(config.seed)
        task, datasets, change = open_run_data(run, task, config, data)
        if change:
            mend = "put the old data back" if data is None else f"{data} is other data"
            raise UserError(f"{change}; {mend}, or start a new run with --weights set to this one.")
        # The checkpoint tells what the network is, so the weights that the run started from are not needed again.
        start = task if folder is None else dataclasses.replace(task, weights=str(folder))
        model = start.build_model(datasets)
        datasets = reading(datasets, model.spec.preprocessing.read)
        config = config if epochs is None else dataclasses.replace(config, epochs=epochs)
        before = run.config()
        record = before | {"task": before["task"] | {"data": task.data}, "train": dataclasses.asdict(config)}
        if accelerator.is_main_process and json.dumps(record) != json.dumps(before):
            run.write_config(record)
        return _fit(task, config, run, datasets, model, accelerator, folder, hooks)


def _alone(accelerator: Any, folder: Path) -> AbstractContextManager[None]:
    """Keeps other runs out of a folder; of the processes of this one, the main one does it."""
    return lock_run(folder) if accelerator.is_main_process else nullcontext()


def _fit(
    task: Task,
    config: TrainConfig,
    run: RunFolder,
    data: Datasets,
    model: Network,
    accelerator: Any,
    checkpoint: Path | None,
    hooks: Hooks,
) -> RunFolder:
    rank, world, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    spec = model.spec
    sampler = _sampler(task, config, data, accelerator)
    size = config.batch_size // (config.accumulate * world)
    sample = TrainSample(data.train, min(config.train_sample, len(data.val)), config.seed)
    data = dataclasses.replace(data, train=reading(data.train, task.load(spec)))
    kept = cached(data, int(config.cache * 10**9))
    examples = Examples(task, spec, kept.train, train=True, seed=config.seed, transform=hooks.transform)
    workers = worker_count(config.workers, len(sampler), accelerator.device)
    loader = build_loader(examples, sampler, workers=workers, pin_memory=accelerator.device.type == "cuda")
    val_loader, sample_loader = (
        build_eval_loader(task, spec, dataset, size, accelerator, workers=workers, seed=config.seed)
        for dataset, workers in ((kept.val, config.workers), (sample, min(workers, 1)))
    )

    training = Training(task, model, config, accelerator, hooks.loss)
    listeners = Listeners(hooks.callbacks, Run(run.path), accelerator)
    at = training.load(checkpoint) if checkpoint else Position()
    done = at.epoch * sampler.steps + at.step
    evaluation = run.path / "evaluation.json"  # the last that a run writes
    if _finished(config, at) and evaluation.exists():
        mend = "start a new run with --weights set to it and another --patience"
        if at.epoch >= config.epochs:
            mend = "add --epochs with a larger number"
        raise UserError(f"{run.path} is finished, {at.epoch} epochs are done; {mend}.")
    if main:
        run.forget_after(at.epoch * sampler.steps)
        evaluation.unlink(missing_ok=True)
    accelerator.init_trackers("focalnet", config={"task": json.dumps(run.config()["task"]), **_plain(config)})

    losses, saved = Losses(accelerator, queues=False if listeners.each_step else None), time.monotonic()
    report, score = LiveReport(run, task, data.val), task.meaning(task.score).name
    display = Display(config.epochs * sampler.steps, done, enabled=main)
    with products(config.precision), Signals(accelerator) as signals, display:
        size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        display.line(data.description)
        where = f"{world} x {accelerator.device.type} in {described(config.precision, accelerator.device)}"
        display.line(f"{task.model}, {size:.3g} M parameters, on {where}")
        display.line(f"Run folder: {run.path}")

        def check() -> None:
            """End the run here, with a checkpoint, if a signal asks for it."""
            if number := signals.asked():
                if not _finished(config, at):
                    training.save(run, "last", at)
                where = f"after {at.epoch} epochs and {at.step} steps"
                display.line(f"{Stopped(number)} {where}. To go on: focalnet resume {run.path}")
                accelerator.end_training()
                raise Stopped(number)

        def evaluate(loader: DataLoader) -> tuple[dict[str, float], dict[str, Any]]:
            def on_batch(done: int, total: int) -> None:
                display.validated(done, total)
                check()

            return evaluate_batches(task, training.averaged, loader, training.spec, accelerator, on_batch)

        def on_sample() -> dict[str, float]:
            try:
                return {f"train_{task.score}": evaluate(sample_loader)[0][task.score]} if len(sample) else {}
            except BadFileError:
                raise
            except UserError:  # nothing on these images can be measured
                return {}

        while not _finished(config, at):
            epoch = at.epoch
            began, first, speed = time.monotonic(), at.step, 0.0
            sampler.epoch, sampler.start = epoch, at.step
            batches = iter(loader)
            while at.step < sampler.steps:
                before = epoch * sampler.steps + at.step
                step, lr = before + 1, learning_rate(config, before, sampler.steps)
                torch.manual_seed(stable_seed(config.seed, "step", step, rank))
                losses.add(step, training.step(batches, before, sampler.steps))
                at.step += 1
                considered = at.step % SAVE_AT == 0 or at.step == sampler.steps
                if not (losses.due or considered or signals.urgent or hooks.callbacks):
                    continue
                loss = math.nan
                for step, parts in losses.look():
                    loss = at.add(parts)
                    if not math.isfinite(loss):
                        place = f"epoch {epoch + 1}, step {step - epoch * sampler.steps} of {sampler.steps}"
                        raise UserError(
                            f"The loss is {loss} at step {step} ({place}); the checkpoints in {run.path} are from "
                            "before: lower --lr, or use --precision fp32."
                        )
                speed = (at.step - first) * config.batch_size / (time.monotonic() - began)
                display.step(step, f"{epoch + 1}/{config.epochs}", loss, lr, speed, score, at.best)
                check()
                if listeners.stop("on_step", {"epoch": epoch + 1, "step": step, "loss": loss, "lr": lr}):
                    training.save(run, "last", at)
                    listeners.raise_error()
                    display.line(f"A callback ended the run after {at.epoch} epochs and {at.step} steps.")
                    accelerator.end_training()
                    return run
                late = time.monotonic() - saved > 60 * config.checkpoint_minutes
                if at.step % SAVE_AT == 0 and at.step < sampler.steps and _agreed(accelerator, late):
                    training.save(run, "last", at)
                    saved = time.monotonic()

            metrics, details = evaluate(val_loader)
            training.spec = task.tuned(training.spec, metrics, details)
            row = {
                "epoch": epoch + 1, "step": (epoch + 1) * sampler.steps,
                "lr": learning_rate(config, (epoch + 1) * sampler.steps - 1, sampler.steps),
                **at.means(), **metrics, **on_sample(),
                "samples_per_second": speed, "seconds": time.monotonic() - began,
            }  # fmt: skip
            better = merit(metrics, task.score) > (at.best, -at.best_loss)
            at = at.after(metrics, task.score, better=better)
            if main:
                run.append_row(row)
            for name in ("best", "last") if better else ("last",):
                training.save(run, name, at)
            saved = time.monotonic()
            accelerator.log(row, step=row["step"])
            if main:
                display.epoch(row, f"{at.epoch}/{config.epochs}", task.score, score, better=better)
                display.skipped(run.add_skipped([*training.skipped, *details["skipped"]]))
                if not _finished(config, at):
                    report.write(details)
            if listeners.stop("on_epoch_end", row):
                listeners.raise_error()
                display.line(f"A callback ended the run after epoch {at.epoch}.")
                break
        if _finished(config, at) and at.epoch < config.epochs:
            display.line(f"No better {score} since epoch {at.best_epoch}: stopped after epoch {at.epoch}.")
        training.load(run.checkpoint("best"))
        metrics, details = evaluate(val_loader)
        if main:
            write_run_report(run, task, data.val, metrics, details)
            display.line(f"Best {score} {metrics[task.score]:.4f}. Report: {run.path / 'report.html'}")
    accelerator.end_training()
    return run


def _finished(config: TrainConfig, at: Position) -> bool:
    """Whether all epochs are done, or `patience` is at its end. A score that every process has decides."""
    patient = not config.patience or at.epoch - at.best_epoch < config.patience
    return at.epoch >= config.epochs or not (patient or at.step)


def _sampler(task: Task, config: TrainConfig, data: Datasets, accelerator: Any) -> TrainSampler:
    rank, world = accelerator.process_index, accelerator.num_processes
    groups = task.groups(data.train)
    return TrainSampler(len(data.train), config.batch_size, config.accumulate, config.seed, rank, world, groups)


def _agreed(accelerator: Any, wish: bool) -> bool:
    """The main process's wish, in every process."""
    if accelerator.num_processes == 1:
        return wish
    flag = torch.tensor(float(wish and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum").item())


def _plain(config: TrainConfig) -> dict[str, Any]:
    values = dataclasses.asdict(config)
    plain = {key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in values.items()}
    return {key: json.dumps(value) if isinstance(value, Mapping) else value for key, value in plain.items()}
