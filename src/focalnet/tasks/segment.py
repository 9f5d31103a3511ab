"""Semantic segmentation: a class for every pixel.

An image is seen whole, or with `window` in overlapping squares whose probabilities are averaged (mmsegmentation's
"slide", which averages logits). With `tta` the probabilities of six scales, each also mirrored, are averaged
(the official ratios 0.5 to 1.75). The prediction is the likeliest class at the size of the original image, and is
scored there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Images
from PIL.Image import Image
from torch import Tensor

from focalnet.data import DenseSample
from focalnet.data.base import IGNORE
from focalnet.inputs.image import Signal
from focalnet.metrics import gathered
from focalnet.metrics.overlap import OverlapMetric
from focalnet.metrics.semantic import SemanticMetric
from focalnet.models.registry import get_family, parse_name
from focalnet.tasks.base import Batch, MapDataset, Meaning, Network, Section
from focalnet.tasks.dense import FEW, DenseTask
from focalnet.tasks.figures import class_names
from focalnet.tasks.options import SegmentOptions
from focalnet.visualize.draw import draw_semantic
from focalnet.visualize.plots import bars, per_class_table
from focalnet.weights.spec import ModelSpec

WORST = 6
"""Images that are kept for the report."""
TEST_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@dataclass(frozen=True, kw_only=True)
class Segment(SegmentOptions, DenseTask):
    """Semantic segmentation."""

    longest: ClassVar[int | None] = 4
    meanings: ClassVar[Mapping[str, Meaning]] = {
        "miou": Meaning("mIoU", "intersection over union with the truth, the mean over classes", "Regions"),
        "mean_accuracy": Meaning("mAcc", "share of a class's pixels that are right, the mean over classes", "Regions"),
        "pixel_accuracy": Meaning("aAcc", "share of all pixels that are right", "Regions"),
        "dice": Meaning("Dice", "overlap with each class of the truth, the mean over classes and images", "Per image"),
        "hd95": Meaning("HD95", "distance of the borders in pixels, 95th percentile; lower is better", "Per image"),
        "unmatched": Meaning("unmatched", "classes that were missed on an image, or made up", "Per image"),
        "dice_reference": Meaning("Dice, as quoted", "as papers count it: see metrics.overlap", "Per image"),
        "hd95_reference": Meaning("HD95, as quoted", "as papers count it: see metrics.overlap", "Per image"),
    }

    def targets(self, batch: Batch) -> Any:
        maps = torch.stack([target["semantic"] for target in batch["targets"]]).long()
        if get_family(parse_name(self.model).head).learns == "label_map":
            return maps
        return [_regions(labels) for labels in maps]

    def metric(self, spec: ModelSpec) -> "SegmentationMetric":
        return SegmentationMetric(self, spec)

    def scores(
        self, model: Network, images: Tensor, sizes: Tensor, originals: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Scores of the classes, (K, H, W) per image, at its original size. Arguments as in `Detect.find`."""
        if not self.tta and self.window is None:
            return model.semantic(model(images), sizes, torch.tensor(originals))
        return [
            self._averaged(model, image[None, :, :h, :w], original)
            for image, (h, w), original in zip(images, sizes.tolist(), originals, strict=True)
        ]

    def _averaged(self, model: Network, image: Tensor, original: tuple[int, int]) -> Tensor:
        views = [(scale, mirror) for scale in TEST_SCALES for mirror in (False, True)]
        total: Any = 0.0
        for scale, mirror in views if self.tta else [(1.0, False)]:
            size = [max(1, round(side * scale)) for side in image.shape[2:]]
            view = F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
            scores = self._seen(model, view.flip(3) if mirror else view, original)
            total = total + (scores.flip(2) if mirror else scores)
        return total / (len(views) if self.tta else 1)

    def _seen(self, model: Network, image: Tensor, original: tuple[int, int]) -> Tensor:
        """Scores of one image (1, 3, H, W), whole or in windows."""
        height, width = image.shape[2:]
        if self.window is None or max(height, width) <= self.window:
            return model.semantic(model(image), torch.tensor([[height, width]]), torch.tensor([original]))[0]
        total = count = torch.zeros((), device=image.device)
        for top, left, h, w in windows(height, width, self.window):
            crop = image[:, :, top : top + h, left : left + w]
            (scores,) = model.semantic(model(crop), torch.tensor([[h, w]]))
            border = (left, width - left - w, top, height - top - h)
            total, count = total + F.pad(scores, border), count + F.pad(torch.ones_like(scores[:1]), border)
        return F.interpolate((total / count)[None], size=original, mode="bilinear", align_corners=False)[0]

    def predict_images(
        self, model: Network, images: Tensor, sizes: Tensor, originals: Sequence[tuple[int, int]]
    ) -> list["SegmentPrediction"]:
        names = class_names(model.spec)
        kind = np.uint8 if len(names) <= 256 else np.uint16
        return [
            SegmentPrediction(scores.argmax(0).cpu().numpy().astype(kind), names)
            for scores in self.scores(model, images, sizes, originals)
        ]

    def show(
        self, model: Network, samples: Sequence[DenseSample], dataset: MapDataset, details: Mapping[str, Any]
    ) -> list[Section]:
        names, rows = class_names(model.spec), details["classes"]
        worst = [dataset[row["index"]] for row in details["worst"]]
        captions = [f"mIoU {row['miou']:.3f}, {row['right']:.1%} of the pixels are right" for row in details["worst"]]
        tables = [Section("Classes", table=per_class_table(rows, names), folded=len(names) > FEW)]
        if "overlap" in details:
            text = "Means over the images: Dice, and the 95th percentile of the distances of the borders in pixels."
            tables.append(Section("Overlap per image", text, table=per_class_table(details["overlap"], names)))
        return [
            Section(
                "Overlap of the classes",
                "Intersection over union of prediction and truth, the worst class first.",
                png=bars([row["iou"] for row in rows], names, "IoU"),
            ),
            *tables,
            Section(
                "Worst images",
                "Those with the lowest mean overlap over their classes.",
                gallery=self.beside_truth(model, worst, captions),
                columns=2,
            ),
            Section("Predictions", "Images never trained on.", gallery=self.beside_truth(model, samples), columns=2),
        ]

    def draw_truth(self, sample: DenseSample, classes: Sequence[str]) -> Image:
        return draw_semantic(sample.image, sample.semantic, classes)


