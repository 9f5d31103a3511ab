"""Detections at a threshold: what is right, what is confused with what, and which mistakes are the worst.

Within one image the detections, surest first, each take the object of their class that they overlap most, of those not
yet taken, with an IoU of 0.5 or more; what takes none is wrong, unless it lies in a crowd region of its class. Crowd
regions are no objects. Of all detections with a score of t or more, over all images and classes,

    precision(t) = right / (right + wrong)     recall(t) = right / objects     F1 = their harmonic mean

and the best threshold is that of the highest F1, halfway down to the next lower score. The confusion matrix is made at
a threshold: what is left of detections and objects then matches without regard to the class, and there is a last row
for what is no object, a last column for what was missed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

IOU = 0.5
STEPS = 101
"""Thresholds of a curve, from 0 to 1."""
WORST = 12
"""Mistakes of either kind that are kept for a report."""


class Boxes(NamedTuple):
    """One image: N detections, surest first, and M objects.

    Attributes:
        place: of the image in its data set.
        boxes: (N, 4), x y width height in pixels.
        scores: (N,).
        labels: (N,).
        true_boxes: (M, 4).
        true_labels: (M,).
        crowd: (M,), bool.
    """

    place: int | str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    true_boxes: np.ndarray
    true_labels: np.ndarray
    crowd: np.ndarray


class OperatingPoint:
    """The detections of a data set, matched with its objects.

    Args:
        images: of the data set.
        num_classes: K.
    """

    def __init__(self, images: Sequence[Boxes], num_classes: int) -> None:
        self.images, self.num_classes = images, num_classes
        self.overlaps = [_overlaps(image) for image in images]
        same = [image.labels[:, None] == image.true_labels for image in images]
        self.matches = [
            _match(overlap * alike, image.crowd)
            for image, overlap, alike in zip(images, self.overlaps, same, strict=True)
        ]
        self.objects = sum(int((~image.crowd).sum()) for image in images)
        scores = np.concatenate([image.scores for image in images] or [np.zeros(0)])
        match = np.concatenate(self.matches or [np.zeros(0, int)])
        order = np.argsort(-scores[match != IGNORED], kind="stable")
        self.scores = scores[match != IGNORED][order]
        self.right = (match[match != IGNORED] >= 0)[order].cumsum()

    @property
    def threshold(self) -> float | None:
        """Where F1 is highest; None where nothing right was found."""
        last = np.flatnonzero(np.diff(self.scores, append=-1.0))  # equal scores are in or out together
        right = self.right[last]
        if not right.any():
            return None
        best = last[np.argmax(2 * right / (last + 1 + self.objects))]
        below = self.scores[best + 1] if best + 1 < len(self.scores) else 0.0
        exact = float((self.scores[best] + below) / 2)
        rounded = round(exact, 3)
        return rounded if below < rounded <= self.scores[best] else exact

    def curves(self) -> dict[str, list[float]]:
        """`threshold`, and at each `F1`, `precision` and `recall`; where nothing is said the precision is 1."""
        thresholds = np.linspace(0, 1, STEPS)
        said = len(self.scores) - np.searchsorted(self.scores[::-1], thresholds)
        right = np.concatenate([[0], self.right])[said]
        values = {
            "threshold": thresholds,
            "F1": 2 * right / np.maximum(said + self.objects, 1),
            "precision": np.where(said, right / np.maximum(said, 1), 1.0),
            "recall": right / max(self.objects, 1),
        }
        return {name: row.round(4).tolist() for name, row in values.items()}

    def at(self, threshold: float) -> dict[str, float]:
        """`F1`, `precision` and `recall` at a threshold."""
        said = int((self.scores >= threshold).sum())
        right = int(self.right[said - 1]) if said else 0
        return {
            "F1": 2 * right / max(said + self.objects, 1),
            "precision": right / said if said else 1.0,
            "recall": right / max(self.objects, 1),
        }

    def confusion(self, threshold: float) -> np.ndarray:
        """(K + 1, K + 1) counts, rows the truth, columns the detections; K stands for no object."""
        count = self.num_classes
        matrix = np.zeros((count + 1, count + 1), int)
        for image, overlap, matches in zip(self.images, self.overlaps, self.matches, strict=True):
            kept = image.scores >= threshold
            match, labels = matches[kept], image.labels[kept]
            left, taken = match == WRONG, np.isin(np.arange(len(image.crowd)), match)
            match[left] = _match(overlap[kept][left] * (~taken | image.crowd), image.crowd)
            found = match >= 0
            np.add.at(matrix, (image.true_labels[match[found]], labels[found]), 1)
            np.add.at(matrix[count], labels[match == WRONG], 1)
            missed = ~image.crowd
            missed[match[found]] = False
            np.add.at(matrix[:, count], image.true_labels[missed], 1)
        return matrix

    def worst(self, threshold: float) -> dict[str, list[dict[str, Any]]]:
        """The surest detections that are `wrong`, and the largest objects that were `missed`.

        Returns:
            rows with the `place` of the image, the `label`, the `box` (x y width height); of what is wrong also the
            `score`, and the label (`other`) and `iou` of the object that it overlaps most, None without one; of what
            was missed the `other` label and `iou` of the kept detection that overlaps it most.
        """
        wrong, missed = [], []
        for image, overlap, match in zip(self.images, self.overlaps, self.matches, strict=True):
            kept = image.scores >= threshold
            for index in np.flatnonzero(kept & (match == WRONG)):
                row = _row(image, image.boxes[index], image.labels[index], overlap[index], image.true_labels)
                wrong.append({**row, "score": float(image.scores[index])})
            taken = set(match[kept].tolist())
            for index in np.flatnonzero(~image.crowd):
                if index not in taken:
                    near, labels = overlap[kept][:, index], image.labels[kept]
                    missed.append(_row(image, image.true_boxes[index], image.true_labels[index], near, labels))
        wrong.sort(key=lambda row: -row["score"])
        missed.sort(key=lambda row: -row["box"][2] * row["box"][3])
        return {"wrong": wrong[:WORST], "missed": missed[:WORST]}


WRONG, IGNORED = -1, -2
"""Of a detection that takes no object."""


def _match(overlap: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """The object that each detection takes, `WRONG` or `IGNORED`: (N,).

    Args:
        overlap: (N, M), the IoU of what may match, of a crowd region over the area of the detection.
        crowd: (M,).
    """
    match = np.full(len(overlap), WRONG)
    if not overlap.size:
        return match
    free = np.where(crowd, 0.0, overlap)
    match[(overlap * crowd).max(1) >= IOU] = IGNORED
    for index in np.flatnonzero(free.max(1) >= IOU):  # the others take none
        best = free[index].argmax()
        if free[index, best] >= IOU:
            match[index] = best
            free[:, best] = 0.0
    return match


def _overlaps(image: Boxes) -> np.ndarray:
    """IoU of detections and objects, (N, M); of crowd regions the share of the detection that lies inside."""
    (x, y, w, h), (u, v, p, q) = image.boxes.T[:, :, None], image.true_boxes.T[:, None]
    inside = np.clip(np.minimum(x + w, u + p) - np.maximum(x, u), 0, None)
    inside = inside * np.clip(np.minimum(y + h, v + q) - np.maximum(y, v), 0, None)
    whole = np.where(image.crowd, w * h, w * h + p * q - inside)
    return inside / np.maximum(whole, 1e-9)


def _row(image: Boxes, box: np.ndarray, label: int, overlap: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    near = int(overlap.argmax()) if overlap.size and overlap.max() > 0 else None
    return {
        "place": image.place,
        "label": int(label),
        "box": box.round(2).tolist(),
        "other": None if near is None else int(labels[near]),
        "iou": 0.0 if near is None else round(float(overlap[near]), 4),
    }
