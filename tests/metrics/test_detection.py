"""Average precision: equal to pycocotools on the same JSON, over processes too, and right on cases done by hand."""

import contextlib
import copy
import io
import json
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pycocotools import mask as coder
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from focalnet.errors import MissingExtraError, UserError
from focalnet.metrics.detection import FIGURES, AveragePrecision
from focalnet.structures import encode_masks


@dataclass
class Found:
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


def ellipses(boxes: Tensor, height: int, width: int) -> Tensor:
    """(N, H, W): the ellipse in each box; a box without a pixel gives an empty mask."""
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    x1, y1, x2, y2 = (side[:, None, None] for side in boxes.unbind(1))
    across = (x - (x1 + x2) / 2) / ((x2 - x1) / 2).clamp(min=1e-3)
    down = (y - (y1 + y2) / 2) / ((y2 - y1) / 2).clamp(min=1e-3)
    return across**2 + down**2 <= 1


def random_boxes(generator, count, height, width) -> Tensor:
    """Sides from 4 pixels to most of the image, so that all three sizes are there."""
    sides = torch.exp(torch.rand(count, 2, generator=generator) * 4) * 4
    sides = sides.minimum(torch.tensor([0.9 * width, 0.9 * height]))
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - sides)
    return torch.cat([corner, corner + sides], 1)


def random_case(seed: int, pictures: int = 12, classes: int = 4):
    """Detections that are the truth shaken, with wrong classes, doubles, strangers and ties in the scores."""
    generator = torch.Generator().manual_seed(seed)
    case = []
    for index in range(pictures):
        height, width = int(torch.randint(90, 300, (), generator=generator)), 160 + 7 * index
        count = int(torch.randint(0, 9, (), generator=generator))
        boxes = random_boxes(generator, count, height, width)
        labels = torch.randint(0, classes - 1, (count,), generator=generator)  # the last class is never there
        shaken = boxes.repeat(2, 1) + torch.randn(2 * count, 4, generator=generator) * 4
        found = torch.cat([shaken, random_boxes(generator, 5, height, width)]).clamp(min=0)
        found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
        wrong = torch.randint(0, classes, (len(found),), generator=generator)
        named = torch.where(
            torch.rand(len(found), generator=generator) < 0.2,
            wrong,
            torch.cat([labels, labels, wrong[-5:]]),
        )
        scores = (torch.rand(len(found), generator=generator) * 8).round() / 8  # many ties
        truth = {
            "boxes": boxes,
            "labels": labels,
            "masks": ellipses(boxes, height, width),
            "crowd": torch.rand(count, generator=generator) < 0.25,
            "area": ellipses(boxes, height, width).flatten(1).sum(1),
            "size": (height, width),
        }
        case.append((100 - 3 * index, Found(found, scores, named, ellipses(found, height, width)), truth))
    return case


