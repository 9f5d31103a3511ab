"""mIoU and accuracies: cases done by hand, and torchmetrics where the definitions agree."""

import json

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from focalnet.errors import UserError
from focalnet.metrics.semantic import SemanticMetric


def measure(prediction, truth, classes=3, **options):
    metric = SemanticMetric(classes, **options)
    metric.update(torch.tensor(prediction), torch.tensor(truth))
    return metric


def test_by_hand():
    """Class 0: 2 of 3 pixels found, 1 wrong, IoU 2 / 4. Class 1: 2 of 3 found, 1 wrong, 2 / 4. Class 2: 2 of 2."""
    metric = measure([[0, 0, 1, 1], [1, 0, 2, 2]], [[0, 0, 0, 1], [1, 1, 2, 2]])
    expected = {"miou": (0.5 + 0.5 + 1) / 3, "mean_accuracy": (2 / 3 + 2 / 3 + 1) / 3, "pixel_accuracy": 6 / 8}
    assert metric.compute() == pytest.approx(expected)
    details = metric.details()
    assert details["confusion"] == [[2, 1, 0], [1, 2, 0], [0, 0, 2]]
    assert details["classes"][0] == {"iou": 0.5, "accuracy": pytest.approx(2 / 3), "pixels": 3}
    json.dumps(details)


def test_an_absent_class_is_left_out():
    metric = measure([[0, 1, 1, 1]], [[0, 0, 1, 1]], classes=5)
    expected = {"miou": (1 / 2 + 2 / 3) / 2, "mean_accuracy": (1 / 2 + 1) / 2, "pixel_accuracy": 3 / 4}
    assert metric.compute() == pytest.approx(expected)
    assert metric.details()["classes"][4] == {"iou": None, "accuracy": None, "pixels": 0}


def test_a_class_that_is_only_predicted():
    """It has IoU 0, which counts, and no accuracy."""
    metric = measure([[0, 2]], [[0, 0]])
    assert metric.compute() == pytest.approx({"miou": 0.25, "mean_accuracy": 0.5, "pixel_accuracy": 0.5})
    assert metric.details()["classes"][2] == {"iou": 0, "accuracy": None, "pixels": 0}


def test_a_class_that_is_missed():
    assert measure([[0, 0]], [[0, 2]]).compute() == {"miou": 0.25, "mean_accuracy": 0.5, "pixel_accuracy": 0.5}


def test_ignored_pixels_count_nowhere():
    """Neither as truth nor as a wrong answer of the class that is said there."""
    metric = measure([[0, 1, 1, 2]], [[0, 1, 255, 255]])
    assert metric.compute() == {"miou": 1, "mean_accuracy": 1, "pixel_accuracy": 1}
    assert metric.details()["classes"][2]["iou"] is None


def test_another_ignored_label():
    assert measure([[0, 1, 1]], [[0, 1, 7]], ignore=7).compute()["miou"] == 1
    assert measure([[0, 1, 1]], [[0, 0, 1]], ignore=0).compute()["miou"] == 1


def test_pictures_are_pooled():
    """Not the mean of the images' own figures: class 0 has 1 of 1 and 0 of 3 pixels."""
    metric = SemanticMetric(2)
    metric.update(torch.tensor([[0]]), torch.tensor([[0]]))
    metric.update(torch.tensor([[1, 1, 1]]), torch.tensor([[0, 0, 0]]))
    assert metric.compute() == {"miou": 0.125, "mean_accuracy": 0.25, "pixel_accuracy": 0.25}


def test_nothing_counts():
    with pytest.raises(UserError, match="ignored"):
        measure([[0]], [[255]]).compute()
    with pytest.raises(UserError, match="ignored"):
        SemanticMetric(3).compute()


@pytest.mark.parametrize(("prediction", "truth"), [([[3]], [[0]]), ([[0]], [[3]]), ([[-1]], [[0]])])
def test_a_label_without_class(prediction, truth):
    with pytest.raises(AssertionError, match="no class"):
        measure(prediction, truth)


def test_equals_torchmetrics():
    """The IoU with absent, ignored and only predicted classes; the accuracy where every class is in the truth."""
    generator = torch.Generator().manual_seed(0)
    metric, oracle = SemanticMetric(150), MulticlassJaccardIndex(150, ignore_index=255)
    for height, width in ((37, 53), (64, 11)):
        truth = torch.randint(0, 90, (height, width), generator=generator).to(torch.uint8)
        prediction = torch.where(torch.rand(truth.shape, generator=generator) < 0.6, truth, truth + 30)
        truth[:4] = 255
        metric.update(prediction, truth)
        oracle.update(prediction.long(), truth.long())
    assert metric.compute()["miou"] == pytest.approx(float(oracle.compute()), abs=1e-6)

    truth = torch.arange(5).repeat(60).view(20, 15)
    prediction = torch.where(torch.rand(truth.shape, generator=generator) < 0.7, truth, 4 - truth)
    metric, oracle = SemanticMetric(5), MulticlassAccuracy(5, average="macro", ignore_index=255)
    metric.update(prediction, truth)
    assert metric.compute()["mean_accuracy"] == pytest.approx(float(oracle(prediction, truth)), abs=1e-6)


def test_gathers(monkeypatch):
    """Another process saw as much again, with everything wrong."""
    metric = measure([[0, 1]], [[0, 1]], classes=2)
    other = measure([[1, 0]], [[0, 1]], classes=2)
    monkeypatch.setattr("focalnet.metrics.semantic.gathered", lambda matrix: [matrix, other.matrix])
    assert metric.compute()["pixel_accuracy"] == 0.5
    assert metric.details()["confusion"] == [[1, 1], [1, 1]]
