"""Predictions as CSV, COCO and YOLO files."""

import csv
import io
import json
from types import SimpleNamespace

import pytest
import torch

from focalnet.errors import UserError
from focalnet.structures import Detections
from focalnet.tasks.classify import Classify, ClassPrediction
from focalnet.tasks.detect import Detect, DetectionPrediction
from focalnet.tasks.results import category_numbers, open_writer

CLASSES, IDS = ("ant", "bee, wild"), (3, 7)


def prediction(masks=None) -> DetectionPrediction:
    boxes = torch.tensor([[10.0, 5, 30, 15], [0, 0, 40, 20]])
    return DetectionPrediction(
        Detections(boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), masks), CLASSES, (20, 40)
    )


def written(kind, answers, out=None, task=Detect, classes=CLASSES, ids=IDS):
    stream = io.StringIO()
    with open_writer(kind, out, stream, task=task, classes=classes, category_ids=ids) as writer:
        for name, answer in answers:
            writer.add(name, answer)
    return stream.getvalue()


def test_csv(tmp_path):
    text = written("csv", [("a.png", prediction()), ("clip.mp4:3", prediction())])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["image"] for row in rows] == ["a.png", "a.png", "clip.mp4:3", "clip.mp4:3"]
    assert rows[0] == {
        "image": "a.png", "label": "bee, wild", "score": "0.75", "x1": "10.0", "y1": "5.0", "x2": "30.0", "y2": "15.0"
    }  # fmt: skip
    assert written("csv", [("a.png", prediction())], tmp_path / "new" / "a.csv") == ""
    assert len((tmp_path / "new" / "a.csv").read_text().splitlines()) == 3


def test_csv_of_other_tasks():
    answers = [(f"{n}.png", ClassPrediction((("ant", 0.9), ("bee", 0.1)))) for n in range(2)]
    assert written("csv", answers, task=Classify) == "image,label,score\n0.png,ant,0.9\n1.png,ant,0.9\n"
    empty = SimpleNamespace(to_dict=lambda: {"classes": []})
    full = SimpleNamespace(to_dict=lambda: {"classes": [{"id": 1, "share": 0.5}]})
    assert written("csv", [("0", empty), ("1", full)], task=Classify) == "image,id,share\n1,1,0.5\n"


def test_coco():
    masks = torch.zeros(2, 20, 40, dtype=torch.bool)
    masks[0, 5:15, 10:30] = True
    content = json.loads(written("coco", [("a.png", prediction()), ("b.png", prediction(masks))]))
    assert content["categories"] == [{"id": 3, "name": "ant"}, {"id": 7, "name": "bee, wild"}]
    assert content["images"][1] == {"id": 2, "file_name": "b.png", "width": 40, "height": 20}
    first = content["annotations"][0]
    assert (first["image_id"], first["category_id"], first["bbox"], first["score"]) == (1, 7, [10, 5, 20, 10], 0.75)
    assert [note["id"] for note in content["annotations"]] == [1, 2, 3, 4]
    assert content["annotations"][2]["segmentation"]["size"] == [20, 40]


def test_yolo(tmp_path):
    nothing = DetectionPrediction(prediction().detections.take(torch.zeros(2, dtype=torch.bool)), CLASSES, (20, 40))
    answers = [("x/a.png", prediction()), ("y/a.jpg", nothing), ("clip.mp4:12", nothing), ("classes.png", nothing)]
    written("yolo", answers, tmp_path)
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(files) == {"a.txt", "a_2.txt", "clip_12.txt", "classes.txt", "classes_2.txt"}
    assert files["classes.txt"] == "ant\nbee, wild\n"
    assert files["a.txt"].splitlines()[0] == "1 0.500000 0.500000 0.500000 0.500000 0.750000"
    assert files["a_2.txt"] == ""
    assert category_numbers(3, (2, 0, 1)) == [2, 0, 1], "the numbers of the data"
    assert category_numbers(2, (1, 2)) == category_numbers(2, ("a", 1)) == [0, 1]
    with pytest.raises(UserError, match="say into which folder: --out"):
        written("yolo", [])


def test_formats_that_do_not_fit():
    with pytest.raises(UserError, match="--format coco writes the objects of detectors; for classify take csv"):
        written("coco", [], task=Classify)
    with pytest.raises(UserError, match="--format is xml; give csv or coco or yolo"):
        written("xml", [])
