"""Multi-label classification: any number of labels per image.

Each class is a question of its own: training is binary cross-entropy on sigmoids, with targets smoothed towards one
half and mixed by mixup and cutmix. `--class-weights balanced` weighs the images that have a class as much as those
that have it not (`pos_weight`). Measured are mean average precision, and F1 and exact match at a threshold, which the
model keeps: the one that is best on the validation data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from focalnet.data import Datasets, Sample
from focalnet.inputs.image import Signal
from focalnet.metrics import gathered
from focalnet.metrics.multilabel import MultilabelMetric
from focalnet.tasks.base import Batch, MapDataset, Meaning, Network, Section, Shot
from focalnet.tasks.classify import WORST, Classify
from focalnet.tasks.figures import class_names, explained
from focalnet.tasks.options import MultilabelOptions
from focalnet.visualize.draw import annotate
from focalnet.visualize.plots import bars, over_threshold, per_class_table
from focalnet.weights.spec import ModelSpec

FEW = 24
"""Classes up to which their table is shown at once."""
USUAL = 0.5
"""The threshold of a network that has none of its own."""


@dataclass(frozen=True, kw_only=True)
class Multilabel(MultilabelOptions, Classify):
    """Multi-label classification."""

    meanings: ClassVar[Mapping[str, Meaning]] = {
        "map": Meaning("mAP", "mean over the classes of the average precision, which needs no threshold", "Labels"),
        "f1_micro": Meaning("F1, micro", "of all answers together, at the threshold", "Labels"),
        "f1_macro": Meaning("F1, macro", "mean over the classes, at the threshold", "Labels"),
        "exact_match": Meaning("exact match", "share of the images whose labels are all right", "Labels"),
        "threshold": Meaning("threshold", "least score of a label: the one with the best F1, micro", "Labels"),
        "val_loss": Meaning("loss", "binary cross-entropy of the validation images; lower is better", "Labels"),
    }

    def build_model(self, data: Datasets) -> Network:
        model = super().build_model(data)
        model.spec = model.spec.replace(task=self.name)
        return model

    def balanced(self, labels: Sequence[Sequence[int]], classes: int) -> Tensor:
        counts = torch.tensor([label for own in labels for label in own]).bincount(minlength=classes)
        return (len(labels) - counts).clamp(min=1) / counts.clamp(min=1)

    def truth(self, labels: Sequence[Sequence[int]], spec: ModelSpec) -> Tensor:
        """(B, K), 1 for each class that an image has."""
        truth = torch.zeros(len(labels), spec.num_classes)
        for row, own in zip(truth, labels, strict=True):
            row[list(own)] = 1
        return truth

    def loss(self, model: Network, batch: Batch) -> Mapping[str, Tensor]:
        images = self.images(model, batch)
        if self.class_weights is None:
            return model.loss(images, batch["targets"])
        logits, weights = model(images).float(), model.class_weights
        return {"loss": F.binary_cross_entropy_with_logits(logits, batch["targets"], pos_weight=weights)}

    def metric(self, spec: ModelSpec) -> "LabelMetric":
        return LabelMetric(spec, spec.threshold if self.threshold is None else self.threshold)

    def tuned(self, spec: ModelSpec, metrics: Mapping[str, float], details: Mapping[str, Any]) -> ModelSpec:
        return spec.replace(threshold=metrics["threshold"])

    def render(self, model: Network, dataset: MapDataset, details: Mapping[str, Any]) -> list[Section]:
        names, rows, threshold = class_names(model.spec), details["classes"], self.least_score(model.spec)
        text = "Of each class, over all thresholds: the share of right answers among the likeliest ones."
        said = f"A label is told where its score is {threshold:.2f} or more; --threshold of predict takes another one."
        sections = [
            Section("Average precision", text, png=bars([row["ap"] for row in rows], names, "average precision")),
            Section("Threshold", said, png=over_threshold(details["curves"], threshold)),
            Section("Classes", "At the threshold.", table=per_class_table(rows, names), folded=len(names) > FEW),
        ]
        samples = [dataset[row["index"]] for row in details["worst"]]
        told = self.predict(model, [sample.signal for sample in samples]) if samples else []
        wrong = [
            (sample, Shot(sample.signal, f"{_listed(true)}; predicted {_listed(sorted(one.names))}", sample.path))
            for sample, one in zip(samples, told, strict=True)
            if set(true := _named(sample, names)) != set(one.names)
        ]
        if wrong:
            text = "The wrong predictions with the highest loss: the truth, the prediction, the file."
            sections.append(Section("Worst mistakes", text, gallery=[shot for _, shot in wrong], columns=6))
        return [*sections, explained(model, wrong[0][0] if wrong else dataset[0], grad_cam=True)]

    def least_score(self, spec: ModelSpec) -> float:
        """The least score of a label: as asked for, else what the model keeps, else the usual one."""
        known = (self.threshold, spec.threshold, USUAL)
        return next(value for value in known if value is not None)

    def predict_batch(self, model: Network, batch: Tensor, signals: Sequence[Signal]) -> list[Any]:
        names, threshold = class_names(model.spec), self.least_score(model.spec)
        scores = model(batch).float().sigmoid().cpu()
        return [LabelPrediction.from_scores(row, names, threshold) for row in scores]


@dataclass(frozen=True)
class LabelPrediction:
    """What a multi-label classifier says of one image.

    Attributes:
        labels: (class name, score) of the classes whose score is the threshold or more, best first.
        top: the same of the five likeliest classes, said or not.
    """

    labels: tuple[tuple[str, float], ...]
    top: tuple[tuple[str, float], ...]

    @classmethod
    def from_scores(cls, scores: Tensor, names: Sequence[str], threshold: float) -> "LabelPrediction":
        ranked = [(str(names[i]), float(scores[i])) for i in scores.argsort(descending=True, stable=True).tolist()]
        said = int((scores >= threshold).sum())
        return cls(tuple(ranked[:said]), tuple(ranked[:5]))

    @property
    def names(self) -> tuple[str, ...]:
        """The labels without their scores."""
        return tuple(name for name, _ in self.labels)

    def to_dict(self) -> dict[str, Any]:
        rows = {"labels": self.labels, "top": self.top}
        return {key: [{"label": name, "score": score} for name, score in row] for key, row in rows.items()}

    def summary(self) -> str:
        name, score = self.top[0]
        return (
            ", ".join(f"{name} {score:.1%}" for name, score in self.labels)
            or f"no label (likeliest: {name} {score:.1%})"
        )

    def draw(self, image: Signal) -> Image:
        return annotate(image, [f"{name}  {score:.1%}" for name, score in self.labels] or ["no label"])

    def maps(self) -> dict[str, Image]:
        return {}


class LabelMetric:
    """Metrics of the labels, binary cross-entropy, and the images with the highest loss, over all processes."""

    def __init__(self, spec: ModelSpec, threshold: float | None) -> None:
        self.metric = MultilabelMetric(spec.num_classes, threshold)
        self.losses: dict[int, float] = {}

    def update(self, model: Network, batch: Batch) -> None:
        valid = batch["index"] >= 0
        logits, truth = model(batch["images"])[valid].float(), batch["labels"][valid]
        self.metric.update(logits.sigmoid(), truth > 0)
        losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
        self.losses.update(zip(batch["index"][valid].tolist(), losses.tolist(), strict=True))

    def compute(self) -> dict[str, float]:
        losses = self._losses()
        return {**self.metric.compute(), "val_loss": sum(losses.values()) / len(losses)}

    def details(self) -> dict[str, Any]:
        worst = sorted(self._losses().items(), key=lambda row: (-row[1], row[0]))[:WORST]
        return {**self.metric.details(), "worst": [{"index": index, "loss": loss} for index, loss in worst]}

    def _losses(self) -> dict[int, float]:
        """The loss of each sample, by its index, in their order."""
        return dict(sorted(row for losses in gathered(self.losses) for row in losses.items()))


def _named(sample: Sample, classes: Sequence[str]) -> list[str]:
    labels: Any = sample.label  # several
    return [classes[int(label)] for label in labels]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
