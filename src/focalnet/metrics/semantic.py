"""Mean intersection over union and accuracy of a map of labels, at the resolution of the truth.

All figures come from one confusion matrix n, n[t, p] = pixels of class t that were called p, over all images:

    IoU(k)      = n[k, k] / (sum_p n[k, p] + sum_t n[t, k] - n[k, k])
    accuracy(k) = n[k, k] / sum_p n[k, p]
    miou, mean_accuracy = means over the classes for which they are defined
    pixel_accuracy      = sum_k n[k, k] / sum n

As in mmseg, pixels whose truth is the ignored label count nowhere, a class in neither truth nor prediction has no IoU,
and a class without a pixel in the truth has no accuracy. A class that is only predicted has IoU 0, which counts.
torchmetrics agrees on the IoU; in its macro accuracy a class that is only predicted counts with 0 instead.
"""

from typing import Any

import torch
from torch import Tensor

from focalnet.errors import UserError
from focalnet.metrics import gathered


class SemanticMetric:
    """Confusion matrix, mIoU and accuracies.

    Args:
        num_classes: K; labels are 0 to K - 1.
        ignore: the label in the truth of pixels that do not count.
    """

    def __init__(self, num_classes: int, ignore: int = 255) -> None:
        self.num_classes, self.ignore = num_classes, ignore
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, truth: Tensor) -> tuple[float, float]:
        """Take in one image, or several of one size.

        Args:
            prediction: (..., H, W), labels, of any integer type.
            truth: the same shape, labels or `ignore`.

        Returns:
            mIoU and pixel accuracy of these alone; -1 where not one pixel counts.
        """
        assert prediction.shape == truth.shape, f"prediction {prediction.shape}, truth {truth.shape}"
        counts = truth != self.ignore
        truth, prediction = truth[counts].long(), prediction[counts].long()
        for labels in (truth, prediction):
            assert not labels.numel() or 0 <= labels.min() <= labels.max() < self.num_classes, "a label has no class"
        matrix = torch.bincount(truth * self.num_classes + prediction, minlength=self.num_classes**2)
        matrix = matrix.view_as(self.matrix)
        self.matrix = self.matrix.to(matrix.device) + matrix
        hits, pixels = matrix.diagonal(), matrix.sum(0) + matrix.sum(1)
        if not len(truth):
            return -1.0, -1.0
        return float((hits / (pixels - hits)).nanmean()), float(hits.sum() / matrix.sum())

    def compute(self) -> dict[str, float]:
        """`miou`, `mean_accuracy`, `pixel_accuracy`, 0 to 1, over all processes.

        Raises:
            UserError: not one pixel counts.
        """
        iou, accuracy, matrix = self._figures()
        if not matrix.sum():
            raise UserError("All pixels of the truth are to be ignored, so there is no mIoU; give masks with classes.")
        return {
            "miou": float(iou.nanmean()),
            "mean_accuracy": float(accuracy.nanmean()),
            "pixel_accuracy": float(matrix.diagonal().sum() / matrix.sum()),
        }

    def details(self) -> dict[str, Any]:
        """`classes`: per class `iou`, `accuracy` (None if undefined) and `pixels` of the truth; `confusion`: (K, K),
        rows are the truth. JSON can hold it."""
        iou, accuracy, matrix = self._figures()
        columns = zip(iou.tolist(), accuracy.tolist(), matrix.sum(1).tolist(), strict=True)
        rows = [{"iou": _defined(i), "accuracy": _defined(a), "pixels": int(pixels)} for i, a, pixels in columns]
        return {"classes": rows, "confusion": matrix.long().tolist()}

    def _figures(self) -> tuple[Tensor, Tensor, Tensor]:
        """IoU (K,) and accuracy (K,), nan where undefined, and the matrix (K, K) of all processes."""
        matrix = torch.stack(gathered(self.matrix.cpu())).sum(0).double()
        hits, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        return hits / (truth + predicted - hits), hits / truth, matrix


def _defined(value: float) -> float | None:
    return None if value != value else value
