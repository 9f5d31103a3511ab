"""The register of formats: one from outside, sources that fit two, and sources that fit none."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from class_files import fill, png
from focalnet.data import DenseSample, open_data, open_evaluation
from focalnet.data.base import Openers, Split
from focalnet.data.register import FORMATS, Format, find_format, register
from focalnet.errors import UserError
from focalnet.tasks.classify import Classify
from scene_files import write_coco

TRAIN = {"val_fraction": 0.25, "seed": 0, "on_bad_image": "stop"}


@pytest.fixture
def formats(monkeypatch):
    """The register as it was, whatever a test adds."""
    rows = list(FORMATS)
    monkeypatch.setattr("focalnet.data.register.FORMATS", rows)
    return rows


class Greys:
    """Reads images that a line of text describes: "class grey"."""

    def name(self, entry):
        return f"line {entry}"

    def read(self, entry):
        return Image.new("RGB", (8, 8), (entry,) * 3)


def find_greys(source, request):
    """`train.txt` and, if there is one, `val.txt`."""

    def open_split(name):
        with open(f"{source}/{name}.greys") as file:
            names, greys = zip(*(line.split() for line in file), strict=True)
        classes = tuple(sorted(set(names)))
        return Split(reader=Greys(), entries=list(map(int, greys)), classes=classes, names=names)

    return Openers(lambda: open_split("train"), lambda: open_split("val"))


def is_greys(source):
    try:
        return open(f"{source}/train.greys").close() is None
    except OSError:
        return False


GREYS = Format(name="greys", kinds=("class",), words="a folder with train.greys", fits=is_greys, open=find_greys)


def write_greys(folder):
    (folder / "train.greys").write_text("dark 10\nlight 200\ndark 20\nlight 220\n")
    (folder / "val.greys").write_text("light 210\ndark 30\nlight 230\n")
    return folder


def test_a_format_from_outside(formats, tmp_path):
    source = str(write_greys(tmp_path))
    with pytest.raises(UserError, match="has no class folders"):
        open_data("class", source, **TRAIN)
    register(GREYS)
    data = open_data("class", source, **TRAIN)
    assert data.description == f"{source}: 2 classes, 4 training and 3 validation images (its own split)"
    assert (data.classes, data.things) == (("dark", "light"), None)
    assert [(s.label, s.signal.getpixel((0, 0))[0], s.path) for s in data.train][:2] == [
        (0, 10, "line 10"),
        (1, 200, "line 200"),
    ]
    samples = open_evaluation("class", source, ("light", "grey", "dark"), 3, on_bad_image="stop")
    assert samples.labels == [0, 2, 0]
    assert len(open_evaluation("class", source, None, 2, on_bad_image="stop")) == 3


def test_a_task_trains_on_a_format_from_outside(formats, tmp_path):
    register(GREYS)
    task = Classify(data=str(write_greys(tmp_path)), model="minifocal_32", augment="none")
    data = task.datasets(0)
    model = task.build_model(data)
    batch = task.collate(model.spec, [task.example(model.spec, s, train=True) for s in data.train], train=True)
    task.loss(model, batch)["loss"].backward()
    assert len(task.evaluation_data(model.spec)) == 3


class Dots:
    """Reads black images with one white pixel, the object."""

    def name(self, entry):
        return f"dot {entry}"

    def read(self, entry):
        pixels = np.zeros((4, 6, 3), np.uint8)
        pixels[entry % 4, entry % 6] = 255
        mask = torch.from_numpy(pixels[None, ..., 0] > 0)
        box = torch.tensor([[entry % 6, entry % 4, entry % 6 + 1, entry % 4 + 1]]).float()
        one, label = torch.ones(1), torch.tensor([entry % 2])
        return DenseSample(Image.fromarray(pixels), f"dot {entry}", box, label, mask, one < 0, one, None, entry)


def test_a_dense_format_from_outside(formats):
    def find(source, request):
        assert (request.kind, request.masks) == ("detection", False)
        request.problems.add("dots of no color, left out", "dot 9")
        split = Split(reader=Dots(), entries=range(9), classes=("even", "odd"), things=(True, True))
        return Openers(lambda: split, None)

    register(Format(name="dots", kinds=("detection",), words="the dots", fits=None, open=find))
    data = open_data("detection", "dots", masks=False, **TRAIN)
    assert data.description == "dots: 2 classes, 7 training and 2 validation images (set aside, share 0.25, seed 0)"
    samples = open_evaluation("detection", "dots", ("odd", "even"), 2, on_bad_image="stop", masks=False)
    assert [samples[i].labels.item() for i in range(4)] == [1, 0, 1, 0]
    with pytest.raises(UserError, match="dots has broken annotations: 1 dot of no color, left out"):
        open_data("detection", "dots", masks=False, on_bad_annotation="stop", **TRAIN)
    assert open_data("detection", None, **TRAIN).description.startswith("digit_scenes"), "the library's own stays"


def test_two_formats_fit(formats, tmp_path, caplog):
    """The first row reads it, and one sentence tells the other."""
    write_coco(tmp_path, 2, 2)
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: train2017\n")
    with caplog.at_level(logging.WARNING):
        row, _ = find_format("detection", str(tmp_path))
    assert row.name == "yolo"
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path} is read as yolo; it could also be coco: a COCO folder")
    caplog.clear()
    fill(tmp_path / "classes", a=1, b=1)
    write_greys(tmp_path / "classes")
    register(GREYS)
    assert find_format("class", str(tmp_path / "classes"))[0] is GREYS, "formats from outside are tried first"
    assert "could also be folder" in caplog.text


def test_one_format_fits(tmp_path, caplog):
    """No sentence where there is no choice."""
    fill(tmp_path / "classes", a=1, b=1)
    (tmp_path / "parquet" / "data").mkdir(parents=True)
    (tmp_path / "parquet" / "data" / "train-0.parquet").touch()
    for split in ("train", "val"):
        (tmp_path / "tars" / split).mkdir(parents=True)
        (tmp_path / "tars" / split / "0.tar").write_bytes(png(0))
    write_coco(tmp_path / "coco", 1, 1)
    for kind, source, name in (
        ("class", "classes", "folder"),
        ("class", "parquet", "datasets"),
        ("class", "tars", "shards"),
        ("class", "tars/*/0.tar", "shards"),
        ("class", "coco/annotations", "folder"),
        ("detection", "coco", "coco"),
        ("detection", "coco/annotations/instances_val2017.json", "coco"),
        ("panoptic", "coco", "coco_panoptic"),
        ("semantic", "coco", "label_maps"),
    ):
        assert find_format(kind, str(tmp_path / source))[0].name == name
    assert find_format("class", "hf:org/name")[0].name == find_format("class", "no-such-org/name")[0].name == "hub"
    assert caplog.messages == []


def test_what_is_not_there(formats, tmp_path):
    with pytest.raises(UserError, match=r"There is no kind of data 'boxes'; known: class, detection"):
        find_format("boxes", None)
    message = r"There is no .*x \(known: a YOLO data.yaml.*; a COCO folder .*\); .* Leave --data out for the scenes of"
    with pytest.raises(UserError, match=message):
        find_format("detection", str(tmp_path / "x"))
    register(Format(name="ours", kinds=("ours",), words="x", fits=is_greys, open=find_greys))
    with pytest.raises(UserError, match="There is no ours data inside the package: give --data"):
        find_format("ours", None)


def test_every_row_is_told():
    """Names are different, every kind has data inside the package, and words are one phrase."""
    assert len({row.name for row in FORMATS}) == len(FORMATS)
    for kind in ("class", "detection", "semantic", "panoptic"):
        assert find_format(kind, None)[0].fits is None
    for row in FORMATS:
        assert row.words
        assert not row.words.endswith(".")