class SegmentationMetric:
    """mIoU and accuracies, and with `dice` the overlap per image, over all processes."""

    def __init__(self, task: Segment, spec: ModelSpec) -> None:
        self.task = task
        self.parts: list[Any] = [
            SemanticMetric(spec.num_classes, IGNORE),
            *([OverlapMetric(spec.num_classes, IGNORE)] if task.dice else []),
        ]
        self.images: dict[int, tuple[float, float]] = {}

    def update(self, model: Network, batch: Batch) -> None:
        truths = batch["truth"]
        scores = self.task.scores(model, batch["images"], batch["sizes"], [truth["size"] for truth in truths])
        for index, score, truth in zip(batch["index"].tolist(), scores, truths, strict=True):
            if index >= 0:
                predicted, true = score.argmax(0), truth["semantic"].long()
                self.images[index], *_ = [part.update(predicted, true) for part in self.parts]

    def compute(self) -> dict[str, float]:
        return {name: value for part in self.parts for name, value in part.compute().items()}

    def details(self) -> dict[str, Any]:
        images = {index: figures for part in gathered(self.images) for index, figures in part.items()}
        order = sorted((index for index in images if images[index][0] >= 0), key=lambda index: (images[index], index))
        worst = [{"index": i, "miou": images[i][0], "right": images[i][1]} for i in order[:WORST]]
        told = {name: value for part in self.parts for name, value in part.details().items()}
        return {**told, "worst": worst}


@dataclass(frozen=True)
class SegmentPrediction:
    """What a segmenter says of one image.

    Attributes:
        labels: (H, W), the class of each pixel.
        classes: names of all classes.
    """

    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def pixels(self) -> dict[int, int]:
        """Pixels of each class that is on the image, most first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return {int(label): int(counts[label]) for label in np.argsort(-counts, kind="stable") if counts[label]}

    def to_dict(self) -> dict[str, Any]:
        """`id` is the value of the class in the map of `maps`."""
        size = self.labels.size
        return {
            "classes": [
                {"id": label, "label": self.classes[label], "pixels": pixels, "share": round(pixels / size, 4)}
                for label, pixels in self.pixels.items()
            ]
        }

    def summary(self) -> str:
        size = self.labels.size
        return ", ".join(f"{self.classes[label]} {n / size:.1%}" for label, n in list(self.pixels.items())[:5])

    def draw(self, image: Signal) -> Image:
        return draw_semantic(image, self.labels, self.classes)

    def maps(self) -> dict[str, Image]:
        return {"labels": Images.fromarray(self.labels)}


def windows(height: int, width: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    """Overlapping squares (top, left, height, width) that cover an image, two thirds of a side apart."""
    h, w, step = min(side, height), min(side, width), max(1, side * 2 // 3)
    tops = sorted({min(top, height - h) for top in range(0, max(height - h, 0) + step, step)})
    lefts = sorted({min(left, width - w) for left in range(0, max(width - w, 0) + step, step)})
    yield from ((top, left, h, w) for top in tops for left in lefts)


def _regions(labels: Tensor) -> dict[str, Tensor]:
    """A label map for networks that learn from masks: one per class on the image."""
    present = labels.unique()
    present = present[present != IGNORE]
    return {"labels": present, "masks": labels == present[:, None, None]}
