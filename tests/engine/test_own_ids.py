"""The ids of a user's data are written back: the official evaluation on the user's own file gives our metrics."""

import contextlib
import csv
import io
import json
import logging
import types

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from focalnet.cli import main
from focalnet.engine.evaluate import evaluate
from focalnet.models.create import create_model
from focalnet.structures import Detections
from focalnet.tasks.detect import Detect

W, H = 96, 64
CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def network():
    """Finds the red cat or green dog in each half of an image, a little beside its place."""

    def detect(self, images, sizes, originals=None):
        found = []
        for image, (height, width), (high, wide) in zip(images, sizes.tolist(), originals.tolist(), strict=True):
            boxes, labels = [], []
            for half, columns in enumerate((slice(0, width // 2), slice(width // 2, width))):
                colors = image[:2, :height, columns]
                label = int(colors[1].max() > colors[0].max())
                y, x = torch.nonzero(colors[label] > colors[label].max() - 0.5, as_tuple=True)
                shift = half * columns.start + 0.7 * half
                box = [x.min() + shift, y.min() + half, x.max() + 1 + shift, y.max() + 1 + 2 * half]
                boxes.append(torch.stack([side + torch.zeros(()) for side in box]))
                labels.append(label)
            scale = torch.tensor([wide / width, high / height] * 2)
            boxes = torch.stack(boxes) * scale
            scores = 0.5 + 0.4 * image.mean((1, 2))[:2].sigmoid()
            masks = torch.zeros(2, high, wide, dtype=torch.bool)
            for mask, (left, top, right, bottom) in zip(masks, boxes.round().int().tolist(), strict=True):
                mask[max(top, 0) : bottom, max(left, 0) : right] = True
            found.append(Detections(boxes, scores, torch.tensor(labels), masks))
        return found

    model = create_model("mask_rcnn_minifocal_64", classes=CLASSES)
    model.detect = types.MethodType(detect, model)
    return model.eval()


def paint(folder, names, exif=None):
    """Images of two objects each, and their boxes (x, y, w, h) with labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, truth = np.random.default_rng(0), []
    for number, name in enumerate(names):
        pixels, objects = rng.integers(0, 60, (H, W, 3), dtype=np.uint8), []
        for half, x in enumerate((6, 52)):
            label, width, height = (number + half) % 2, 20 + number % 7, 24 + number % 5
            pixels[20 : 20 + height, x : x + width] = (20, 220, 40) if label else (220, 20, 40)
            objects.append(((x, 20, width, height), label))
        image = Image.fromarray(pixels)
        if exif:
            image = image.transpose(Image.Transpose.ROTATE_90)  # as it lies; EXIF 6 turns it clockwise
            image.getexif()[0x0112] = 6
            objects = [((y, W - x - w, h, w), label) for (x, y, w, h), label in objects]
        image.save(folder / name, **({"exif": image.getexif(), "quality": 100, "subsampling": 0} if exif else {}))
        truth.append(objects)
    return truth


def coco(truth, names, image_ids, category_ids, size=(H, W)):
    notes = [
        {
            "id": 2 * index + half + 1, "image_id": image_ids[index], "category_id": category_ids[label],
            "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0,
            "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3], box[0],
                              box[1] + box[3]]],
        }
        for index, objects in enumerate(truth)
        for half, (box, label) in enumerate(objects)
    ]  # fmt: skip
    images = [
        {"id": number, "file_name": name, "height": size[0], "width": size[1]}
        for number, name in zip(image_ids, names, strict=True)
    ]
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, CLASSES, strict=True)]
    return {"images": images, "annotations": notes, "categories": categories}


def official(content, results, kind, tmp_path):
    path = tmp_path / "official.json"
    path.write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("ap", "ap50", "ap75"), evaluation.stats, strict=False)) | {"ar100": evaluation.stats[8]}


def assert_official(metrics, content, results, tmp_path, kinds=("box", "mask")):
    for kind in kinds:
        expected = official(content, results / f"{kind}.json", {"box": "bbox", "mask": "segm"}[kind], tmp_path)
        assert 0.3 < expected["ap"] < 1
        for name, value in expected.items():
            assert metrics[f"{kind}_{name}"] == pytest.approx(value, abs=1e-6), (kind, name)


NAMES = [f"{number:03}.png" for number in range(9)]


@pytest.mark.parametrize(
    ("image_ids", "category_ids"),
    [
        (range(9), (3, 7)),
        (range(9), (0, 1)),
        (range(100, 10, -10), (90, 0)),
        ([f"{number}" for number in range(7, 16)], (2, 1)),
        ([f"picture {number}" for number in range(9)], ("x", "a")),
        (range(9), ("10", "9")),
    ],
)
def test_coco(network, tmp_path, image_ids, category_ids, caplog):
    content = coco(paint(tmp_path, NAMES), NAMES, list(image_ids), category_ids)
    (tmp_path / "notes.json").write_text(json.dumps(content))
    caplog.set_level("INFO", "focalnet")
    metrics = evaluate(network, data=str(tmp_path / "notes.json"), workers=0, results=tmp_path / "results")
    assert f"{tmp_path / 'results'}: box.json" in caplog.text
    assert_official(metrics, content, tmp_path / "results", tmp_path)
    rows = json.loads((tmp_path / "results" / "box.json").read_text())
    assert {row["category_id"] for row in rows} == set(category_ids)
    assert {row["image_id"] for row in rows} == set(image_ids)


def test_annotations_of_images_that_exif_turns(network, tmp_path):
    names = [f"{number}.jpg" for number in range(9)]
    content = coco(paint(tmp_path, names, exif=True), names, list(range(9)), (3, 7), size=(W, H))
    (tmp_path / "notes.json").write_text(json.dumps(content))
    metrics = evaluate(network, data=str(tmp_path / "notes.json"), workers=0, results=tmp_path / "results")
    assert_official(metrics, content, tmp_path / "results", tmp_path)


def test_yolo(network, tmp_path):
    truth = paint(tmp_path / "images", NAMES)
    (tmp_path / "labels").mkdir()
    for name, objects in zip(NAMES, truth, strict=True):
        lines = [
            f"{1 - label} {(x + w / 2) / W} {(y + h / 2) / H} {w / W} {h / H}\n" for (x, y, w, h), label in objects
        ]
        (tmp_path / "labels" / name.replace("png", "txt")).write_text("".join(lines))
    (tmp_path / "data.yaml").write_text("names: [dog, cat]\nval: images\n")
    metrics = evaluate(network, data=str(tmp_path), workers=0, results=tmp_path / "results")
    stems = [name.removesuffix(".png") for name in NAMES]
    assert_official(metrics, coco(truth, NAMES, stems, (1, 0)), tmp_path / "results", tmp_path, kinds=("box",))
    rows = json.loads((tmp_path / "results" / "box.json").read_text())
    table = list(csv.DictReader(io.StringIO((tmp_path / "results" / "box.csv").read_text())))
    assert [row["label"] for row in table] == [["dog", "cat"][row["category_id"]] for row in rows]
    texts = sorted((tmp_path / "results" / "labels").iterdir())
    assert [path.stem for path in texts] == stems
    label, cx, cy, w, h, score = map(float, texts[0].read_text().splitlines()[0].split())
    first = next(row for row in rows if row["image_id"] == "000")
    x, y, wide, high = first["bbox"]
    assert [cx * W, cy * H, w * W, h * H] == pytest.approx([x + wide / 2, y + high / 2, wide, high], abs=1e-3)
    assert (label, score) == (first["category_id"], pytest.approx(first["score"], abs=1e-5))


def test_more_objects_than_the_network_tells(tmp_path, caplog):
    """Colonies: 40 objects on an image, of which a network on a minifocal tells 30, and at most 60 queries ask."""
    paint(tmp_path, NAMES[:2])
    content = coco(
        [[((x, y, 4, 4), 0) for x in range(0, 80, 10) for y in range(0, 50, 10)]] * 2, NAMES[:2], [1, 2], (1, 2)
    )
    for index, note in enumerate(content["annotations"]):
        note["id"], note["image_id"] = index, index // 40 + 1
    (tmp_path / "notes.json").write_text(json.dumps(content))
    caplog.set_level(logging.WARNING)
    for name, told, options in (
        ("mask_rcnn_minifocal_64", 30, {}), ("dino_minifocal_64", 20, {"num_queries": 20}),
        ("mask_rcnn_minifocal_64", 300, {"detections": 300}), ("dino_minifocal_64", 300, {"detections": 300}),
    ):  # fmt: skip
        task = Detect(model=name, data=str(tmp_path / "notes.json"), **options)
        data = task.datasets(0)
        caplog.clear()
        model = task.build_model(data)
        said = f"up to 40 objects on an image, and {name} finds {told} at most: --detections 40 raises it"
        assert (said in caplog.text) == (told < 40)
        assert model.detections == told
        assert task.metric(model.spec).limit == max(100, task.detections or 0)
        assert model.spec.category_ids == (1, 2)


@pytest.mark.slow
def test_a_trained_run_finds_more_and_tells_what_it_was_measured_on(tmp_path, capsys):
    """The validation images are a part of the user's file: evaluation.json names them for the official evaluation."""
    names = NAMES[:5]
    content = coco(paint(tmp_path / "data", names), names, ["a", "b", "c", "d", "e"], (7, 3))
    (tmp_path / "data" / "notes.json").write_text(json.dumps(content))
    words = "--task detect --model mask_rcnn_minifocal_64 --epochs 1 --batch-size 4 --workers 0 --crowd learn"
    run = tmp_path / "run"
    main(["train", *words.split(), "--data", str(tmp_path / "data"), "--out", str(run)])
    evaluation = json.loads((run / "evaluation.json").read_text())
    rows = json.loads((run / "results" / "box.json").read_text())
    assert len(evaluation["images"]) == 1
    assert {row["image_id"] for row in rows} <= set(evaluation["images"]) < set("abcde")
    assert {row["category_id"] for row in rows} <= {3, 7}
    assert create_model("mask_rcnn_minifocal_64", weights=run, detections=300).detections == 300
    metrics = evaluate(str(run), detections=300, workers=0, results=tmp_path / "more")
    assert "box_ar300" in metrics
    assert len(json.loads((tmp_path / "more" / "box.json").read_text())) >= len(rows)
    capsys.readouterr()
    main(["predict", str(run), str(tmp_path / "data"), "--threshold", "0", "--detections", "120", "--format", "coco"])
    found = json.loads(capsys.readouterr().out)
    assert found["categories"] == [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]
    assert len(found["annotations"]) > 30 * 5