def official(case, rows, classes, kind, category_ids):
    """pycocotools' table and precision, from the rows after a trip through JSON."""
    images, annotations = [], []
    for image_id, _, truth in case:
        images.append({"id": image_id, "height": truth["size"][0], "width": truth["size"][1]})
        for box, label, mask, crowd, area in zip(
            truth["boxes"].double(), truth["labels"], truth["masks"], truth["crowd"], truth["area"], strict=True
        ):
            rle = coder.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image_id, "category_id": category_ids[label],
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()], "segmentation": rle,
                "iscrowd": int(crowd), "area": float(area),
            })  # fmt: skip
    dataset = {"images": images, "annotations": annotations}
    dataset["categories"] = [{"id": n, "name": c} for n, c in zip(category_ids, classes, strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(rows))), {"box": "bbox", "mask": "segm"}[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def measure(case, **options):
    metric = AveragePrecision([f"class {k}" for k in range(4)], **options)
    for image_id, found, truth in case:
        metric.update(image_id, found, **truth)
    return metric


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "category_ids",
    [(1, 2, 3, 4), (90, 7, 13, 8), (0, 1, 2, 3), ("d", "a", "c", "b")],
    ids=["counted", "given", "from zero", "texts"],
)
def test_equals_pycocotools(seed, category_ids, capfd):
    case = random_case(seed)
    metric = measure(case, masks=True, category_ids=category_ids)
    metrics, details = metric.compute(), metric.details()
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""
    assert {row["category_id"] for row in metric.results()} <= set(category_ids)
    order = np.argsort(np.argsort(category_ids))
    for kind in ("box", "mask"):
        oracle = official(case, metric.results(kind), metric.classes, kind, category_ids)
        expected = {f"{kind}_{n}": v for n, v in zip(FIGURES, oracle.stats, strict=True) if v >= 0}
        mine = {name: value for name, value in metrics.items() if name.startswith(kind)}
        assert mine == pytest.approx(expected, abs=1e-6)
        assert len(expected) == 12
        assert 0.05 < expected[f"{kind}_ap"] < 0.9
        precision = oracle.eval["precision"][:, :, order, 0, 2]
        for label, row in enumerate(details["classes"]):
            if label == 3:
                assert row[f"{kind}_ap"] is row[f"{kind}_ap50"] is details[kind]["by_class"][3] is None
            else:
                assert row[f"{kind}_ap"] == pytest.approx(precision[:, :, label].mean(), abs=1e-6)
                assert row[f"{kind}_ap50"] == pytest.approx(precision[0, :, label].mean(), abs=1e-6)
                assert details[kind]["by_class"][label] == pytest.approx(precision[0, :, label], abs=1e-4)
        assert np.mean(details[kind]["precision"]) == pytest.approx(expected[f"{kind}_ap50"], abs=1e-4)
    json.dumps([metrics, details, metric.results("mask")])


def test_ids_of_images_may_be_texts():
    case = [(f"picture {number}", found, truth) for number, found, truth in random_case(1)]
    metric = measure(case, masks=False, category_ids=(1, 2, 3, 4))
    oracle = official(case, metric.results(), metric.classes, "box", (1, 2, 3, 4))
    assert metric.compute()["box_ap"] == pytest.approx(oracle.stats[0], abs=1e-6)
    same = AveragePrecision(metric.classes, masks=False)
    for index, (_, found, truth) in enumerate(case):
        same.update("one name", found, **truth, index=index)
    assert same.compute()["box_ap50"] > 0, "images of one name are told apart by their place"
    assert len(list(same.by_image())) == len(case)


def test_more_detections_than_a_hundred():
    """150 objects of a class, all found: with COCO's limit of 100 the recall ends at two thirds."""
    boxes = torch.stack(torch.meshgrid(torch.arange(15) * 12.0, torch.arange(10) * 12.0, indexing="ij"), -1).view(-1, 2)
    boxes = torch.cat([boxes, boxes + 10], 1)
    truth = {"boxes": boxes, "labels": torch.zeros(150, dtype=torch.int64), "size": (200, 200)}
    found = Found(boxes, torch.linspace(1, 0.5, 150), truth["labels"])
    metrics = {}
    for limit in (100, 300):
        metric = AveragePrecision(["seed"], masks=False, limit=limit)
        metric.update(1, found, **truth)
        metrics[limit] = metric.compute()
    assert metrics[100]["box_ar100"] == pytest.approx(2 / 3)
    assert metrics[100]["box_ap"] == pytest.approx(67 / 101)
    assert metrics[300]["box_ap"] == metrics[300]["box_ar300"] == pytest.approx(1)
    assert "box_ar100" not in metrics[300]


def test_objects_without_a_mask_count_in_boxes_alone():
    boxes = square((0, 0, 50, 50), (100, 100, 150, 150))
    masks = ellipses(boxes["boxes"], 200, 200)
    found = Found(boxes["boxes"], torch.tensor([0.9, 0.8]), boxes["labels"], masks)
    for known in ([True, True], [True, False], [False, True]):
        metric, rows = AveragePrecision(["thing"], masks=True), torch.tensor(known)
        metric.update(1, found, **boxes, masks=masks & rows[:, None, None], outlined=rows, size=(200, 200))
        metrics = metric.compute()
        assert metrics["box_ap"] == metrics["mask_ap"] == pytest.approx(1), "found where no mask is known, not wrong"
    half = found.masks & (torch.arange(200) < 20)
    metric = AveragePrecision(["thing"], masks=True)
    known = {"masks": masks, "outlined": torch.tensor([True, False]), "size": (200, 200)}
    metric.update(1, Found(found.boxes, found.scores, found.labels, half), **boxes, **known)
    assert metric.compute()["mask_ap50"] < 0.6
    metric = AveragePrecision(["thing"], masks=True)
    metric.update(1, found, **boxes, masks=masks, outlined=torch.tensor([False, False]), size=(200, 200))
    assert set(metric.compute()) == {name for name in metric.compute() if name.startswith("box_")}
    assert metric.details()["classes"][0]["mask_ap"] is None


