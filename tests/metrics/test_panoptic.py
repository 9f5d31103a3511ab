"""Panoptic quality: hand cases with crowd and void, and torchmetrics where its definition is the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.detection import PanopticQuality

from focalnet.errors import UserError
from focalnet.metrics.panoptic import PanopticMetric

THINGS = [True, True, False]
"""Classes of the hand cases: 0 and 1 are things, 2 is stuff."""


def ids(*rows):
    """A map of ids from strings of digits."""
    return torch.tensor([[int(pixel) for pixel in row] for row in rows])


def segments(crowds=(), **labels):
    """`s1=0` is segment 1 with label 0."""
    return [{"id": int(n[1:]), "label": label, "crowd": int(n[1:]) in crowds} for n, label in labels.items()]


def measure(pred_ids, pred_segments, truth_ids, truth_segments):
    metric = PanopticMetric(3, THINGS)
    metric.update(pred_ids, pred_segments, truth_ids, truth_segments)
    return metric


def counts(metric, label):
    row = metric.details()["classes"][label]
    return row["matched"], row["wrong"], row["missed"]


def test_by_hand():
    """Thing 0: IoU 6 / 8 and a stranger; thing 1: missed; stuff: matched."""
    truth = ids("1111333", "1111333", "2233333")
    found = ids("1113333", "1113335", "5533355")
    metric = measure(found, segments(s1=0, s3=2, s5=0), truth, segments(s1=0, s2=1, s3=2))
    shared, union = int(((truth == 3) & (found == 3)).sum()), int(((truth == 3) | (found == 3)).sum())
    expected = {0: (6 / 8, 1 / 1.5), 2: (shared / union, 1.0)}
    rows = metric.details()["classes"]
    for label, (sq, rq) in expected.items():
        assert rows[label]["sq"] == pytest.approx(sq)
        assert rows[label]["rq"] == pytest.approx(rq)
        assert rows[label]["pq"] == pytest.approx(sq * rq)
    assert (rows[1]["pq"], rows[1]["missed"]) == (0, 1)
    pq = [rows[k]["pq"] for k in range(3)]
    metrics = metric.compute()
    assert metrics["pq"] == pytest.approx(sum(pq) / 3)
    assert metrics["pq_things"] == pytest.approx((pq[0] + pq[1]) / 2)
    assert metrics["pq_stuff"] == pytest.approx(pq[2])
    assert metrics["rq"] == pytest.approx((1 / 1.5 + 0 + 1) / 3)
    json.dumps(metric.details())


def test_iou_of_one_half_is_no_match():
    assert counts(measure(ids("1100"), segments(s1=0), ids("1111"), segments(s1=0)), 0) == (0, 1, 1)
    assert counts(measure(ids("1110"), segments(s1=0), ids("1111"), segments(s1=0)), 0) == (1, 0, 0)


def test_another_class_is_no_match():
    metric = measure(ids("1111"), segments(s1=1), ids("1111"), segments(s1=0))
    assert counts(metric, 0) == (0, 0, 1)
    assert counts(metric, 1) == (0, 1, 0)


@pytest.mark.parametrize("void", [{}, {"s9": 255}], ids=["no segment", "ignored label"])
def test_void_leaves_the_union(void):
    """Four of eight predicted pixels lie on void: IoU 4 / 4, where 4 / 8 would not have matched."""
    truth = ids("1111", "9999")
    metric = measure(ids("1111", "1111"), segments(s1=0), truth, segments(s1=0, **void))
    assert counts(metric, 0) == (1, 0, 0)
    assert metric.compute()["sq"] == 1


@pytest.mark.parametrize(("found", "wrong"), [("11110000", 0), ("11111100", 0), ("01111100", 0), ("00111111", 1)])
def test_on_void(found, wrong):
    """The first four pixels are void: more than half on it is no mistake, half or less is one."""
    metric = measure(ids(found), segments(s1=0), ids("00002222"), segments(s2=1))
    assert counts(metric, 0) == (0, wrong, 0)


def test_half_on_void_is_wrong():
    metric = measure(ids("00111100"), segments(s1=0), ids("00002222"), segments(s2=1))
    assert counts(metric, 0) == (0, 1, 0)


def test_a_crowd_is_neither_matched_nor_missed():
    truth = segments(s1=0, crowds=(1,))
    metric = measure(ids("11111111"), segments(s1=0), ids("11111111"), truth)
    assert counts(metric, 0) == (0, 0, 0)
    with pytest.raises(UserError, match="no segment"):
        metric.compute()
    assert counts(measure(ids("00000000"), [], ids("11111111"), truth), 0) == (0, 0, 0)


def test_on_a_crowd_of_its_class():
    """Segments of the crowd's class may lie on it, those of another class may not."""
    truth = segments(s1=0, s2=1, crowds=(1,))
    metric = measure(ids("11334422"), segments(s1=0, s2=1, s3=0, s4=1), ids("11111122"), truth)
    assert counts(metric, 0) == (0, 0, 0)
    assert counts(metric, 1) == (1, 1, 0)


def test_void_and_crowd_count_together():
    """A quarter on void and more than a quarter on the crowd: more than half."""
    truth = segments(s1=0, s2=1, crowds=(1,))
    assert counts(measure(ids("01112222"), segments(s1=0, s2=1), ids("01112222"), truth), 0) == (0, 0, 0)
    crossing = ids("11111100")
    assert counts(measure(crossing, segments(s1=0), ids("00112222"), truth), 0) == (0, 0, 0)
    assert counts(measure(crossing, segments(s1=0), ids("00122222"), truth), 0) == (0, 1, 0)


