"""What a training and an evaluation come to, as data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focalnet.engine.run import RunFolder
from focalnet.reading import read_object


class Run:
    """A run: the folder with its checkpoints, metrics and report. Whatever takes a run folder takes it.

    Args:
        path: the folder.

    Raises:
        UserError: there is no run.

    Example:
        >>> run = focalnet.train(data="flowers/")
        >>> run.metrics["top1"], len(run.history)
        >>> focalnet.Predictor(run)("tulip.jpg").label
    """

    def __init__(self, path: "str | Path | Run") -> None:
        self._folder = RunFolder.open(Path(path))

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    @property
    def config(self) -> dict[str, Any]:
        """What the run was started with: `task`, `train`, `recipe`, `data` and the version."""
        return self._folder.config()

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per epoch: `epoch`, `step`, `lr`, `train_loss`, the metrics on the validation split, times."""
        return self._folder.rows()

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the best checkpoint on the validation split; of the last epoch, as long as the run goes on;
        empty before the end of the first one."""
        path = self.path / "evaluation.json"
        if path.exists():
            return dict(read_object(path)["metrics"])
        rows = self.history
        return rows[-1] if rows else {}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done; else `focalnet.resume(run)` goes on."""
        rows = self.history
        return bool(rows) and rows[-1]["epoch"] >= self.config["train"]["epochs"]

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, float]):
    """What a model reaches on data. It is also the mapping of its metrics: `evaluation["top1"]`.

    Attributes:
        metrics: by name.
        score: the one that chooses the best checkpoint of a run; higher is better.
        samples: how many were evaluated.
        details: what the report shows besides, as JSON can hold it: a confusion matrix, the worst mistakes, the single
            predictions of a detector.
    """

    metrics: Mapping[str, float]
    score: float
    samples: int
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)
