"""Object detection and instance segmentation: boxes, and masks where model and data have them.

Measured is COCO's average precision, by faster-coco-eval. With `tta` the detections of several scales, each also
mirrored, are put together and thinned by non-maximum suppression, class by class.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor
from torchvision.ops import batched_nms

from focalnet.data import Datasets, DenseSample
from focalnet.errors import MissingExtraError
from focalnet.inputs.image import Signal
from focalnet.metrics.detection import LIMIT, AveragePrecision
from focalnet.models.registry import get_family, parse_name
from focalnet.structures import BACK, TURNS, Detections, encode_masks, turn_boxes, turn_pixels
from focalnet.tasks.base import Batch, MapDataset, Meaning, Network, Section
from focalnet.tasks.dense import FEW, DenseTask, learns_masks
from focalnet.tasks.detection_report import MEANINGS, at_threshold
from focalnet.tasks.figures import class_names
from focalnet.tasks.options import DetectOptions
from focalnet.tasks.results import category_ids, csv_text, yolo_text
from focalnet.visualize.draw import draw_detections
from focalnet.visualize.plots import per_class_table, pr_curves
from focalnet.weights.spec import ModelSpec

log = logging.getLogger(__name__)

TEST_SCALES = (0.75, 1.0, 1.25)
TEST_NMS = 0.6
"""IoU above which two detections of augmented copies are one object."""


MOST_CONFUSED = 300
"""Classes up to which there is a confusion matrix."""
USUAL = 0.5
"""The least score of a network that has none of its own."""


@dataclass(frozen=True, kw_only=True)
class Detect(DetectOptions, DenseTask):
    """Object detection and instance segmentation."""

    meanings: ClassVar[Mapping[str, Meaning]] = MEANINGS

    def data_options(self) -> dict[str, Any]:
        return {"crowd": self.crowd}

    def head_options(self) -> dict[str, Any]:
        options = super().head_options()
        if self.detections is not None:
            options["detections"] = self.detections
            if "num_queries" not in options and self.head_is_new("num_queries"):
                head = parse_name(self.model)
                usual = head.head_options.get("num_queries", get_family(head.head).default("num_queries"))
                options["num_queries"] = max(usual, self.detections)
        return options

    def build_model(self, data: Datasets) -> Network:
        model = super().build_model(data)
        most = getattr(data.train, "most", None) or 0
        if most > model.detections:
            log.warning(
                "%s has up to %d objects on an image, and %s finds %d at most: --detections %d raises it%s",
                self.data, most, self.model, model.detections, most,
                "" if self.detections is None else ", with a new head",
            )  # fmt: skip
        return model

    def metric(self, spec: ModelSpec) -> "DetectionMetric":
        return DetectionMetric(self, spec)

    def find(
        self, model: Network, images: Tensor, sizes: Tensor, originals: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """Objects in a batch, in pixels of the original images.

        Args:
            model: a detector.
            images: (B, 3, H, W), normalised and padded.
            sizes: (B, 2), height and width of what is image.
            originals: height and width of each original image.
        """
        if self.detections is not None:
            model.detections = self.detections
        original = torch.tensor(originals, device=images.device)
        if not self.tta:
            return model.detect(images, sizes, original)
        return [
            _merged(
                [
                    _mirrored(detections, size[1]) if mirror else detections
                    for scale in TEST_SCALES
                    for mirror in (False, True)
                    for detections in model.detect(*_view(image[:, :h, :w], scale, mirror), torch.tensor([size]))
                ]
            )
            for image, (h, w), size in zip(images, sizes.tolist(), originals, strict=True)
        ]

    def predict_images(
        self, model: Network, images: Tensor, sizes: Tensor, originals: Sequence[tuple[int, int]]
    ) -> list["DetectionPrediction"]:
        names, least = class_names(model.spec), self.least_score(model.spec)
        found = zip(self.find(model, images, sizes, originals), originals, strict=True)
        return [
            DetectionPrediction(detections.take(detections.scores >= least), names, size) for detections, size in found
        ]

    def least_score(self, spec: ModelSpec) -> float:
        """The least score of an object in a prediction."""
        return next(value for value in (self.threshold, spec.threshold, USUAL) if value is not None)

    def tuned(self, spec: ModelSpec, metrics: Mapping[str, float], details: Mapping[str, Any]) -> ModelSpec:
        return spec.replace(threshold=details["threshold"])

    def show(
        self, model: Network, samples: Sequence[DenseSample], dataset: MapDataset, details: Mapping[str, Any]
    ) -> list[Section]:
        names, least = class_names(model.spec), self.least_score(model.spec)
        table = per_class_table(details["classes"], names)
        return [
            *at_threshold(dataset, details, names),
            Section("Precision and recall", "At an IoU of 0.5.", png=pr_curves(details)),
            Section("Classes", "Average precision, the worst first.", table=table, folded=len(names) > FEW),
            Section(
                "Predictions",
                f"Images never trained on, with the objects of a score of {least:.3g} or more.",
                gallery=self.beside_truth(model, samples),
                columns=2,
            ),
        ]

    def draw_truth(self, sample: DenseSample, classes: Sequence[str]) -> Image:
        labels: list[int] = sample.labels.tolist()
        return draw_detections(
            sample.image, sample.boxes, [classes[label] for label in labels], None, sample.masks, labels=labels
        )


class DetectionMetric:
    """COCO's table over all processes, and the detections with the ids of the data."""

    def __init__(self, task: Detect, spec: ModelSpec) -> None:
        self.task = task
        self.masks = learns_masks(spec.head)
        self.precision: AveragePrecision | None = None
        self.names, self.spec = class_names(spec), spec
        self.limit = max(LIMIT, task.detections or spec.head_options.get("detections") or 0)
        self.written_as = ""

    def update(self, model: Network, batch: Batch) -> None:
        truths = batch["truth"]
        per_image = self.task.find(model, batch["images"], batch["sizes"], [truth["size"] for truth in truths])
        for index, detections, truth in zip(batch["index"].tolist(), per_image, truths, strict=True):
            if self.precision is None:  # only now it is known whether the data has masks
                masks = self.masks and truth["masks"] is not None
                ids = category_ids(self.names, truth["category_ids"] or self.spec.category_ids)
                self.precision = AveragePrecision(self.names, masks=masks, category_ids=ids, limit=self.limit)
                self.written_as = truth["written_as"]
            if index >= 0:
                found, known = _as_annotated(detections, truth)
                self.precision.update(truth["image_id"], found, index=index, **{key: known[key] for key in TRUTH})

    def compute(self) -> dict[str, float]:
        assert self.precision is not None, "nothing was measured"
        metrics = self.precision.compute()
        main = [f"{kind}_{name}" for kind in self.precision.kinds for name in ("ap", "ap50", "ap75")]
        main = [name for name in main if name in metrics]
        return {name: metrics[name] for name in [*main, *(name for name in metrics if name not in main)]}

    def details(self) -> dict[str, Any]:
        assert self.precision is not None, "nothing was measured"
        results: dict[str, Any] = {f"{kind}.json": self.precision.results(kind) for kind in self.precision.kinds}
        if self.written_as == "yolo":
            results |= yolo_results(self.precision)
        point = self.precision.operating_point()
        best, chosen = point.threshold, {}
        if best is not None:
            chosen = {
                "at": point.at(best), "curves": point.curves(), **point.worst(best),
                "confusion": point.confusion(best).tolist() if len(self.names) <= MOST_CONFUSED else None,
            }  # fmt: skip
        return {**self.precision.details(), "threshold": best, **chosen, "results": results}


