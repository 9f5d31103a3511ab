"""What a person sees while a run goes on: a live line in a terminal, and one line per epoch that stays everywhere.

The lines of the epochs are columns under one head. A narrow terminal has fewer of them, so that no line wraps.
"""

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

EVERY_SECONDS = 30.0
"""How often a line is printed where there is no terminal."""
CELL = 9
"""Letters of a column."""
BEST = "  best"
"""At the end of the line of an epoch that is better than all before."""


class Display:
    """Progress of a run: bar, time left, loss, samples per second, memory, best score, and a line per epoch.

    Args:
        total: optimizer steps of the whole run.
        start: steps that are done already.
        enabled: only the main process shows anything.
    """

    def __init__(self, total: int, start: int = 0, *, enabled: bool = True) -> None:
        self.console = Console(quiet=not enabled)
        self.live = self.console.is_terminal
        self.total = total
        self.printed = time.monotonic()
        facts = TextColumn("{task.fields[facts]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(12), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), facts,
            console=self.console, disable=not self.live, expand=True,
        )  # fmt: skip
        self.bar = self.progress.add_task("training", total=total, completed=start, facts="")
        self.began, self.start = time.monotonic(), start
        self.titles: Sequence[str] = ()
        self.unreadable = 0

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def step(self, step: int, epoch: str, loss: float, lr: float, speed: float, score: str, best: float) -> None:
        """Show where the run is: `speed` in samples per second, `best` is -inf as long as there is none."""
        facts = f"loss {_number(loss)}  {speed:.0f}/s"
        facts += f"  best {score} {best:.4f}" if math.isfinite(best) else ""
        facts += f"  lr {lr:.1e}{_memory()}"
        self.progress.update(self.bar, completed=step, description=f"epoch {epoch}", facts=facts)
        if not self.live and time.monotonic() - self.printed > EVERY_SECONDS:
            self.printed = time.monotonic()
            left = (self.printed - self.began) / max(step - self.start, 1) * (self.total - step)
            self.line(f"epoch {epoch}  step {step}/{self.total}  {clock(left)} left  {facts}")

    def validated(self, done: int, total: int) -> None:
        """Show that a validation is under way."""
        self.progress.update(self.bar, facts=f"validating {done}/{total}")

    def epoch(self, row: Mapping[str, Any], epoch: str, metric: str, name: str, *, better: bool) -> None:
        """The line of an epoch, below the titles where it is the first.

        Args:
            row: of `metrics.jsonl`.
            epoch: its number and how many there are.
            metric: that of the row which chooses the best checkpoint.
            name: what the metric is called.
            better: whether it is the best so far.
        """
        cells = {"epoch": epoch, "time": clock(row["seconds"])}
        numbers = {"loss": "train_loss", "val loss": "val_loss", name: metric, "in train": f"train_{metric}"}
        cells |= {title: _number(row[key]) for title, key in numbers.items() if key in row}
        cells |= {"lr": f"{row['lr']:.1e}", "samples/s": f"{row['samples_per_second']:.0f}"}
        if not self.titles:
            width, self.titles = self.console.width - len(BEST), list(cells)
            self.titles = self.titles[: max(width // (CELL + 1), 2)]
            self.line("".join(f"{title:>{CELL}} " for title in self.titles).rstrip())
        self.line("".join(f"{cells.get(title, ''):>{CELL}} " for title in self.titles).rstrip() + BEST * better)

    def skipped(self, paths: Sequence[str]) -> None:
        """Say how many files could not be read, when they are more than was said."""
        if len(paths) > self.unreadable:
            what = "sample could not be read and was" if len(paths) == 1 else "samples could not be read and were"
            self.line(f"{len(paths)} {what} skipped, the first is {paths[0]}")
        self.unreadable = len(paths)

    def line(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours where there are some."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _memory() -> str:
    return f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else ""
