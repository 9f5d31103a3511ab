"""The best threshold, the confusion matrix and the worst mistakes of detections, on images made by hand."""

import numpy as np
import pytest

from focalnet.metrics.operating import Boxes, OperatingPoint

A, B, C = [0, 0, 10, 10], [20, 0, 10, 10], [50, 50, 20, 20]
HALF = [0, 4, 10, 10]  # of IoU 6 / 14 with A


def image(place, found, truth, crowd=()):
    """Detections (box, score, label), objects (box, label)."""
    boxes, scores, labels = zip(*found, strict=True) if found else ((), (), ())
    true_boxes, true_labels = zip(*truth, strict=True) if truth else ((), ())
    return Boxes(
        place, np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(labels, int),
        np.array(true_boxes, float).reshape(-1, 4), np.array(true_labels, int),
        np.isin(np.arange(len(truth)), crowd),
    )  # fmt: skip


SCENES = [
    # right, a duplicate, of the other class, nothing there; C is missed
    image(3, [(A, 0.9, 0), (A, 0.8, 0), (B, 0.7, 1), ([80, 80, 5, 5], 0.2, 0)], [(A, 0), (B, 0), (C, 1)]),
    image(5, [(A, 0.6, 1), (HALF, 0.5, 1)], [(A, 1)]),
    image(8, [], [(C, 0)]),
]


def test_the_best_threshold_is_that_of_the_highest_f1():
    point = OperatingPoint(SCENES, 2)
    assert point.objects == 5
    # kept 1: F1 2/6; 2: 2/7; 3: 2/8; 4: 4/9; 5: 4/10
    assert point.at(0.6) == {"F1": 4 / 9, "precision": 2 / 4, "recall": 2 / 5}
    assert point.threshold == pytest.approx(0.55)
    curves = point.curves()
    assert max(curves["F1"]) == pytest.approx(4 / 9, abs=1e-4)
    assert curves["F1"][55] == max(curves["F1"])
    assert (curves["precision"][95], curves["recall"][95], curves["F1"][95]) == (1.0, 0.0, 0.0)
    assert curves["recall"][0] == 0.4


def test_equal_scores_are_in_or_out_together():
    point = OperatingPoint([image(0, [(A, 0.5, 0), (B, 0.5, 0)], [(A, 0)])], 1)
    assert point.threshold == 0.25
    assert point.at(point.threshold)["precision"] == 0.5


def test_without_anything_right_there_is_no_threshold():
    for scenes in ([], [image(0, [], [(A, 0)])], [image(0, [(A, 0.9, 0)], [(B, 0)])], [image(0, [(A, 0.9, 0)], [])]):
        point = OperatingPoint(scenes, 1)
        assert point.threshold is None
        assert set(point.curves()["F1"]) == {0.0}


def test_confusion():
    matrix = OperatingPoint(SCENES, 2).confusion(0.55)
    assert matrix.tolist() == [
        [1, 1, 1],  # A found, B taken for 1, C of the last image missed
        [0, 1, 1],
        [1, 0, 0],  # the duplicate
    ]


def test_the_worst_mistakes():
    worst = OperatingPoint(SCENES, 2).worst(0.45)
    assert [(row["place"], row["label"], row["other"], row["score"]) for row in worst["wrong"]] == [
        (3, 0, 0, 0.8),
        (3, 1, 0, 0.7),
        (5, 1, 1, 0.5),
    ]
    assert worst["wrong"][2]["iou"] == pytest.approx(6 / 14, abs=1e-4)
    assert [(row["place"], row["label"], row["other"], row["box"]) for row in worst["missed"]] == [
        (3, 1, None, C),
        (8, 0, None, C),
        (3, 0, 1, B),
    ]


def test_a_crowd_is_no_object_and_excuses_what_lies_inside():
    crowd = [0, 0, 100, 100]
    scene = image(0, [(A, 0.9, 0), (B, 0.8, 0), (C, 0.7, 1)], [(A, 0), (crowd, 0)], crowd=[1])
    point = OperatingPoint([scene], 2)
    assert point.objects == 1
    assert point.threshold == pytest.approx(0.8)  # B is ignored, C is of another class than the crowd
    assert point.worst(0.5) == {"wrong": [point.worst(0.5)["wrong"][0]], "missed": []}
    assert point.confusion(0.5).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_a_match_is_the_best_of_what_is_left():
    """The surer one takes the object that it overlaps most; the other one takes what is left."""
    near = [2, 0, 10, 10]
    scene = image(0, [(A, 0.9, 0), ([1, 0, 10, 10], 0.8, 0)], [(near, 0), (A, 0)])
    assert OperatingPoint([scene], 1).at(0.0) == {"F1": 1.0, "precision": 1.0, "recall": 1.0}
