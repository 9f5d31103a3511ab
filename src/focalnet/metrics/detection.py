"""Average precision of boxes and masks, as the COCO evaluation defines it.

For each class and each IoU threshold t in 0.50, 0.55 ... 0.95, detections are taken from the surest down, at most 100
(or `limit`) of a class and image. One is right if it overlaps a yet unmatched object of its class by IoU >= t, wrong
if not:

    precision(r) = the highest right / (right + wrong) at any recall >= r
    AP           = mean over t, over r in 0, 0.01 ... 1, and over classes
    AR           = mean over t and over classes of the recall reached

What belongs to neither side is ignored: a detection inside a crowd (its overlap is then the intersection over its own
area), where masks are measured also one inside the box of an object whose mask is not known, and for the small
(area < 32²), medium and large (> 96²) rows objects and unmatched detections of another area.

The counting is faster-coco-eval's, on annotations built in memory; the figures equal those of pycocotools on the JSON
of `results`. Choices:

    area of an object      `area`, which COCO gives by the mask, for boxes too; else that of its mask, else of its box
    area of a detection    of its box when boxes are measured, of its mask when masks are
    ties in the score      the order of the detections within an image, then the id of the image

Images and classes are numbered anew for the counting; `results` has the ids of the data.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from focalnet.errors import MissingExtraError, UserError, counted
from focalnet.metrics import gathered
from focalnet.metrics.operating import Boxes, OperatingPoint
from focalnet.structures import Detections, encode_masks

Kind = Literal["box", "mask"]

FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
           "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")  # fmt: skip
"""The official table, in its order."""
LIMIT = 100
"""The most detections of a class and image that count, officially."""


@dataclass(frozen=True)
class _Entry:
    """One image, small enough to send: boxes are x y w h, masks are run lengths."""

    image_id: int | str
    size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict[str, Any]] | None
    true_boxes: np.ndarray
    true_labels: np.ndarray
    true_masks: list[dict[str, Any]] | None
    crowd: np.ndarray
    outlined: np.ndarray
    area: np.ndarray


class AveragePrecision:
    """AP and AR of boxes, and of masks.

    Args:
        classes: names in the order of the labels.
        masks: measure masks too; detections and truth must then bring them.
        category_ids: what the classes are called in `results`; by default the label plus 1.
        limit: the most detections of a class and image that count, 100 or more.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        masks: bool,
        category_ids: Sequence[int | str] | None = None,
        limit: int = LIMIT,
    ) -> None:
        _coco()
        self.limit = limit
        self.classes = tuple(classes)
        self.kinds: tuple[Kind, ...] = ("box", "mask") if masks else ("box",)
        self.category_ids = tuple(category_ids or range(1, len(classes) + 1))
        assert len(self.category_ids) == len(self.classes)
        self._entries: dict[int | str, _Entry] = {}
        self._measured: dict[Kind, Any] | None = None
        self._all: list[_Entry] = []
        self._places: list[int | str] = []

    def update(
        self,
        image_id: int | str,
        detections: Detections,
        *,
        boxes: Tensor,
        labels: Tensor,
        size: tuple[int, int],
        masks: Tensor | None = None,
        crowd: Tensor | None = None,
        area: Tensor | None = None,
        outlined: Tensor | None = None,
        index: int | None = None,
    ) -> None:
        """Take in one image. An image that came before, in whichever process, is left out.

        Args:
            image_id: what `results` call the image.
            detections: what was found, in pixels of the original image.
            boxes: the truth, (M, 4), x1 y1 x2 y2 in the same pixels.
            labels: (M,), from 0.
            size: height and width of the image.
            masks: (M, H, W), bool; needed where masks are measured.
            crowd: (M,), bool: the annotation covers a group; nothing by default.
            area: (M,), in pixels, which sorts objects into small, medium and large.
            outlined: (M,), bool: whether the mask of an object is known; all are by default.
            index: the image's place in the data, by which it is known again; by default its id.
        """
        found_masks, true_masks = None, None
        if "mask" in self.kinds:
            assert masks is not None, "the truth has no masks"
            assert detections.masks is not None, "the detections have no masks"
            assert masks.shape[-2:] == detections.masks.shape[-2:] == tuple(size)
            found_masks, true_masks = encode_masks(detections.masks), encode_masks(_regions(masks, boxes, outlined))
        detected, truth = _corner_and_size(detections.boxes), _corner_and_size(boxes)
        if area is None:
            areas = truth[:, 2] * truth[:, 3]
            if masks is not None:
                known = slice(None) if outlined is None else _array(outlined)
                areas[known] = _array(masks.flatten(1).sum(1))[known]
        else:
            areas = _array(area)
        self._measured = None
        self._entries.setdefault(
            image_id if index is None else index,
            _Entry(
                image_id=image_id,
                size=(int(size[0]), int(size[1])),
                boxes=detected,
                scores=_array(detections.scores).astype(np.float64),
                labels=_array(detections.labels).astype(np.int64),
                masks=found_masks,
                true_boxes=truth,
                true_labels=_array(labels).astype(np.int64),
                true_masks=true_masks,
                crowd=np.zeros(len(truth), np.int64) if crowd is None else _array(crowd).astype(np.int64),
                outlined=np.ones(len(truth), bool) if outlined is None else _array(outlined).astype(bool),
                area=areas.astype(np.float64),
            ),
        )

    def compute(self) -> dict[str, float]:
        """`box_ap`, `box_ap50`, `box_ap75`, `box_ap_small` ... `box_ar100` ... `box_ar_large`, and `mask_` likewise.

        0 to 1. A row for a size that no object has is absent, as is every row of masks where no mask is known. With
        another limit than 100, `ar100` has that number in its name.

        Raises:
            UserError: there is no object at all, or crowds alone.
        """
        metrics = {}
        for kind, evaluation in self._evaluate().items():
            names = (f"ar{self.limit}" if name == f"ar{LIMIT}" else name for name in FIGURES)
            table = dict(zip(names, evaluation.stats.tolist(), strict=True))
            if kind == "box" and table["ap"] < 0:
                raise UserError(
                    f"None of {counted(len(self._all), 'images')} holds an object that counts, so there is no average "
                    "precision; measure on images with annotations that are not crowds."
                )
            metrics |= {f"{kind}_{name}": value for name, value in table.items() if value >= 0}
        return metrics

    def details(self) -> dict[str, Any]:
        """What a report shows besides; JSON can hold it.

        Returns:
            `names` of the classes; `images`, the ids of those measured on; `classes`, per class `box_ap`, `box_ap50`,
            ... and how many `objects`, `crowds` and `detections` there are; `box` (and `mask`) with the curve at IoU
            0.5: `recall` (101,), `precision` (101,), the mean over the classes, and `by_class`, per class (101,). None
            stands for classes without objects.
        """
        evaluations, count = self._evaluate(), len(self.classes)
        entries = self._all
        truth = np.concatenate([entry.true_labels for entry in entries] or [np.zeros(0, np.int64)])
        crowd = np.concatenate([entry.crowd for entry in entries] or [np.zeros(0, np.int64)]).astype(bool)
        detected = np.concatenate([entry.labels for entry in entries] or [np.zeros(0, np.int64)])
        rows: list[dict[str, Any]] = [{} for _ in self.classes]
        curves: dict[str, Any] = {}
        for kind, evaluation in evaluations.items():
            precision = evaluation.eval["precision"][:, :, :, 0, -1]  # threshold, recall, class
            seen = precision[0, 0] >= 0
            for index, row in enumerate(rows):
                row[f"{kind}_ap"] = float(precision[:, :, index].mean()) if seen[index] else None
                row[f"{kind}_ap50"] = float(precision[0, :, index].mean()) if seen[index] else None
            at_half = precision[0].round(4)
            curves[kind] = {
                "recall": evaluation.params.recThrs.round(2).tolist(),
                "precision": precision[0][:, seen].mean(1).round(4).tolist() if seen.any() else None,
                "by_class": [at_half[:, index].tolist() if seen[index] else None for index in range(count)],
            }
        counts = {"objects": truth[~crowd], "crowds": truth[crowd], "detections": detected}
        for name, labels in counts.items():
            for row, number in zip(rows, np.bincount(labels, minlength=count).tolist(), strict=True):
                row[name] = number
        images = [entry.image_id for entry in entries]
        return {"names": list(self.classes), "images": images, "classes": rows, **curves}

    def results(self, kind: Kind = "box") -> list[dict[str, Any]]:
        """The detections of all processes as rows of the official results format, which JSON can hold.

        Boxes and masks are two lists, as the official evaluation wants them: given both in one row, it would take the
        areas of the boxes for those of the masks.

        Args:
            kind: "box" for rows with `bbox` (x y w h), "mask" for rows with `segmentation` (run lengths).
        """
        return [row for _, _, rows in self.by_image(kind) for row in rows]

    def by_image(self, kind: Kind = "box") -> Iterator[tuple[int | str, tuple[int, int], list[dict[str, Any]]]]:
        """Of each image its id, its height and width, and its rows of `results`."""
        self._evaluate()
        for number, entry in enumerate(self._all):
            rows = _rows(kind, number, entry)
            ids = self.category_ids
            named = [row | {"image_id": entry.image_id, "category_id": ids[row["category_id"]]} for row in rows]
            yield entry.image_id, entry.size, named

    def operating_point(self) -> OperatingPoint:
        """The boxes of all processes, matched with the truth, to choose a threshold by."""
        self._evaluate()
        images = []
        for place, entry in zip(self._places, self._all, strict=True):
            order = np.argsort(-entry.scores, kind="stable")
            found = entry.boxes[order], entry.scores[order], entry.labels[order]
            images.append(Boxes(place, *found, entry.true_boxes, entry.true_labels, entry.crowd.astype(bool)))
        return OperatingPoint(images, len(self.classes))

    def _evaluate(self) -> Mapping[Kind, Any]:
        if self._measured is None:
            merged: dict[int | str, _Entry] = {}
            for entries in gathered(self._entries):
                for place, entry in entries.items():
                    merged.setdefault(place, entry)
            order = sorted(merged, key=lambda place: (*_order(merged[place].image_id), *_order(place)))
            self._places, self._all = order, [merged[place] for place in order]
            self._measured = {kind: self._evaluation(kind) for kind in self.kinds}
        return self._measured

    def _evaluation(self, kind: Kind) -> Any:
        """A summarised evaluation of faster-coco-eval."""
        coco, evaluator, coder = _coco()
        images, objects = [], []
        for number, entry in enumerate(self._all):
            images.append({"id": number, "height": entry.size[0], "width": entry.size[1]})
            shapes = _shapes(kind, entry.true_boxes, entry.true_masks)
            ignored = entry.crowd if kind == "box" else np.maximum(entry.crowd, ~entry.outlined)
            for label, shape, crowd, area in zip(
                entry.true_labels.tolist(), shapes, ignored.tolist(), entry.area.tolist(), strict=True
            ):
                place = {"id": len(objects) + 1, "image_id": number, "category_id": label}
                objects.append({**place, **shape, "iscrowd": crowd, "area": area})
        found = [row for number, entry in enumerate(self._all) for row in _rows(kind, number, entry)]
        rows = [{**row, "id": number, "iscrowd": 0} for number, row in enumerate(found, 1)]
        if kind == "box":
            areas = [row["bbox"][2] * row["bbox"][3] for row in rows]
        else:
            areas = [int(coder.area(row["segmentation"])) for row in rows]
        for row, area in zip(rows, areas, strict=True):
            row["area"] = area
        categories = [{"id": label, "name": name} for label, name in enumerate(self.classes)]
        shared = {"images": images, "categories": categories}
        truth, detected = coco({**shared, "annotations": objects}), coco({**shared, "annotations": rows})
        evaluation = evaluator(truth, detected, "bbox" if kind == "box" else "segm")
        evaluation.params.maxDets = [1, 10, self.limit]
        evaluation.run()
        return evaluation