TRUTH = ("boxes", "labels", "masks", "crowd", "area", "outlined", "size")


@dataclass(frozen=True)
class DetectionPrediction:
    """What a detector says of one image.

    Attributes:
        detections: the objects, surest first, in pixels of the image.
        classes: names of all classes.
        size: height and width of the image.
    """

    detections: Detections
    classes: tuple[str, ...]
    size: tuple[int, int] | None = None

    @property
    def names(self) -> list[str]:
        """The class of each object."""
        return [self.classes[label] for label in self.detections.labels.tolist()]

    def with_tracks(self, tracks: Tensor, threshold: float) -> "DetectionPrediction":
        """The objects with the numbers of their tracks, (N,), without those on none that score below `threshold`."""
        found = dataclasses.replace(self.detections, tracks=tracks)
        kept = (tracks >= 0).to(found.scores.device) | (found.scores >= threshold)
        return dataclasses.replace(self, detections=found.take(kept))

    def to_dict(self) -> dict[str, Any]:
        objects = [
            {"label": name, "score": round(score, 4), "box": [round(side, 2) for side in box]}
            for name, score, box in zip(
                self.names, self.detections.scores.tolist(), self.detections.boxes.tolist(), strict=True
            )
        ]
        if self.detections.tracks is not None:
            for row, track in zip(objects, self.detections.tracks.tolist(), strict=True):
                row["track"] = track if track >= 0 else None
        if self.detections.masks is not None:
            for row, mask in zip(objects, encode_masks(self.detections.masks), strict=True):
                row["mask"] = mask
        return {"objects": objects}

    def summary(self) -> str:
        counts: dict[str, int] = {}
        for name in self.names:
            counts[name] = counts.get(name, 0) + 1
        return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items())) or "nothing found"

    def draw(self, image: Signal) -> Image:
        names, tracks = self.names, self.detections.tracks
        if tracks is not None:
            names = [
                f"{name} #{track}" if track >= 0 else name for name, track in zip(names, tracks.tolist(), strict=True)
            ]
        return draw_detections(
            image,
            self.detections.boxes,
            names,
            self.detections.scores.tolist(),
            self.detections.masks,
            labels=self.detections.labels.tolist(),
        )

    def maps(self) -> dict[str, Image]:
        return {}

    def to_supervision(self) -> Any:
        """The objects as `supervision.Detections`.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise MissingExtraError("to_supervision", "dense") from None
        import numpy as np

        masks = self.detections.masks
        return supervision.Detections(
            xyxy=self.detections.boxes.cpu().float().numpy(),
            mask=None if masks is None else masks.cpu().numpy(),
            confidence=self.detections.scores.cpu().float().numpy(),
            class_id=self.detections.labels.cpu().numpy(),
            tracker_id=None if self.detections.tracks is None else self.detections.tracks.cpu().numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )


def yolo_results(metric: AveragePrecision) -> dict[str, str]:
    """The boxes as CSV, and as YOLO's text files, by the names of the files."""
    names = dict(zip(metric.category_ids, metric.classes, strict=True))
    table, files = [], {}
    for image_id, size, rows in metric.by_image():
        objects = [(row["category_id"], row["score"], row["bbox"]) for row in rows]
        files[f"labels/{image_id}.txt"] = yolo_text(objects, size)
        for number, score, (x, y, w, h) in objects:
            corners = {"x1": x, "y1": y, "x2": x + w, "y2": y + h}
            table.append({"image": image_id, "label": names[number], "score": score, **corners})
    return {"box.csv": csv_text(table), **files}