def test_a_crowd_stays_in_the_union():
    """Unlike void: two of six predicted pixels lie on a crowd, IoU 4 / 6."""
    metric = measure(ids("111111"), segments(s1=0), ids("111122"), segments(s1=0, s2=0, crowds=(2,)))
    assert metric.compute()["sq"] == pytest.approx(4 / 6)


def test_unlisted_predictions_belong_to_none():
    """transformers writes -1 where it found nothing."""
    assert counts(measure(ids("1111") - 2, [], ids("1111"), segments(s1=0)), 0) == (0, 0, 1)
    assert counts(measure(ids("1777"), segments(s1=0), ids("1111"), segments(s1=0)), 0) == (0, 1, 1)


def test_segments_without_a_pixel():
    metric = measure(ids("1111"), segments(s1=0, s2=0), ids("1111"), segments(s1=0, s3=1))
    assert metric.compute() == dict.fromkeys(("pq", "sq", "rq", "pq_things", "sq_things", "rq_things"), 1.0)


def test_large_ids():
    """COCO's ids are colors: r + 256 g + 65536 b."""
    truth = ids("11112222") * 7_000_000
    listed = [{"id": 7_000_000, "label": 0}, {"id": 14_000_000, "label": 2}]
    assert measure(ids("11112222"), segments(s1=0, s2=2), truth, listed).compute()["pq"] == 1


def test_id_0_is_void():
    with pytest.raises(AssertionError, match="void"):
        measure(ids("00"), [{"id": 0, "label": 0}], ids("11"), segments(s1=0))


def test_gathers(monkeypatch):
    metric = measure(ids("1111"), segments(s1=0), ids("1111"), segments(s1=0))
    other = measure(ids("0000"), [], ids("1111"), segments(s1=0))
    monkeypatch.setattr("focalnet.metrics.panoptic.gathered", lambda sums: [sums, other.sums])
    assert metric.compute()["rq"] == pytest.approx(1 / 1.5)


def test_equals_panopticapi():
    """Eight maps with void and crowds; the fixture was made by the reference evaluation."""
    fixture = np.load(Path(__file__).parents[1] / "fixtures/panoptic/panoptic.npz")
    listed = json.loads(str(fixture["segments"]))
    assert sum(segment["crowd"] for segments in listed["truth"] for segment in segments) > 5
    metric = PanopticMetric(7, [True] * 4 + [False] * 3)
    for index in range(len(fixture["truth"])):
        found, truth = (torch.tensor(fixture[side][index]) for side in ("found", "truth"))
        metric.update(found, listed["found"][index], truth, listed["truth"][index])
    mine = [[row["pq"], row["sq"], row["rq"]] for row in metric.details()["classes"]]
    np.testing.assert_allclose(mine, fixture["per_class"], atol=1e-12, rtol=0)
    names = [name + kind for kind in ("", "_things", "_stuff") for name in ("pq", "sq", "rq")]
    expected = dict(zip(names, fixture["groups"].flatten(), strict=True))
    assert metric.compute() == pytest.approx(expected, abs=1e-12)
    assert 0.1 < expected["pq"] < 0.9


def random_map(generator, cells):
    """Rectangles of 7 classes (0 to 3 things) over void, as (H, W, 2) of class and instance, and as ids."""
    height, width = 41, 57
    pairs = torch.full((height, width, 2), 9)
    pairs[..., 1] = 0
    for instance in range(cells):
        y, x = int(torch.randint(0, 30, (), generator=generator)), int(torch.randint(0, 45, (), generator=generator))
        label = int(torch.randint(0, 7, (), generator=generator))
        pairs[y : y + 14, x : x + 17, 0] = label
        pairs[y : y + 14, x : x + 17, 1] = instance if label < 4 else 0
    return pairs


def as_segments(pairs):
    numbers = pairs[..., 0] * 1000 + pairs[..., 1] + 1
    found = [int(number) for number in numbers.unique()]
    listed = [{"id": n, "label": (n - 1) // 1000} for n in found if n < 9000]
    return torch.where(numbers >= 9000, 0, numbers), listed


def test_equals_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    things = [True] * 4 + [False] * 3
    metric = PanopticMetric(7, things)
    oracle = PanopticQuality(
        things={0, 1, 2, 3}, stuffs={4, 5, 6}, allow_unknown_preds_category=True, return_per_class=True,
        return_sq_and_rq=True,
    )  # fmt: skip
    for index in range(6):
        truth = random_map(generator, 9)
        found = truth.roll((index % 3, 1 + index // 2), (0, 1))
        overlay = random_map(generator, 2)
        found = torch.where((overlay[..., :1] < 9) & (index % 2 == 1), overlay + torch.tensor([0, 50]), found)
        found[..., 1] *= found[..., 0] < 4
        found[..., 0] = found[..., 0].where(found[..., 0] < 9, 6)  # torchmetrics excuses what is left empty
        metric.update(*as_segments(found), *as_segments(truth))
        oracle.update(found[None], truth[None])
    expected = oracle.compute()
    rows = metric.details()["classes"]
    mine = [[row["pq"], row["sq"], row["rq"]] for row in rows]
    torch.testing.assert_close(torch.tensor(mine), expected.squeeze().float(), atol=1e-6, rtol=0)
    assert all(row["matched"] for row in rows)
    assert sum(row["wrong"] for row in rows) > 5
    assert sum(row["missed"] for row in rows) > 2
    metrics = metric.compute()
    for suffix, chosen in {"": slice(7), "_things": slice(4), "_stuff": slice(4, 7)}.items():
        assert metrics[f"pq{suffix}"] == pytest.approx(float(expected.squeeze()[chosen, 0].mean()), abs=1e-6)
