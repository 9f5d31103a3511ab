"""Image classification: one label per image.

Training follows the paper (Table 18): soft targets from mixup or cutmix and label smoothing, cross-entropy. Measured
are top-1 and top-5 accuracy and cross-entropy, with a confusion matrix and the worst mistakes for the report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from focalnet import inputs
from focalnet.data import Datasets, Sample, open_data, open_evaluation
from focalnet.data.base import Load, SplitName
from focalnet.data.transforms.classification import Augmentation, shorter_side, train_transform
from focalnet.data.transforms.mixup import MixupCutmix
from focalnet.errors import MissingExtraError
from focalnet.inputs.image import Signal
from focalnet.models.create import create_model
from focalnet.tasks.base import Batch, ImageTask, MapDataset, Meaning, Metric, Network, Section, Shot
from focalnet.tasks.figures import class_names, class_sections, explained
from focalnet.tasks.options import ClassifyOptions, check_task
from focalnet.tasks.weighting import balanced_weights, class_weights, weighted_targets
from focalnet.visualize.draw import annotate
from focalnet.weights.spec import ModelSpec

WORST = 24
"""Mistakes kept for the report."""

STILL = {"hflip": 0.0, "auto_augment": None, "color_jitter": 0.0, "erase": 0.0}
WHOLE = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
AUGMENTATIONS = {
    "none": Augmentation(**WHOLE, **STILL),
    "light": Augmentation(scale=(0.35, 1.0), auto_augment=None, color_jitter=0.2, erase=0.0),
    "imagenet": Augmentation(),
    "digits": Augmentation(**WHOLE, **STILL, rotate=12.0, shift=0.1, zoom=0.12, shear=8.0),
}


def accuracy_meanings(samples: str) -> dict[str, Meaning]:
    """What the metrics of `ClassificationMetric` say, of these samples."""
    return {
        "top1": Meaning("top-1", f"share of the {samples} whose likeliest class is the right one", "Accuracy"),
        "top5": Meaning("top-5", f"share of the {samples} whose class is among the five likeliest", "Accuracy"),
        "val_loss": Meaning("loss", f"cross-entropy of the validation {samples}; lower is better", "Accuracy"),
    }


@dataclass(frozen=True, kw_only=True)
class Classify(ClassifyOptions, ImageTask):
    """Image classification."""

    meanings: ClassVar[Mapping[str, Meaning]] = accuracy_meanings("images")

    def datasets(self, seed: int) -> Datasets:
        check_task(self.name, self.model)
        with self.telling_task():
            data = open_data(
                self.kind, self.data, val_fraction=self.val_fraction, seed=seed, on_bad_image=self.on_bad_image
            )
        self.check_num_classes(data, "look for a folder too many or too few")
        return data

    def evaluation_data(self, spec: ModelSpec, split: SplitName | None = None) -> MapDataset:
        return open_evaluation(
            self.kind, self.data, spec.classes, spec.num_classes, on_bad_image=self.on_bad_image, split=split
        )

    def build_model(self, data: Datasets) -> Network:
        overrides = self.overrides()
        model = create_model(
            self.model, weights=self.weights, classes=data.classes, recompute=self.recompute, **overrides
        )
        spec = model.spec.replace(task=None, threshold=None)  # of weights with any number of labels
        model.spec = self.seen(spec, data)
        self._transform(model.spec)  # refuses what does not fit together
        self.check_image_size(model)
        if self.class_weights is not None:
            model.register_buffer(
                "class_weights", class_weights(self.class_weights, data, self.balanced), persistent=False
            )
        return model

    def seen(self, spec: ModelSpec, data: Datasets) -> ModelSpec:
        return self.fit_input(spec, data, input_size=self.image_size, view=self.resize)

    def balanced(self, labels: Sequence[Any], classes: int) -> Tensor:
        """What `--class-weights balanced` means: the weight of each class, (K,)."""
        return balanced_weights(labels, classes)

    def load(self, spec: ModelSpec) -> Load:
        read = super().load(spec)
        how = spec.preprocessing
        return partial(read, enough=shorter_side(how, AUGMENTATIONS[self.augment])) if self.draft else read

    def _transform(self, spec: ModelSpec) -> Any:
        return _train_transform(spec.preprocessing, self.augment, self.raw_batches)

    def example(self, spec: ModelSpec, sample: Sample, *, train: bool) -> tuple[Tensor, Any]:
        transform = self._transform(spec) if train else spec.preprocessing
        return transform(sample.signal), sample.label

    def collate(self, spec: ModelSpec, examples: Sequence[tuple[Tensor, Any]], *, train: bool) -> Batch:
        images, labels = zip(*examples, strict=True)
        images, labels = torch.stack(images), self.truth(labels, spec)
        if not train:
            return {"images": images, "labels": labels}
        mixup, cutmix = self.mixing
        mix = MixupCutmix(
            mixup_alpha=mixup,
            cutmix_alpha=cutmix,
            label_smoothing=self.label_smoothing,
            num_classes=spec.num_classes,
        )
        images, targets = mix(images, labels)
        return {"images": images, "targets": targets}

    def truth(self, labels: Sequence[Any], spec: ModelSpec) -> Tensor:
        """The labels of the samples of a batch as a tensor, (B,)."""
        return torch.tensor(labels)

    def loss(self, model: Network, batch: Batch) -> Mapping[str, Tensor]:
        targets = batch["targets"]
        if self.class_weights is not None:
            targets = weighted_targets(targets, model.class_weights, self.label_smoothing)
        return model.loss(self.images(model, batch), targets)

    def images(self, model: Network, batch: Batch) -> Tensor:
        """The images of a training batch as the network takes them."""
        images = batch["images"]
        return model.spec.preprocessing.scaled(images) if self.raw_batches else images

    def own_loss(self, loss: Callable[..., Any], model: Network, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": loss(model(self.images(model, batch)), batch["targets"])}

    def metric(self, spec: ModelSpec) -> Metric:
        return ClassificationMetric(spec)

    def render(self, model: Network, dataset: MapDataset, details: Mapping[str, Any]) -> list[Section]:
        classes = model.spec.classes
        sections = class_sections(details, classes)
        samples = [dataset[row["index"]] for row in details["worst"]]
        shots = [
            Shot(
                sample.signal,
                f"{classes[row['label']]}, taken for {classes[row['predicted']]} ({row['confidence']:.0%})",
                sample.path,
            )
            for row, sample in zip(details["worst"], samples, strict=True)
        ]
        if shots:
            text = (
                "The wrong predictions with the highest loss: the truth, the prediction and its probability, the file."
            )
            sections.append(Section("Worst mistakes", text, gallery=shots, columns=6))
        shown = samples[0] if samples else dataset[0]
        return [*sections, explained(model, shown, grad_cam=True)]

    def augmented(self, spec: ModelSpec, sample: Sample) -> Sample:
        return replace(sample, signal=spec.preprocessing.restore(self.example(spec, sample, train=True)[0]))

    def draw_truth(self, sample: Sample, classes: Sequence[str]) -> Image:
        labels = [sample.label] if isinstance(sample.label, int) else sample.label
        return annotate(sample.signal, [classes[label] for label in labels] or ["none"])

    def predict_batch(self, model: Network, batch: Tensor, signals: Sequence[Signal]) -> list[Any]:
        names = class_names(model.spec)
        probabilities = model(batch).float().softmax(-1).cpu()
        return [ClassPrediction.from_probabilities(row, names) for row in probabilities]


@dataclass(frozen=True)
class ClassPrediction:
    """What a classifier says of one image.

    Attributes:
        top: (class name, probability) of the five likeliest classes, likeliest first.
    """

    top: tuple[tuple[str, float], ...]

    @classmethod
    def from_probabilities(cls, probabilities: Tensor, names: Sequence[str]) -> "ClassPrediction":
        best = probabilities.topk(min(5, len(probabilities))).indices
        return cls(tuple((names[int(index)], float(probabilities[index])) for index in best))

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top[0][0]

    @property
    def score(self) -> float:
        """Its probability."""
        return self.top[0][1]

    def to_dict(self) -> dict[str, Any]:
        return {"label": self.label, "score": self.score, "top": [{"label": name, "score": p} for name, p in self.top]}

    def summary(self) -> str:
        return ", ".join(f"{name} {probability:.1%}" for name, probability in self.top[:3])

    def draw(self, image: Signal) -> Image:
        return annotate(image, [f"{name}  {probability:.1%}" for name, probability in self.top])

    def maps(self) -> dict[str, Image]:
        return {}


class ClassificationMetric:
    """Top-1 accuracy, top-5 of more than five classes, loss, confusion matrix, worst mistakes; over all processes."""

    def __init__(self, spec: ModelSpec, logits: Callable[[Network, Tensor], Tensor] | None = None) -> None:
        try:
            from torchmetrics import MeanMetric, MetricCollection
            from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
        except ImportError:
            raise MissingExtraError("Measuring accuracy", "train") from None
        self.logits = logits or (lambda model, images: model(images))
        classes = spec.num_classes
        self.accuracy = MetricCollection(
            {f"top{k}": MulticlassAccuracy(classes, top_k=k, average="micro") for k in (1, 5) if k == 1 or k < classes}
        )
        self.loss = MeanMetric()
        self.confusion = MulticlassConfusionMatrix(classes) if classes <= 1000 else None
        self.worst: list[dict[str, Any]] = []

    def update(self, model: Network, batch: Batch) -> None:
        valid = batch["index"] >= 0
        logits = self.logits(model, batch["images"])[valid].float()
        labels, indices = batch["labels"][valid], batch["index"][valid]
        if not len(labels):
            return
        losses = F.cross_entropy(logits, labels, reduction="none")
        confidence, predicted = logits.softmax(-1).max(-1)
        for metric in filter(None, (self.accuracy, self.confusion)):
            metric.to(logits.device).update(logits, labels)
        self.loss.to(logits.device).update(losses)
        for row in (predicted != labels).nonzero().flatten().tolist():
            self.worst.append({
                "index": int(indices[row]), "label": int(labels[row]), "predicted": int(predicted[row]),
                "confidence": float(confidence[row]), "loss": float(losses[row]),
            })  # fmt: skip
        self.worst = sorted(self.worst, key=lambda row: -row["loss"])[:WORST]

    def compute(self) -> dict[str, float]:
        return {
            **{name: float(value) for name, value in self.accuracy.compute().items()},
            "val_loss": float(self.loss.compute()),
        }

    def details(self) -> dict[str, Any]:
        worst = self.worst
        if torch.distributed.is_initialized():
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, worst)
            worst = sorted((row for rows in gathered for row in rows), key=lambda row: -row["loss"])[:WORST]
        confusion = {} if self.confusion is None else {"confusion": self.confusion.compute().tolist()}
        return {**confusion, "worst": worst}


@cache
def _train_transform(preprocessing: inputs.Image, augment: str, raw: bool) -> Any:
    return train_transform(preprocessing, AUGMENTATIONS[augment], raw=raw)
