"""Panoptic segmentation: every pixel belongs to one segment, a counted thing or a kind of stuff.

Measured is panoptic quality; from the same outputs also mask AP of the things and mIoU, as the official evaluation of
Mask2Former does.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image as Images
from PIL.Image import Image
from torch import Tensor

from focalnet.data import DenseSample
from focalnet.data.base import IGNORE
from focalnet.errors import UserError
from focalnet.inputs.image import Signal
from focalnet.metrics.detection import AveragePrecision
from focalnet.metrics.panoptic import PanopticMetric
from focalnet.metrics.semantic import SemanticMetric
from focalnet.tasks.base import Batch, MapDataset, Meaning, Network, Section
from focalnet.tasks.dense import FEW, DenseTask
from focalnet.tasks.detection_report import MEANINGS
from focalnet.tasks.figures import class_names
from focalnet.tasks.options import PanopticOptions
from focalnet.visualize.draw import draw_panoptic
from focalnet.visualize.plots import bars, per_class_table
from focalnet.weights.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Panoptic(PanopticOptions, DenseTask):
    """Panoptic segmentation."""

    meanings: ClassVar[Mapping[str, Meaning]] = {
        f"{name}{suffix}": Meaning(f"{name.upper()}{of}", words if not suffix else "", f"Segments{of}")
        for suffix, of in (("", ""), ("_things", " of things"), ("_stuff", " of stuff"))
        for name, words in (
            ("pq", "panoptic quality, SQ times RQ, the mean over the classes"),
            ("sq", "overlap of the segments that were found"),
            ("rq", "F1 of finding segments"),
        )
    } | {
        "miou": Meaning("mIoU", "intersection over union with the truth, the mean over classes", "Regions"),
        **{name: meaning for name, meaning in MEANINGS.items() if name.startswith("mask_ap")},
    }

    def metric(self, spec: ModelSpec) -> "PanopticTaskMetric":
        return PanopticTaskMetric(self, spec)

    def segments(
        self, model: Network, outputs: Any, sizes: Tensor, originals: Sequence[tuple[int, int]]
    ) -> list[tuple[Tensor, list[dict[str, Any]]]]:
        """Per image the id of each pixel (H, W), 0 for none, and the segments as `id`, `label`, `score`."""
        predictions = model.panoptic(
            outputs,
            sizes,
            torch.tensor(originals),
            things=[index for index, thing in enumerate(things(model.spec)) if thing],
            object_mask_threshold=self.threshold,
        )
        return [(ids, [vars(segment) for segment in segments]) for ids, segments in predictions]

    def predict_images(
        self, model: Network, images: Tensor, sizes: Tensor, originals: Sequence[tuple[int, int]]
    ) -> list["PanopticPrediction"]:
        names = class_names(model.spec)
        return [
            PanopticPrediction(ids.cpu().numpy(), segments, names)
            for ids, segments in self.segments(model, model(images), sizes, originals)
        ]

    def show(
        self, model: Network, samples: Sequence[DenseSample], dataset: MapDataset, details: Mapping[str, Any]
    ) -> list[Section]:
        names, rows = class_names(model.spec), details["classes"]
        text = "Of the segments of each class, the worst class first."
        return [
            Section("Panoptic quality", text, png=bars([row["pq"] for row in rows], names, "PQ")),
            Section("Classes", table=per_class_table(rows, names), folded=len(names) > FEW),
            Section("Predictions", "Images never trained on.", gallery=self.beside_truth(model, samples), columns=2),
        ]

    def draw_truth(self, sample: DenseSample, classes: Sequence[str]) -> Image:
        assert sample.masks is not None
        ids, segments = _true_segments(sample.masks, sample.labels, sample.crowd)
        return draw_panoptic(sample.image, ids.numpy(), segments, classes)


class PanopticTaskMetric:
    """PQ, and from the same outputs mask AP of the things and mIoU, over all processes."""

    def __init__(self, task: Panoptic, spec: ModelSpec) -> None:
        self.task = task
        self.things = [index for index, thing in enumerate(things(spec)) if thing]
        self.quality = PanopticMetric(spec.num_classes, things(spec), IGNORE)
        self.matrix = SemanticMetric(spec.num_classes, IGNORE)
        self.precision = AveragePrecision(class_names(spec), masks=True)

    def update(self, model: Network, batch: Batch) -> None:
        truths = batch["truth"]
        outputs, sizes = model(batch["images"]), batch["sizes"]
        originals = [truth["size"] for truth in truths]
        predictions = zip(
            batch["index"].tolist(),
            truths,
            self.task.segments(model, outputs, sizes, originals),
            model.semantic(outputs, sizes, torch.tensor(originals)),
            model.instances(outputs, sizes, torch.tensor(originals), things=self.things),
            strict=True,
        )
        for index, truth, (ids, segments), scores, objects in predictions:
            if index < 0:
                continue
            masks, labels, crowd = truth["masks"], truth["labels"], truth["crowd"]
            true_ids, true_segments = _true_segments(masks, labels, crowd)
            self.quality.update(ids, segments, true_ids, true_segments)
            self.matrix.update(scores.argmax(0), truth["semantic"].long())
            thing = torch.isin(labels, torch.tensor(self.things, device=labels.device))
            fields = {name: truth[name][thing] for name in ("boxes", "labels", "masks", "crowd", "area")}
            self.precision.update(index, objects, **fields, size=truth["size"])

    def compute(self) -> dict[str, float]:
        metrics = self.quality.compute() | {"miou": self.matrix.compute()["miou"]}
        with suppress(UserError):  # no thing on any image
            metrics |= {name: value for name, value in self.precision.compute().items() if name.startswith("mask_ap")}
        return metrics

    def details(self) -> dict[str, Any]:
        return self.quality.details()


@dataclass(frozen=True)
class PanopticPrediction:
    """What a panoptic segmenter says of one image.

    Attributes:
        ids: (H, W), the segment of each pixel, 0 for none.
        segments: `id`, `label` and `score` of each segment.
        classes: names of all classes.
    """

    ids: np.ndarray
    segments: list[dict[str, Any]]
    classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        pixels = np.bincount(self.ids.ravel(), minlength=len(self.segments) + 1)
        return {
            "segments": [
                {
                    "id": row["id"],
                    "label": self.classes[row["label"]],
                    "score": round(row["score"], 4),
                    "pixels": int(pixels[row["id"]]),
                }
                for row in self.segments
            ]
        }

    def summary(self) -> str:
        counts: dict[str, int] = {}
        for row in self.segments:
            name = self.classes[row["label"]]
            counts[name] = counts.get(name, 0) + 1
        return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items())) or "nothing found"

    def draw(self, image: Signal) -> Image:
        return draw_panoptic(image, self.ids, self.segments, self.classes)

    def maps(self) -> dict[str, Image]:
        """The ids as COCO writes them: id = R + 256 G + 256² B."""
        ids = self.ids.astype(np.uint32)
        return {"ids": Images.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8))}


def things(spec: ModelSpec) -> tuple[bool, ...]:
    """Which classes are counted.

    Raises:
        UserError: the weights do not tell.
    """
    if spec.things is None:
        raise UserError(
            "The weights do not tell which classes are things and which are stuff, so there is no panoptic prediction; "
            "use them for --task segment, or set model.spec = model.spec.replace(things=...)."
        )
    return spec.things


def _true_segments(masks: Tensor, labels: Tensor, crowd: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
    numbers = torch.arange(1, len(labels) + 1, device=labels.device)
    ids = (masks * numbers[:, None, None]).sum(0) if len(labels) else masks.new_zeros(masks.shape[1:], dtype=torch.long)
    rows = zip(numbers.tolist(), labels.tolist(), crowd.tolist(), strict=True)
    return ids, [{"id": number, "label": label, "crowd": group} for number, label, group in rows]
