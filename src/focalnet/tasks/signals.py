"""What the tasks on sounds and films share: how their data is found and opened."""

from dataclasses import dataclass
from typing import Any

from focalnet.data import Datasets, Sample, open_data, open_evaluation
from focalnet.data.base import SplitName
from focalnet.data.register import locate_source
from focalnet.tasks.base import MapDataset, Task
from focalnet.tasks.common_options import check_task
from focalnet.tasks.signal_options import SignalOptions
from focalnet.weights.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class SignalTask(SignalOptions, Task):
    """A task on sounds or films."""

    @property
    def source(self) -> str:
        """The data: what the option says, or what the package makes."""
        return self.data or self.embedded.data

    def locate_data(self, recorded: bool) -> str | None:
        return None if self.data is None else locate_source(self.kind, self.data, recorded=recorded)

    def datasets(self, seed: int) -> Datasets:
        check_task(self.name, self.model)
        return open_data(
            self.kind, self.source, val_fraction=self.val_fraction, seed=seed, on_bad_image=self.on_bad_file
        )

    def evaluation_data(self, spec: ModelSpec, split: SplitName | None = None) -> MapDataset:
        return open_evaluation(
            self.kind, self.source, spec.classes, spec.num_classes, on_bad_image=self.on_bad_file, split=split
        )

    def signal(self, sample: Sample) -> tuple[str, Any]:
        return sample.path, sample.signal