def test_run_lengths():
    masks = torch.zeros(8, 5, 7, dtype=torch.bool)
    masks[0] = True
    masks[2] = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[3, 0, 0] = masks[4, -1, -1] = masks[5, -1, 2] = masks[5, 0, 3] = True
    masks[6, 1:4, 2:5] = True
    masks[7, 0] = True
    for mask, rle in zip(masks, encode_masks(masks), strict=True):
        expected = coder.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        assert rle == {"size": [5, 7], "counts": expected["counts"].decode()}
    assert encode_masks(masks[:0]) == []


def test_counts():
    case = random_case(0)
    rows = measure(case, masks=True).details()["classes"]
    for label, row in enumerate(rows):
        crowds = [truth["crowd"][truth["labels"] == label] for _, _, truth in case]
        assert row["objects"] == sum(int((~crowd).sum()) for crowd in crowds)
        assert row["crowds"] == sum(int(crowd.sum()) for crowd in crowds)
        assert row["detections"] == sum(int((found.labels == label).sum()) for _, found, _ in case)


def test_order_of_updates_and_repetitions_change_nothing():
    case = random_case(1)
    expected = measure(case, masks=True)
    shuffled = [*case[::-1], *copy.deepcopy(case[:3])]
    other = measure(shuffled, masks=True)
    assert other.compute() == expected.compute()
    assert other.results() == expected.results()


def test_update_after_compute_counts():
    case = random_case(2)
    metric = measure(case[:5], masks=False)
    metric.compute()
    for image_id, found, truth in case[5:]:
        metric.update(image_id, found, **truth)
    assert metric.compute() == measure(case, masks=False).compute()


def square(*corners, score=None):
    """Boxes of class 0 as truth or, with scores, as detections."""
    boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    return {"boxes": boxes, "labels": labels} if score is None else Found(boxes, torch.tensor(score), labels)


def table(found, size=(200, 200), **truth):
    metric = AveragePrecision(["thing"], masks=False)
    metric.update(1, found, size=size, **truth)
    return metric.compute()


def test_a_perfect_answer():
    """Only the sizes that exist are in the table."""
    metrics = table(square((10, 10, 60, 60), score=[0.4]), **square((10, 10, 60, 60)))
    assert metrics == pytest.approx({f"box_{name}": 1.0 for name in FIGURES if not name.endswith(("small", "large"))})


def test_iou_threshold_by_hand():
    """Shifted by 10 of 50 pixels: IoU 40 / 60 = 0.667, which passes 0.50, 0.55, 0.60 and 0.65 of ten thresholds."""
    metrics = table(square((20, 10, 70, 60), score=[0.9]), **square((10, 10, 60, 60)))
    assert metrics["box_ap"] == pytest.approx(0.4)
    assert metrics["box_ap50"] == pytest.approx(1)
    assert metrics["box_ap75"] == 0