def _coco() -> tuple[Any, Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
        from faster_coco_eval.core import mask
    except ImportError:
        raise MissingExtraError("Measuring AP", "dense") from None
    return COCO, COCOeval_faster, mask


def _array(values: Tensor) -> np.ndarray:
    return values.detach().to(torch.float32 if values.dtype == torch.bfloat16 else values.dtype).cpu().numpy()


def _order(value: int | str) -> tuple[bool, int | str]:
    """A key that sorts numbers before texts."""
    return isinstance(value, str), value


def _regions(masks: Tensor, boxes: Tensor, outlined: Tensor | None) -> Tensor:
    """The masks (M, H, W), bool; of objects without one the box (M, 4) instead."""
    if outlined is None or bool(outlined.all()):
        return masks
    masks = masks.clone()
    for index in (~outlined).nonzero().flatten().tolist():
        left, top, right, bottom = boxes[index].clamp(min=0).tolist()
        masks[index, int(top) : math.ceil(bottom), int(left) : math.ceil(right)] = True
    return masks


def _corner_and_size(boxes: Tensor) -> np.ndarray:
    """(N, 4), x1 y1 x2 y2, as x y w h in double precision."""
    corners = _array(boxes).astype(np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


def _rows(kind: Kind, number: int, entry: _Entry) -> list[dict[str, Any]]:
    """Rows of one image, with the places of image and class for their ids."""
    shapes = _shapes(kind, entry.boxes, entry.masks)
    return [
        {"image_id": number, "category_id": label, "score": score, **shape}
        for label, score, shape in zip(entry.labels.tolist(), entry.scores.tolist(), shapes, strict=True)
    ]


def _shapes(kind: Kind, boxes: np.ndarray, masks: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    if kind == "box":
        return [{"bbox": box} for box in boxes.tolist()]
    assert masks is not None
    return [{"segmentation": dict(mask)} for mask in masks]
