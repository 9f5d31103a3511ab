"""What the report of a detector shows: its metrics in words, the detections at the best threshold, and the worst
mistakes, each cut out of its image, with what went wrong."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focalnet.data.base import DenseSample, MapDataset
from focalnet.metrics.operating import IOU
from focalnet.structures import BACK, TURNS, turn_boxes
from focalnet.tasks.base import Meaning
from focalnet.visualize.draw import closeup
from focalnet.visualize.page import Group, Section, Shot, Value
from focalnet.visualize.plots import confused_pairs, confusion, over_threshold

NEAR = 0.1
"""Overlap from which an object is worth naming."""


def _meanings(kind: str) -> dict[str, Meaning]:
    """What the table of COCO says, and what others call it."""
    what, mask = {"box": "Boxes", "mask": "Masks"}[kind], "" if kind == "box" else " of masks"
    table = {
        "ap": Meaning(f"mAP50-95{mask}", "average precision, the mean over IoU 0.50 to 0.95 and all classes", what),
        "ap50": Meaning(f"mAP50{mask}", "average precision at an IoU of 0.50", what),
        "ap75": Meaning(f"mAP75{mask}", "average precision at an IoU of 0.75", what),
    }
    sizes = {"small": "below 32² pixels", "medium": "32² to 96² pixels", "large": "above 96² pixels"}
    for size, pixels in sizes.items():
        table[f"ap_{size}"] = Meaning(f"mAP50-95, {size}", f"objects of {pixels}", f"{what} in detail")
    for most in (1, 10, 100):
        table[f"ar{most}"] = Meaning(f"AR{most}", f"average recall, at most {most} per image", f"{what} in detail")
    for size, pixels in sizes.items():
        table[f"ar_{size}"] = Meaning(f"AR100, {size}", f"objects of {pixels}", f"{what} in detail")
    return table


MEANINGS = {f"{kind}_{name}": meaning for kind in ("box", "mask") for name, meaning in _meanings(kind).items()}
"""Of the metrics of detectors."""


def at_threshold(dataset: MapDataset, details: Mapping[str, Any], names: Sequence[str]) -> Iterator[Section]:
    """What becomes of the detections where the best threshold divides them.

    Args:
        dataset: what was measured on.
        details: of the metric.
        names: of the classes.
    """
    best = details["threshold"]
    if best is None:  # nothing right was found
        return
    at = details["at"]
    meanings = {
        "F1": "harmonic mean of precision and recall",
        "precision": "share of the detections that are right",
        "recall": "share of the objects that are found",
    }
    text = (
        f"Boxes with a score of {best:.3g} or more have the highest F1 (IoU of 0.5, all classes together). This is "
        "the threshold of `predict`, unless --threshold says another one; the average precision needs none."
    )
    yield Section(
        "Threshold", text, png=over_threshold(details["curves"], best),
        groups=[Group(f"At {best:.3g}", [Value(name, at[name], meanings[name]) for name in meanings])],
    )  # fmt: skip
    if details["confusion"]:
        matrix, whole = np.array(details["confusion"]), [*names, "no object"]
        text = "Boxes at this threshold. Rows are the truth, columns the predictions; the last of each are no object."
        pairs = confused_pairs(matrix, whole)
        yield Section("Confusion matrix", text, png=confusion(matrix, whole), table=pairs)
    for title, kind, text in (
        ("Worst false positives", "wrong", "The surest detections that are wrong, with their scores."),
        ("Worst false negatives", "missed", "The largest objects that were missed."),
    ):
        if details[kind]:
            yield Section(title, text, gallery=_shots(dataset, details[kind], names), columns=4)


def _shots(dataset: MapDataset, rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[Shot]:
    """Images of mistakes.

    Args:
        dataset: what was measured on.
        rows: of `OperatingPoint.worst`, of what is wrong or of what was missed.
        classes: names.
    """
    return [_shot(dataset[row["place"]], row, classes) for row in rows]


def words(row: Mapping[str, Any], classes: Sequence[str]) -> str:
    """What went wrong.

    Args:
        row: one of those.
        classes: names.
    """
    name, near = classes[row["label"]], row["other"]
    other, same = None if near is None else classes[near], near == row["label"]
    if "score" in row:
        if other is None or row["iou"] < NEAR:
            return f"{name} {row['score']:.2f}: nothing is annotated there"
        if row["iou"] < IOU:
            return f"{name} {row['score']:.2f}: overlaps a {other} by {row['iou']:.2f} only"
        return f"{name} {row['score']:.2f}: {'found twice' if same else f'it is a {other}'}"
    if other is None or row["iou"] < NEAR:
        return f"{name}: not found"
    if row["iou"] < IOU:
        return f"{name}: a {other} overlaps it by {row['iou']:.2f} only"
    return f"{name}: {'found as one with another' if same else f'taken for a {other}'}"


def _shot(sample: DenseSample, row: Mapping[str, Any], classes: Sequence[str]) -> Shot:
    shown = closeup(sample.image, upright(sample, row["box"]).tolist(), row["label"])
    return Shot(shown, words(row, classes), sample.path)


def upright(sample: DenseSample, box: Sequence[float]) -> Tensor:
    """x1 y1 x2 y2 on the upright image, of x y width height in the pixels that the annotations mean."""
    x, y, w, h = box
    corners = torch.tensor([[x, y, x + w, y + h]])
    back = BACK.get(sample.orientation, sample.orientation)
    if back == 1:
        return corners[0]
    height, width = sample.image.height, sample.image.width
    lying = (width, height) if TURNS[back][0] else (height, width)
    return turn_boxes(corners, lying, sample.orientation)[0]
