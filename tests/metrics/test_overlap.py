"""Dice and surface distances against their definitions, and the two ways to count what is empty."""

import math

import numpy as np
import pytest
import torch

from focalnet.metrics.overlap import OverlapMetric, hausdorff


def border(region: np.ndarray) -> list[tuple[int, int]]:
    padded = np.pad(region, 1)
    return [
        (i, j)
        for i, j in zip(*np.nonzero(region), strict=True)
        if not all(padded[i + 1 + di, j + 1 + dj] for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0)))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    one, other = (rng.uniform(size=(9, 13)) < 0.3 for _ in range(2))
    there, back = (
        [min(math.dist(p, q) for q in border(b)) for p in border(a)] for a, b in ((one, other), (other, one))
    )
    assert hausdorff(one, other, 100) == pytest.approx(max(there + back))
    assert hausdorff(one, other) == pytest.approx(np.percentile(there + back, 95))
    assert hausdorff(one, one) == 0


def test_a_region_at_the_rim_has_a_border_there():
    one = np.ones((4, 4), bool)
    other = np.ones((4, 4), bool)
    other[:, 3] = False
    assert hausdorff(one, other, 100) == 1


def filled(rows: dict[int, tuple[int, int, int, int]]) -> torch.Tensor:
    labels = torch.zeros(12, 12, dtype=torch.long)
    for label, (top, left, bottom, right) in rows.items():
        labels[top:bottom, left:right] = label
    return labels


def test_what_is_empty_is_counted_in_both_ways():
    metric = OverlapMetric(5)
    truth = filled({1: (0, 0, 4, 4), 2: (6, 6, 8, 8)})
    metric.update(filled({1: (0, 0, 4, 2), 3: (10, 0, 11, 1)}), truth)  # 2 is missed, 3 made up, 4 in neither
    half = 2 * 8 / (8 + 16)
    got = metric.compute()
    assert got["dice"] == pytest.approx((half + 0 + 0) / 3)
    assert got["dice_reference"] == pytest.approx((half + 0 + 1 + 0) / 4)
    assert got["hd95"] == pytest.approx(2)
    assert got["hd95_reference"] == pytest.approx(2 / 4)
    assert got["unmatched"] == 2
    assert metric.details() == {"overlap": [
        {"dice": None, "hd95": None}, {"dice": pytest.approx(half), "hd95": pytest.approx(2)},
        {"dice": 0.0, "hd95": None}, {"dice": 0.0, "hd95": None}, {"dice": None, "hd95": None},
    ]}  # fmt: skip


def test_ignored_pixels_are_of_no_region():
    metric = OverlapMetric(2)
    truth = filled({1: (0, 0, 4, 4)})
    truth[4:8] = 255
    metric.update(filled({1: (0, 0, 8, 4)}), truth)
    assert metric.compute()["dice"] == 1
    assert metric.compute()["hd95"] == 0


def test_images_without_any_class_define_no_figure():
    metric = OverlapMetric(3)
    assert metric.compute() == {}
    metric.update(filled({}), filled({}))
    assert "dice" not in metric.compute()
    assert metric.compute()["dice_reference"] == 0
