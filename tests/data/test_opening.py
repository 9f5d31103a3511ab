"""Opening for evaluation: labels follow the names of a model."""

import json
import logging
import os

import pytest

from class_files import fill, open_classes, open_everything, paths, refuse
from focalnet.data import open_data, open_evaluation
from focalnet.data.problems import Finding
from focalnet.errors import UserError

SAFE = {"on_bad_image": "stop", "on_bad_annotation": "stop"}
BOTH = {**SAFE, "val_fraction": 0.25, "seed": 0}
DIGITS = tuple("0123456789")


def test_evaluation_takes_the_classes_of_the_model(tmp_path):
    fill(tmp_path / "flat", b=2, a=1)
    samples = open_everything(tmp_path / "flat", ("z", "b", "a"))
    assert samples.labels == [2, 1, 1]
    assert samples.classes == ("z", "b", "a")
    fill(tmp_path / "split" / "train", b=2, a=2)
    fill(tmp_path / "split" / "val", b=1)
    assert open_everything(tmp_path / "split", ("a", "b")).labels == [1]
    fill(tmp_path / "split" / "val", a=1)
    assert len(open_everything(tmp_path / "split", ("a", "b"))) == 2
    with pytest.raises(UserError, match="has classes that the model does not have: b; known: a, x"):
        open_everything(tmp_path / "split", ("a", "x"))
    with pytest.raises(UserError, match="has classes that the model does not have: a, b; known: x, y, z"):
        open_everything(tmp_path / "split", ("x", "y", "z"))
    assert len(open_everything(None, tuple("9876543210"))) == 445


def test_evaluation_by_the_order_of_the_classes(tmp_path, caplog):
    fill(tmp_path, n02=2, n01=1)
    assert open_everything(tmp_path, None, 2).labels == [0, 1, 1]
    assert caplog.records == []
    assert open_everything(tmp_path, ("tench", "crane")).labels == [0, 1, 1]
    assert "no class is called as in the model; taken for the same 2 in order" in caplog.text
    with pytest.raises(UserError, match="has 2 classes, the model 5 without names"):
        open_everything(tmp_path, None, 5)


def test_evaluation_follows_the_model():
    names = DIGITS[::-1]
    samples = open_evaluation("detection", None, names, 10, **SAFE)
    plain = open_evaluation("detection", None, None, 10, **SAFE)
    assert len(samples) == 200
    assert [names[i] for i in samples[0].labels] == [DIGITS[i] for i in plain[0].labels]
    with pytest.raises(UserError, match="digit_scenes has 10 classes, the model 7 without names"):
        open_evaluation("detection", None, None, 7, **SAFE)
    with pytest.raises(UserError, match="digit_scenes has classes that the model does not have: 9; known: 0, 1"):
        open_evaluation("detection", None, DIGITS[:9], 9, **SAFE)


def test_other_names_count_in_order(caplog):
    names = tuple(f"digit {name}" for name in DIGITS)
    with caplog.at_level(logging.WARNING):
        samples = open_evaluation("detection", None, names, 10, **SAFE)
    assert "no class is called as in the model" in caplog.text
    assert samples.classes == DIGITS


def test_sources_that_are_not_there(tmp_path):
    for kind in ("detection", "semantic", "panoptic"):
        with pytest.raises(
            UserError,
            match=r"There is no .*nowhere .*nearest folder that exists is .* Leave --data out for the scenes of digits",
        ):
            open_data(kind, str(tmp_path / "nowhere"), **BOTH)


def test_no_file_is_on_two_splits(tmp_path, caplog):
    fill(tmp_path / "train", a=2, b=2)
    fill(tmp_path / "val", a=2, b=2)
    link = tmp_path / "val" / "a" / "link.png"
    link.symlink_to(tmp_path / "train" / "a" / "0.png")
    data = open_classes(tmp_path)
    kind = "images of the training split, left out of validation"
    assert caplog.messages == [f"{tmp_path}: 1 {kind.replace('images', 'image', 1)} (first: {link})"]
    assert data.findings[1].found == (Finding(kind, 1, str(link), "images", broken=False),)
    assert len(data.val) == data.findings[1].images == 4
    for index in range(2):
        (tmp_path / "val" / "b" / f"more{index}.png").hardlink_to(tmp_path / "train" / "b" / f"{index}.png")
        (tmp_path / "val" / "b" / f"{index}.png").unlink()
    refuse(tmp_path, "3 of 5 validation images are in the training split too .first: .*link.png")


def test_copies_do_not_lie_on_both_sides_of_what_is_set_aside(tmp_path):
    fill(tmp_path, a=20, b=20)
    for index in range(6):
        (tmp_path / "a" / f"again{index}.png").symlink_to(tmp_path / "a" / f"{index}.png")
    data = open_classes(tmp_path, val_fraction=0.5)
    resolved = [{os.path.realpath(path) for path in paths(samples)} for samples in (data.train, data.val)]
    assert resolved[0].isdisjoint(resolved[1])
    assert data.findings[1].lost("images") == 46 - len(data.train) - len(data.val) > 0


def test_reasons_come_before_refusals(tmp_path):
    """What was counted is told where an opener gives up too."""
    content = {"images": [{"id": 1}, {"id": 2, "file_name": "gone.png"}], "annotations": [], "categories": []}
    (tmp_path / "x.json").write_text(json.dumps({**content, "categories": [{"id": 1, "name": "cat"}]}))
    with pytest.raises(UserError) as caught:
        open_data("detection", str(tmp_path / "x.json"), **BOTH)
    assert str(caught.value).startswith(
        f"{tmp_path}/x.json: 1 image without id or file_name, left out (first: {{'id': 1}}); "
        f"1 missing image, left out (first: gone.png). No image of "
    )