def test_a_double_is_wrong():
    """The surer one is right; with both before the second object, precision falls to 2 / 3 beyond recall 1 / 2."""
    truth = square((0, 0, 50, 50), (100, 100, 150, 150))
    found = square((0, 0, 50, 50), (0, 0, 50, 50), (100, 100, 150, 150), score=[0.9, 0.8, 0.7])
    assert table(found, **truth)["box_ap"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_detections_in_a_crowd_are_ignored():
    truth = square((0, 0, 50, 50), (100, 100, 200, 200))
    found = square((110, 110, 130, 130), (150, 150, 170, 170), (0, 0, 50, 50), score=[0.99, 0.98, 0.5])
    assert table(found, **truth, crowd=torch.tensor([False, True]))["box_ap"] == pytest.approx(1)
    assert table(found, **truth)["box_ap"] < 0.5


def test_area_decides_the_size():
    truth, found = square((0, 0, 50, 50)), square((0, 0, 50, 50), score=[0.9])
    assert "box_ap_medium" in table(found, **truth)
    assert "box_ap_small" in table(found, **truth, area=torch.tensor([500.0]))


def test_area_of_the_mask_by_default():
    """A ring in a large box is small."""
    boxes = square((0, 0, 150, 150))
    mask = torch.zeros(1, 200, 200, dtype=torch.bool)
    mask[0, 0, :150] = mask[0, :150, 0] = True
    metric = AveragePrecision(["ring"], masks=True)
    found = Found(boxes["boxes"], torch.tensor([1.0]), boxes["labels"], mask)
    metric.update(1, found, **boxes, masks=mask, size=(200, 200))
    metrics = metric.compute()
    assert metrics["mask_ap_small"] == pytest.approx(1)
    assert "mask_ap_large" not in metrics


def test_no_detection():
    metrics = table(square(score=[]), **square((0, 0, 50, 50)))
    assert metrics["box_ap"] == metrics["box_ar100"] == 0


@pytest.mark.parametrize("masks", [False, True])
def test_pictures_without_objects(masks):
    metric = AveragePrecision(["thing"], masks=masks)
    empty = torch.zeros(0, 30, 40, dtype=torch.bool)
    found = Found(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0.5]), torch.tensor([0]), empty.new_ones(1, 30, 40))
    metric.update(1, found, **square(), masks=empty, size=(30, 40))
    with pytest.raises(UserError, match="None of 1 image"):
        metric.compute()
    details = metric.details()
    expected = {"box_ap": None, "box_ap50": None, "objects": 0, "crowds": 0, "detections": 1}
    assert expected.items() <= details["classes"][0].items()
    assert details["box"]["precision"] is None


def test_nothing_at_all():
    metric = AveragePrecision(["thing"], masks=False)
    with pytest.raises(UserError, match="None of 0 images"):
        metric.compute()
    assert metric.results() == []


def test_half_precision():
    found = square((10, 10, 60, 60), score=[0.5])
    found.boxes, found.scores = found.boxes.bfloat16(), found.scores.bfloat16()
    assert table(found, **square((10, 10, 60, 60)))["box_ap"] == pytest.approx(1)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtraError, match=r"focalnet\[dense\]"):
        AveragePrecision(["thing"], masks=False)


def test_quick():
    """200 images with 100 detections each, boxes."""
    generator = torch.Generator().manual_seed(0)
    metric = AveragePrecision([f"class {k}" for k in range(80)], masks=False)
    start = time.process_time()
    for image_id in range(200):
        boxes, labels = random_boxes(generator, 10, 480, 640), torch.randint(80, (10,), generator=generator)
        shaken = boxes.repeat(10, 1) + torch.randn(100, 4, generator=generator)
        found = Found(shaken, torch.rand(100, generator=generator), labels.repeat(10))
        metric.update(image_id, found, boxes=boxes, labels=labels, size=(480, 640))
    assert metric.compute()["box_ap50"] > 0.1
    assert time.process_time() - start < 5


def _process(rank, address, case, files):
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    mine = case[rank::2] if rank else [*case[0::2], case[1]]  # one image is in both, as the loader's padding makes it
    metric = measure(mine, masks=True)
    torch.save((metric.compute(), metric.details(), metric.results()), files[rank])
    torch.distributed.destroy_process_group()


def test_two_processes(tmp_path):
    case = random_case(3)
    expected = measure(case, masks=True)
    files = [tmp_path / "0.pt", tmp_path / "1.pt"]
    address = f"file://{tmp_path / 'meeting'}"
    torch.multiprocessing.spawn(_process, (address, case, files), nprocs=2)
    for file in files:
        assert torch.load(file) == (expected.compute(), expected.details(), expected.results())