def _view(image: Tensor, scale: float, mirror: bool) -> tuple[Tensor, Tensor]:
    """An image (3, H, W), resized and mirrored: as a batch of one, and its size."""
    size = [max(1, round(side * scale)) for side in image.shape[1:]]
    view = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)
    return view.flip(3) if mirror else view, torch.tensor([size], device=image.device)


def _as_annotated(detections: Detections, truth: Mapping[str, Any]) -> tuple[Detections, Mapping[str, Any]]:
    """Detections and truth in the pixels that the annotations mean: those of a bitmap that EXIF turns."""
    orientation: int = truth["orientation"]
    back = BACK.get(orientation, orientation)
    if back == 1:
        return detections, truth
    size = truth["size"]
    masks, known = (None if rows is None else turn_pixels(rows, back) for rows in (detections.masks, truth["masks"]))
    turned = Detections(turn_boxes(detections.boxes, size, back), detections.scores, detections.labels, masks)
    lying = size[::-1] if TURNS[back][0] else size
    return turned, {**truth, "boxes": turn_boxes(truth["boxes"], size, back), "masks": known, "size": lying}


def _mirrored(detections: Detections, width: int) -> Detections:
    x1, y1, x2, y2 = detections.boxes.unbind(1)
    masks = None if detections.masks is None else detections.masks.flip(2)
    return Detections(torch.stack((width - x2, y1, width - x1, y2), 1), detections.scores, detections.labels, masks)


def _merged(views: Sequence[Detections]) -> Detections:
    boxes, scores, labels = (torch.cat([getattr(v, name) for v in views]) for name in ("boxes", "scores", "labels"))
    kept = batched_nms(boxes.float(), scores.float(), labels, TEST_NMS)[: max(len(view) for view in views)]
    masks = None if views[0].masks is None else torch.cat([v.masks for v in views if v.masks is not None])[kept]
    return Detections(boxes[kept], scores[kept], labels[kept], masks)
