"""The metrics of a network over batches."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader

from focalnet.metrics import gathered
from focalnet.tasks.base import Network, Task
from focalnet.weights.spec import ModelSpec


def evaluate_batches(
    task: Task,
    model: Network,
    loader: DataLoader,
    spec: ModelSpec,
    accelerator: Any,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Evaluate `model` on all of `loader`.

    Args:
        task: what the model does.
        model: the network, on the accelerator's device.
        loader: batches of the task, from an `EvalSampler`.
        spec: of the model.
        accelerator: an accelerate `Accelerator`; every process takes part.
        on_batch: is told how many of how many batches are done.

    Returns:
        the metrics, with `val_samples_per_second`, and the details for a report, with `skipped`, the paths of the
        samples that could not be read.
    """
    from accelerate.utils import send_to_device

    metric = task.metric(spec)
    training = model.training
    model.eval()
    began, samples, skipped = time.monotonic(), 0, set[str]()
    with torch.no_grad(), accelerator.autocast():
        for done, batch in enumerate(loader, 1):
            skipped.update(batch.pop("skipped"))
            samples += int((batch["index"] >= 0).sum())
            metric.update(model, send_to_device(batch, accelerator.device, non_blocking=True))
            on_batch(done, len(loader))
    model.train(training)
    count = accelerator.reduce(torch.tensor(float(samples), device=accelerator.device), "sum").item()
    metrics = metric.compute()
    metrics["val_samples_per_second"] = count / (time.monotonic() - began)
    return metrics, {**metric.details(), "skipped": sorted(set().union(*gathered(skipped)))}
