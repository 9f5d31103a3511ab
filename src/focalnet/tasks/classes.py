"""One class per sample, whatever a sample is: what the classification of sounds and of films shares.

Samples come from folders of files, one folder per class, and the other formats that `data.register` has for the kind.
Measured are top-1 and top-5 accuracy and cross-entropy, with a confusion matrix and the worst mistakes for the report.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from focalnet.data import Datasets, Sample
from focalnet.data.transforms.mixup import MixupCutmix
from focalnet.errors import UserError
from focalnet.models.create import create_model
from focalnet.tasks.base import Batch, MapDataset, Metric, Network
from focalnet.tasks.classify import ClassificationMetric
from focalnet.tasks.signal_options import SignalClassOptions
from focalnet.tasks.signals import SignalTask
from focalnet.tasks.weighting import balanced_weights, class_weights, weighted_targets
from focalnet.weights.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class ClassTask(SignalClassOptions, SignalTask):
    """The parts of such a task."""

    def datasets(self, seed: int) -> Datasets:
        data = super().datasets(seed)
        self.check_num_classes(data, "look for a folder too many or too few")
        return data

    def build_model(self, data: Datasets) -> Network:
        drop = {} if self.drop_path is None else {"drop_path_rate": self.drop_path}
        model = create_model(
            self.model, weights=self.weights, classes=data.classes, recompute=self.recompute, **drop,
            **self.head_options(),
        )  # fmt: skip
        model.spec = model.spec.replace(preprocessing=self.fit(model.spec.preprocessing), task=self.name)
        if self.class_weights is not None:
            model.register_buffer(
                "class_weights", class_weights(self.class_weights, data, balanced_weights), persistent=False
            )
        return model

    def head_options(self) -> dict[str, Any]:
        """The options of the network that this task sets."""
        return {}

    @abstractmethod
    def fit(self, how: Any) -> Any:
        """The input of the network as the options say, from what its weights have."""

    @abstractmethod
    def transform(self, how: Any, signal: Any, *, train: bool) -> Tensor:
        """The tensor of a signal, varied for training. All randomness comes from torch's global generator."""

    def example(self, spec: ModelSpec, sample: Sample, *, train: bool) -> tuple[Tensor, int]:
        return self.transform(spec.preprocessing, sample.signal, train=train), sample.label

    def collate(self, spec: ModelSpec, examples: Sequence[tuple[Tensor, int]], *, train: bool) -> Batch:
        signals, labels = zip(*examples, strict=True)
        if len({signal.shape for signal in signals}) > 1:
            raise UserError(
                f"the network takes every {spec.preprocessing.kind} as a whole, and these differ in length; give "
                "--batch-size 1."
            )
        signals, labels = torch.stack(signals), torch.tensor(labels)
        if not train:
            return {"images": signals, "labels": labels}
        signals, targets = self.mix(signals, labels, spec.num_classes)
        return {"images": signals, "targets": targets}

    def mix(self, signals: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """A batch for training, and its targets (B, K), whose rows sum to one; as they are, but for smoothing."""
        mix = MixupCutmix(mixup_alpha=0.0, cutmix_alpha=0.0, label_smoothing=self.label_smoothing, num_classes=classes)
        return mix(signals, labels)

    def loss(self, model: Network, batch: Batch) -> Mapping[str, Tensor]:
        targets = batch["targets"]
        if self.class_weights is not None:
            targets = weighted_targets(targets, model.class_weights, self.label_smoothing)
        return model.loss(batch["images"], targets)

    def metric(self, spec: ModelSpec) -> Metric:
        return ClassificationMetric(spec, self.logits)

    def logits(self, model: Network, signals: Tensor) -> Tensor:
        """(B, K), whose softmax are the probabilities of the classes."""
        return model(signals)

    def shown(self, dataset: MapDataset, details: Mapping[str, Any], most: int) -> list[Sample]:
        """Samples for the report: half of them the worst mistakes, if there are so many, the others evenly spread."""
        wrong = [row["index"] for row in details["worst"]][: most // 2]
        spread = range(0, len(dataset), max(1, len(dataset) // most))
        return [dataset[index] for index in list(dict.fromkeys([*wrong, *spread]))[:most]]
