"""The metrics of a network over batches, and the report that a run ends with."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from focalnet.engine.report import write_report
from focalnet.engine.run import RunFolder, write_atomically
from focalnet.models.create import create_model
from focalnet.reading import write_json
from focalnet.tasks.base import MapDataset, Network, Section, Task
from focalnet.visualize.plots import curves
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
        the metrics, with `val_samples_per_second`, and the details for a report.
    """
    from accelerate.utils import send_to_device

    metric = task.metric(spec)
    training = model.training
    model.eval()
    began, samples = time.monotonic(), 0
    with torch.no_grad(), accelerator.autocast():
        for done, batch in enumerate(loader, 1):
            batch.pop("skipped")
            samples += int((batch["index"] >= 0).sum())
            metric.update(model, send_to_device(batch, accelerator.device, non_blocking=True))
            on_batch(done, len(loader))
    model.train(training)
    count = accelerator.reduce(torch.tensor(float(samples), device=accelerator.device), "sum").item()
    metrics = metric.compute()
    metrics["val_samples_per_second"] = count / (time.monotonic() - began)
    return metrics, metric.details()


def write_run_report(
    run: RunFolder,
    task: Task,
    dataset: MapDataset,
    metrics: Mapping[str, float],
    details: Mapping[str, Any],
) -> None:
    """Write `report.html`, `plots/*.png`, `evaluation.json` and the single predictions of a run, `results/*.json`.

    Args:
        run: the run folder; its `metrics.jsonl` gives the curves.
        task: what the model does.
        dataset: what the best checkpoint was evaluated on.
        metrics, details: from `evaluate`.
    """
    record, rows = run.config(), run.rows()
    sections = [Section("Curves", "Training and validation, epoch by epoch.", png=curves(rows))] if rows else []
    model = create_model(None, weights=run.checkpoint("best"))
    sections += task.render(model, dataset, details)
    summary = {
        "training samples": record["data"]["training samples"],
        "validation samples": record["data"]["validation samples"],
        "model": record["task"]["model"],
        "weights": record["task"]["weights"] or "random",
        "recipe": record["recipe"] or "none",
        "epochs": f"{rows[-1]['epoch']} of {record['train']['epochs']}" if rows else "none",
        **{name: f"{value:.4g}" for name, value in metrics.items()},
    }
    kept = dict(details)
    write_results(run.path / "results", kept.pop("results", {}))
    write_atomically(run.path / "evaluation.json", write_json({"metrics": dict(metrics), **kept}).encode())
    plots = run.path / "plots"
    plots.mkdir(exist_ok=True)
    for section in sections:
        if section.png is not None:
            write_atomically(plots / f"{section.title.lower().replace(' ', '_')}.png", section.png)
    options = [
        ["option", "value"],
        *([name, value] for part in ("task", "train") for name, value in record[part].items()),
    ]
    sections.append(Section("Options", "Everything that the run was started with.", table=options))
    write_report(
        run.path / "report.html",
        title=f"{record['task']['model']} on {record['task']['data'] or 'digits'}",
        summary=summary,
        sections=sections,
    )


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write single predictions in the formats of the field: by name of the file its text, or content for JSON."""
    for name, content in results.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else write_json(content)
        write_atomically(path, text.encode(errors="surrogateescape"))  # names of files of any bytes
