"""The report of a run: which facts it shows, and when it is written. What the metrics mean and all figures but the
curves come from the task.

It is written after every epoch, so that a killed run has one too: the numbers always, the figures as often as they
take little of the time of the run; and at the end, for the best checkpoint.
"""

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from focalnet.engine.run import RunFolder, write_atomically
from focalnet.engine.training import merit
from focalnet.models.create import create_model
from focalnet.reading import write_json
from focalnet.tasks.base import MapDataset, Section, Task
from focalnet.visualize.page import Group, Value, page
from focalnet.visualize.plots import curves, mosaic

SHARE = 0.05
"""Of the time of a run, what figures may take before its end."""
EXPECTED = 3.0
"""Seconds that the first figures are thought to take."""
FEW = 12
"""Rows of a table up to which it is shown at once."""
BESIDE = {"epoch", "step", "seconds", "lr", "samples_per_second", "val_samples_per_second"}
"""What a row has beside the metrics."""


class LiveReport:
    """Writes the report of a run that goes on, in its main process.

    Args:
        run: the run folder.
        task: what is trained.
        dataset: what the epochs are evaluated on.
    """

    def __init__(self, run: RunFolder, task: Task, dataset: MapDataset) -> None:
        self.run, self.task, self.dataset = run, task, dataset
        self.figures: list[Section] = []
        self.drawn, self.cost = time.monotonic(), EXPECTED

    def write(self, details: Mapping[str, Any]) -> None:
        """Write the report after an epoch whose row and checkpoint `last` are written.

        Args:
            details: of the epoch's metric.
        """
        rows, began = self.run.rows(), time.monotonic()
        if began - self.drawn >= self.cost / SHARE:
            self.figures = _figures(self.run, "last", self.task, self.dataset, rows, details)
            self.drawn = time.monotonic()
            self.cost = self.drawn - began
        row = rows[-1]
        _write(self.run, self.task, {name: row[name] for name in _measured(row)}, row, rows, self.figures, done=False)


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
    rows = run.rows()
    run.add_skipped(details.get("skipped", ()))
    sections = _figures(run, "best", task, dataset, rows, details)
    kept = dict(details)
    write_results(run.path / "results", kept.pop("results", {}))
    plots = run.path / "plots"
    plots.mkdir(exist_ok=True)
    for section in sections:
        png = section.png
        if section.gallery:
            png = mosaic([shot.image for shot in section.gallery], section.columns)
        if png is not None:
            write_atomically(plots / f"{section.title.lower().replace(' ', '_')}.png", png)
    _write(run, task, metrics, best_row(rows, task.score), rows, sections, done=True)
    write_atomically(run.path / "evaluation.json", write_json({"metrics": dict(metrics), **kept}).encode())


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write single predictions in the formats of the field: by name of the file its text, or content for JSON."""
    for name, content in results.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else write_json(content)
        write_atomically(path, text.encode(errors="surrogateescape"))  # names of files of any bytes


def best_row(rows: Sequence[Mapping[str, Any]], score: str) -> Mapping[str, Any] | None:
    """The row of the epoch whose checkpoint is the best one; None without rows."""
    best = None
    for row in rows:
        if score in row and (best is None or merit(row, score) > merit(best, score)):
            best = row
    return best


def _figures(
    run: RunFolder,
    checkpoint: str,
    task: Task,
    dataset: MapDataset,
    rows: Sequence[Mapping[str, Any]],
    details: Mapping[str, Any],
) -> list[Section]:
    """The curves, and what the task shows of a checkpoint."""
    names = {name: task.meaning(name).name for name in _measured(rows[-1] if rows else {})}
    text = f"Epoch by epoch; of the training images a sample is measured, as they are. Figures after epoch {len(rows)}."
    sections = [Section("Curves", text, png=curves(rows, names, task.score))] if rows else []
    model = create_model(None, weights=str(run.checkpoint(checkpoint)))
    return [*sections, *task.render(model.eval(), dataset, details)]


def _write(
    run: RunFolder,
    task: Task,
    metrics: Mapping[str, float],
    row: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, Any]],
    figures: Sequence[Section],
    *,
    done: bool,
) -> None:
    """Write the page.

    Args:
        metrics: what it is about.
        row: of `metrics.jsonl`, for the same checkpoint.
        done: whether the run is at its end.
    """
    record = run.config()
    options, train, data = record["task"], record["train"], record["data"]
    source = str(options["data"] or task.embedded.data)
    epoch, last = row["epoch"] if row else 0, rows[-1]["epoch"] if rows else 0
    best = best_row(rows, task.score)
    values = {name: [task.meaning(name).name, metrics[name], task.meaning(name).words] for name in _measured(metrics)}
    sample = row.get(f"train_{task.score}") if row else None
    words = task.meaning(task.score).words
    words = f"{words[:1].upper()}{words[1:]}. Measured on {data['validation samples']:,} validation samples "
    words += f"after epoch {epoch} of {train['epochs']}"
    if best is not None and not done and best["epoch"] != epoch:
        words += f"; the best so far is {best[task.score]:.4g} of epoch {best['epoch']}"
    words += "." if sample is None else f"; on a sample of the training images it is {sample:.4g}."
    groups: dict[str, list[Value]] = {}
    for name, value in values.items():
        group = groups.setdefault(task.meaning(name).group, [])
        group.append(Value(*value))
        if name == task.score and sample is not None:
            group.append(Value(f"{value[0]} in training", sample, "a sample of the training images, not augmented"))
    groups["Training"] = [
        Value("epochs", f"{last} of {train['epochs']}"),
        Value("best epoch", best["epoch"] if best else None),
        Value("time", duration(rows)),
        Value("samples per second", round(rows[-1].get("samples_per_second", 0)) if rows else None),
        Value("recipe", record["recipe"] or "none"),
    ]
    groups["Model and data"] = [
        Value("model", options["model"]),
        Value("weights at the start", options["weights"] or "random"),
        Value("data", source),
        Value("classes", "more than 1,000" if isinstance(data["classes"], int) else len(data["classes"]) or None),
        Value("training samples", f"{data['training samples']:,}"),
        Value("validation samples", f"{data['validation samples']:,}"),
    ]
    now = datetime.now().astimezone()
    lead = [f"{now:%d %B %Y, %H:%M}".lstrip("0"), f"trained for {duration(rows)}", f"focalnet {record['focalnet']}"]
    state = (
        "finished" if last >= train["epochs"] else f"{'' if done else 'under way: '}{last} of {train['epochs']} epochs"
    )
    write_atomically(
        run.path / "report.html",
        page(
            f"{options['model']} on {Path(source).name or source}",
            [
                Section("", groups=[Group(title, values) for title, values in groups.items()]),
                *_next(run, task, train["epochs"], done),
                *_skipped(run.skipped()),
                *figures,
                *_tables(task, rows, record),
            ],
            lead=" · ".join([*lead, state]),
            command=record.get("command") or "",
            headline=Value(values[task.score][0], metrics[task.score], words) if task.score in metrics else None,
        ),
    )


def _next(run: RunFolder, task: Task, epochs: int, done: bool) -> list[Section]:
    name = shlex.quote(str(run.path))
    if not done:
        return [Section("Next", commands=[(f"focalnet resume {name}", "go on, should the run have been stopped")])]
    longer = (f"focalnet resume {name} --epochs {2 * epochs}", "train twice as long")
    return [Section("Next", commands=[*task.commands(name), longer])]


def _skipped(paths: Sequence[str]) -> list[Section]:
    if not paths:
        return []
    text = f"{len(paths)} files could not be read; the run went on without them."
    table = [["file"], *([path] for path in paths)]
    return [Section("Skipped files", text, table=table, folded=len(paths) > FEW)]


def _tables(task: Task, rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> Iterable[Section]:
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    head = [task.meaning(name).name for name in names]
    if rows:
        table = [head, *([row.get(name, "–") for name in names] for row in rows)]
        yield Section("Epochs", table=table, folded=len(rows) > FEW)
    options = [
        ["option", "value"],
        *([name, value] for part in ("task", "train") for name, value in record[part].items()),
    ]
    yield Section("Options", "Everything that the run was started with.", table=options, folded=True)


def _measured(row: Mapping[str, Any]) -> list[str]:
    """The metrics of validation among the entries of a row."""
    return [name for name in row if name not in BESIDE and not name.startswith("train_")]


def duration(rows: Sequence[Mapping[str, Any]]) -> str:
    """The time that the epochs took, in words."""
    seconds = round(sum(row.get("seconds", 0.0) for row in rows))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
