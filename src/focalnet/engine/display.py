"""What a person sees while a run goes on: a live line in a terminal, plain lines elsewhere."""

import math
import time
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY_SECONDS = 30.0
"""How often a line is printed where there is no terminal."""


class Display:
    """Progress of a run: bar, time left, loss, learning rate, samples per second, memory, best score.

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
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[facts]}"),
            console=self.console, disable=not self.live,
        )  # fmt: skip
        self.bar = self.progress.add_task("training", total=total, completed=start, facts="")
        self.began, self.start = time.monotonic(), start

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def step(self, step: int, epoch: str, loss: float, lr: float, speed: float, score: str, best: float) -> None:
        """Show where the run is: `speed` in samples per second, `best` is -inf as long as there is none."""
        facts = f"loss {loss:.4f}  lr {lr:.2e}  {speed:.0f} samples/s{_memory()}"
        facts += f"  best {score} {best:.4f}" if math.isfinite(best) else ""
        self.progress.update(self.bar, completed=step, description=f"epoch {epoch}", facts=facts)
        if not self.live and time.monotonic() - self.printed > EVERY_SECONDS:
            self.printed = time.monotonic()
            left = (self.printed - self.began) / max(step - self.start, 1) * (self.total - step)
            self.line(f"epoch {epoch}  step {step}/{self.total}  {facts}  {_clock(left)} left")

    def validated(self, done: int, total: int) -> None:
        """Show that a validation is under way."""
        self.progress.update(self.bar, facts=f"validating {done}/{total}")

    def line(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _memory() -> str:
    return f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else ""
