"""How far a prediction is, on standard error: a bar in a terminal, elsewhere a line now and then."""

import sys
import time
from types import TracebackType
from typing import Any

EVERY_SECONDS = 30.0


class Progress:
    """Sources that are done, predictions per second, and the time that is left.

    Args:
        total: sources in all; None where one of them has no length.
        done: of these, done before.
        shown: whether anything is shown.
    """

    def __init__(self, total: int | None, done: int = 0, *, shown: bool = True) -> None:
        self.total, self.done, self.shown = total, done, shown
        self.began = self.told = time.monotonic()
        self.before, self.predictions, self.source = done, 0, None
        self.bar: Any = None

    def __enter__(self) -> "Progress":
        if self.shown and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )  # fmt: skip
            self.task = self.bar.add_task("predicting", total=self.total, completed=self.done)
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, source: str) -> None:
        """Another prediction, for a source: an image, or a frame of a film."""
        self.predictions += 1
        self.done += source != self.source
        self.source = source
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, description=f"{self.speed:.1f}/s")
        elif self.shown and time.monotonic() - self.told > EVERY_SECONDS:
            self.told = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    @property
    def speed(self) -> float:
        """Predictions per second."""
        return self.predictions / max(time.monotonic() - self.began, 1e-9)

    def line(self) -> str:
        """Where the prediction is."""
        if self.total is None:
            return f"{self.predictions:,} predictions  {self.speed:.1f}/s"
        pace = (time.monotonic() - self.began) / max(self.done - self.before, 1)
        minutes, seconds = divmod(round(pace * (self.total - self.done)), 60)
        left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        return f"{self.done:,} of {self.total:,}  {self.speed:.1f}/s  {left} left"
