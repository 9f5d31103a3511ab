"""Figures of interpretations: what a perfect and an empty part give, and each against its definition."""

import math

import pytest
import torch

from focalnet.metrics.interpretation import InterpretationMetric, entropy, gini


def test_a_part_that_is_the_whole_loses_nothing():
    torch.manual_seed(0)
    probabilities = torch.rand(6, 4).softmax(1)
    metric = InterpretationMetric()
    metric.update(probabilities, probabilities, torch.full((6, 4), 0.25), torch.ones(6, 5, 3))
    got = metric.compute()
    assert (got["fidelity"], got["average_increase"], got["average_drop"], got["average_gain"]) == (1, 0, 0, 0)
    assert (got["kept_loss"], got["sparseness"]) == (0, 0)
    assert got["faithfulness"] == pytest.approx((probabilities.amax(1) - 0.25).mean().item())
    assert got["complexity"] == pytest.approx(math.log(15))


def test_figures_of_one_sample_by_hand():
    whole, part, rest = (torch.tensor([row]) for row in ([0.6, 0.3, 0.1], [0.45, 0.5, 0.05], [0.2, 0.4, 0.4]))
    metric = InterpretationMetric()
    metric.update(whole, part, rest, torch.tensor([[1, 0, 0, 0]]))
    assert metric.compute() == pytest.approx({
        "fidelity": 0, "average_increase": 0, "average_drop": 25, "average_gain": 0, "faithfulness": 0.4,
        "kept_loss": 0.15, "sparseness": 0.75, "complexity": 0,
    })  # fmt: skip
    metric.update(part, whole, rest, torch.zeros(1, 4))  # the second class: 0.5, and 0.3 of the part
    got = metric.compute()
    assert got["average_drop"] == pytest.approx((25 + 40) / 2)
    assert got["sparseness"] == pytest.approx(0.75)
    gained = InterpretationMetric()
    gained.update(torch.tensor([[0.6, 0.4]]), torch.tensor([[0.8, 0.2]]), torch.tensor([[0.5, 0.5]]), torch.ones(1, 2))
    assert gained.compute()["average_gain"] == pytest.approx(50)
    assert gained.compute()["average_increase"] == 100


def test_a_tenth_of_the_cells_has_a_gini_of_nine_tenths():
    mask = torch.zeros(1, 1000)
    mask[0, :100] = 1
    assert gini(mask).item() == pytest.approx(0.9)
    assert entropy(mask).item() == pytest.approx(math.log(100))


def test_without_samples_there_are_no_figures():
    assert InterpretationMetric().compute() == {}
