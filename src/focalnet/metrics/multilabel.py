"""What is measured where an image may have any number of classes. N images, K classes.

    AP(k)           area under precision over recall of class k, over all thresholds
    map             mean of AP over the classes that some image has
    F1(k)           2 TP / (2 TP + FP + FN) of class k at a threshold
    f1_macro        mean of F1 over the classes that some image has or is said to have
    f1_micro        F1 of all answers together
    exact_match     share of the images whose labels are all right

A label is said where its score is the threshold or more. Where none is given, it is the one of 0.01, 0.02 ... 0.99 with
the best `f1_micro`; of several, the one in the middle.
"""

from typing import Any

import torch
from torch import Tensor

from focalnet.errors import MissingExtraError, UserError
from focalnet.metrics import gathered

THRESHOLDS = torch.arange(1, 100) / 100


class MultilabelMetric:
    """mAP, F1 and exact match.

    Args:
        num_classes: K.
        threshold: least score of a label; None for what is best here.
    """

    def __init__(self, num_classes: int, threshold: float | None = None) -> None:
        self.num_classes, self.threshold = num_classes, threshold
        self.scores: list[Tensor] = []
        self.truth: list[Tensor] = []

    def update(self, scores: Tensor, truth: Tensor) -> None:
        """Take in some images.

        Args:
            scores: (N, K), 0 to 1.
            truth: (N, K), bool.
        """
        self.scores.append(scores.float().cpu())
        self.truth.append(truth.bool().cpu())

    def compute(self) -> dict[str, float]:
        """`map`, `f1_micro`, `f1_macro`, `exact_match` and the `threshold` of the last three, over all processes.

        Raises:
            UserError: no image has a label.
            MissingExtraError: torchmetrics is not installed.
        """
        scores, truth = self._all()
        if not truth.any():
            raise UserError(
                "No image has a label, so there is no average precision; evaluate on images that have some."
            )
        threshold = self._threshold(scores, truth)
        said = scores >= threshold
        tp, fp, fn = _counts(said, truth)
        there = tp + fp + fn > 0
        return {
            "map": float(_average_precision(scores, truth).nanmean()),
            "f1_micro": float(_f1(tp.sum(), fp.sum(), fn.sum())),
            "f1_macro": float(_f1(tp, fp, fn)[there].mean()),
            "exact_match": float((said == truth).all(1).double().mean()),
            "threshold": threshold,
        }

    def details(self) -> dict[str, Any]:
        """`classes`: per class `ap` (None without an image), `f1`, `precision`, `recall` and `images`; `curves`: by
        `threshold`, micro F1 as "F1" and macro F1. JSON can hold it."""
        scores, truth = self._all()
        tp, fp, fn = _counts(scores >= self._threshold(scores, truth), truth)
        columns = {
            "ap": _average_precision(scores, truth),
            "f1": _f1(tp, fp, fn),
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
        }
        rows = [
            {name: None if value != value else value for name, value in zip(columns, row, strict=True)}
            for row in zip(*(column.tolist() for column in columns.values()), strict=True)
        ]
        micro, macro = _curves(scores, truth)
        return {
            "classes": [{**row, "images": images} for row, images in zip(rows, truth.sum(0).tolist(), strict=True)],
            "curves": {"threshold": THRESHOLDS.tolist(), "F1": micro.tolist(), "F1 of a class, mean": macro.tolist()},
        }

    def _all(self) -> tuple[Tensor, Tensor]:
        """Scores and truth of all processes, (N, K) each."""
        none = torch.zeros(0, self.num_classes)
        mine = torch.cat([none, *self.scores]), torch.cat([none.bool(), *self.truth])
        scores, truth = zip(*gathered(mine), strict=True)
        return torch.cat(scores), torch.cat(truth)

    def _threshold(self, scores: Tensor, truth: Tensor) -> float:
        if self.threshold is not None:
            return self.threshold
        micro, _ = _curves(scores, truth)
        best = (micro == micro.max()).nonzero().flatten()
        return round(float(THRESHOLDS[best[len(best) // 2]]), 2)


def _counts(said: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, false positives and false negatives of each class, (K,)."""
    return (said & truth).sum(0).double(), (said & ~truth).sum(0).double(), (~said & truth).sum(0).double()


def _f1(tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
    """F1; undefined (nan) where there is nothing to find and nothing is said."""
    return 2 * tp / (2 * tp + fp + fn)


def _curves(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Micro and macro F1 at each of `THRESHOLDS`, 0 where nothing is said or true."""
    count, classes = len(THRESHOLDS) + 1, scores.shape[1]
    place = torch.bucketize(scores, THRESHOLDS, right=True) + count * torch.arange(classes)  # thresholds passed

    def passing(where: Tensor) -> Tensor:
        """(K, thresholds): how many of the answers at `where` are said."""
        counts = torch.bincount(place[where], minlength=count * classes).view(classes, count).double()
        return counts.flip(1).cumsum(1).flip(1)[:, 1:]

    tp, fp = passing(truth), passing(~truth)
    fn = truth.sum(0).double()[:, None] - tp
    return _f1(tp.sum(0), fp.sum(0), fn.sum(0)).nan_to_num(), _f1(tp, fp, fn).nanmean(0).nan_to_num()


def _average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """AP of each class, (K,), nan of those that no image has."""
    try:
        from torchmetrics.functional.classification import binary_average_precision
    except ImportError:
        raise MissingExtraError("Measuring average precision", "train") from None
    values = torch.full((scores.shape[1],), torch.nan)
    for label in truth.any(0).nonzero().flatten().tolist():
        values[label] = binary_average_precision(scores[:, label], truth[:, label].long())
    return values
