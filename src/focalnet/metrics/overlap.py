"""Dice and the 95th percentile of surface distances per image, as medical segmentation is measured.

For the pixels A of a class in the prediction and B in the truth of one image:

    Dice = 2 |A ∩ B| / (|A| + |B|)
    HD95 = 95th percentile of the distances from the border of A to that of B and from that of B to that of A, in pixels

The border of a region is its pixels with a neighbor, of four, outside; beyond the image is outside. Both figures are
means over all images and classes without the background. The usual code (Swin-UNet's and TransUNet's, with medpy) and
the papers that quote it count the cases in which one of them is empty to the favor of the network:

    A         B         here                   there
    pixels    empty     Dice 0, no distance    Dice 1, HD95 0
    empty     pixels    Dice 0, no distance    Dice 0, HD95 0
    empty     empty     does not count         Dice 0, HD95 0

`dice` and `hd95` are counted as here, `dice_reference` and `hd95_reference` as there. How many classes were missed or
made up, and so have no distance, is `unmatched`.
"""

from typing import Any

import numpy as np
from torch import Tensor

from focalnet.errors import MissingExtraError
from focalnet.metrics import gathered


class OverlapMetric:
    """Dice and HD95.

    Args:
        num_classes: K; label 0 is the background.
        ignore: the label in the truth of pixels that do not count.

    Raises:
        MissingExtraError: scipy is not installed.
    """

    def __init__(self, num_classes: int, ignore: int = 255) -> None:
        try:
            import scipy.ndimage  # noqa: F401
        except ImportError:
            raise MissingExtraError("Measuring surface distances", "dense") from None
        self.num_classes, self.ignore = num_classes, ignore
        self.rows: list[tuple[int, float, float]] = []
        """Class, Dice (-1 where made up, -2 where neither has it) and HD95 (nan where there is none)."""

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Take in one image.

        Args:
            prediction: (H, W), labels.
            truth: (H, W), labels or `ignore`.
        """
        known = (truth != self.ignore).cpu().numpy()
        found, true = prediction.cpu().numpy(), truth.cpu().numpy()
        for label in range(1, self.num_classes):
            self.rows.append((label, *_compare((found == label) & known, (true == label) & known)))

    def compute(self) -> dict[str, float]:
        """`dice`, `hd95` in pixels, `unmatched`, `dice_reference` and `hd95_reference`, over all processes; what no
        image defines is absent."""
        _, dice, distances = self._columns()
        present, measured = dice > NEITHER, ~np.isnan(distances)
        figures = {}
        if present.any():
            figures["dice"] = float(dice[present].clip(min=0).mean())
        if measured.any():
            figures["hd95"] = float(distances[measured].mean())
        if len(dice):
            figures |= {
                "unmatched": float((present & ~measured).sum()),
                "dice_reference": float(np.where(dice == MADE_UP, 1.0, dice.clip(min=0)).mean()),
                "hd95_reference": float(np.where(measured, distances, 0.0).mean()),
            }
        return figures

    def details(self) -> dict[str, Any]:
        """`overlap`: per class `dice` and `hd95`, None where undefined. JSON can hold it."""
        labels, dice, distances = self._columns()
        rows: list[dict[str, float | None]] = [{"dice": None, "hd95": None}]
        for label in range(1, self.num_classes):
            mine = labels == label
            present, measured = mine & (dice > NEITHER), mine & ~np.isnan(distances)
            rows.append({
                "dice": float(dice[present].clip(min=0).mean()) if present.any() else None,
                "hd95": float(distances[measured].mean()) if measured.any() else None,
            })  # fmt: skip
        return {"overlap": rows}

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.array([row for rows in gathered(self.rows) for row in rows]).reshape(-1, 3)
        return rows[:, 0], rows[:, 1], rows[:, 2]


MADE_UP, NEITHER = -1.0, -2.0


def _compare(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    if not true.any():
        return (MADE_UP if found.any() else NEITHER), np.nan
    if not found.any():
        return 0.0, np.nan
    return float(2 * (found & true).sum() / (found.sum() + true.sum())), hausdorff(found, true)


def hausdorff(one: np.ndarray, other: np.ndarray, percentile: float = 95) -> float:
    """Percentile of the distances between the borders of two regions, both ways together, in pixels (medpy's `hd95`).

    Args:
        one, other: (H, W), bool, neither empty.
        percentile: 0 to 100; 100 gives the Hausdorff distance.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    borders = [region & np.logical_not(binary_erosion(region)) for region in (one, other)]
    distances = [
        np.asarray(distance_transform_edt(np.logical_not(there)))[here] for here, there in (borders, borders[::-1])
    ]
    return float(np.percentile(np.concatenate(distances), percentile))
