"""Scenes: the digits painted on the fly, the data set class, and labels that follow a model's names."""

import logging
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from focalnet import labels
from focalnet.data.dense import Complaints, Scene, Scenes, Side
from focalnet.data.dense_sources import open_scene_evaluation, open_scenes
from focalnet.data.formats.digit_scenes import VISIBLE, open_digit_scenes
from focalnet.errors import UserError
from focalnet.inputs.image import BadImageError
from focalnet.structures import masks_to_boxes

SAFE = {"on_bad_image": "stop", "on_bad_annotation": "stop"}
BOTH = {**SAFE, "val_fraction": 0.25, "seed": 0}
DIGITS = tuple("0123456789")


class Painted:
    """Reads grey scenes whose one object has label `where`; scene 2 is broken."""

    def name(self, where: int) -> str:
        return f"scene {where}"

    def read(self, where: int) -> Scene:
        if where == 2:
            raise BadImageError("scene 2 is broken.")
        semantic = torch.full((3, 5), where, dtype=torch.uint8)
        semantic[0] = 255
        box, one = torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1)
        return Scene(
            Image.new("RGB", (5, 3)), str(where), box, torch.tensor([where]), None, one < 0, one, semantic, where
        )


def painted(count: int = 4, used: frozenset | None = None) -> Side:
    return Side(Painted(), range(count), ("a", "b", "c", "d"), (True, True, False, False), [(3, 5)] * count, used)


def same(one: Scene, other: Scene) -> bool:
    return (
        np.array_equal(np.asarray(one.image), np.asarray(other.image))
        and torch.equal(one.boxes, other.boxes)
        and torch.equal(one.labels, other.labels)
    )


# --- scenes of digits


def test_a_digit_scene_is_exact():
    data = open_scenes("detection", None, **BOTH)
    assert data.classes == DIGITS == data.train.classes == data.val.classes
    assert data.description == "digit_scenes: 10 classes, 4000 training and 200 validation images (its own split)"
    assert len(data.train) == len(data.train.sizes) == 4000
    seen, counts = set(), set()
    for index in range(40):
        scene = data.train[index]
        assert scene.image.mode == "RGB"
        assert scene.image.size == (128, 128)
        assert scene.masks.sum(0).max() == 1, "the visible parts do not overlap"
        assert torch.equal(scene.area, scene.masks.sum((1, 2)).float())
        assert not scene.crowd.any()
        for mask, box in zip(scene.masks.numpy(), scene.boxes.tolist(), strict=True):
            rows, columns = np.nonzero(mask)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert 10 <= max(box[3] - box[1], box[2] - box[0]) <= 56
        seen |= set(scene.labels.tolist())
        counts.add(len(scene.labels))
    assert seen == set(range(10))
    assert counts == {3, 4, 5, 6, 7, 8}


def test_digits_stay_visible():
    """A digit is painted in one colour, so the pixels of its mask differ from the ground: a mask is no mere claim."""
    train, _ = open_digit_scenes()
    assert VISIBLE >= 0.5
    for index in range(10):
        scene = train.reader.read(index)
        pixels = torch.from_numpy(np.asarray(scene.image).astype(np.float32)).mean(2)
        for mask, box in zip(scene.masks, scene.boxes.int().tolist(), strict=True):
            around = torch.zeros_like(mask)
            around[max(box[1] - 4, 0) : box[3] + 4, max(box[0] - 4, 0) : box[2] + 4] = True
            ground = pixels[around & ~scene.masks.any(0)]
            assert (pixels[mask].mean() - ground.mean()).abs() > 8


def test_digit_scenes_depend_on_nothing_but_their_number():
    train, val = open_digit_scenes()
    first = train.reader.read(7)
    torch.manual_seed(1)
    np.random.default_rng(1).random()
    again, _ = open_digit_scenes()
    assert same(again.reader.read(7), first)
    assert same(pickle.loads(pickle.dumps(train.reader)).read(7), first)
    assert not same(train.reader.read(8), first)
    assert not same(val.reader.read(7), first)


def test_held_out_digits_are_never_trained_on():
    train, val = open_digit_scenes()
    seen = {digit.tobytes() for digit in train.reader.digits}
    held_out = [digit.tobytes() for digit in val.reader.digits]
    assert len(train.reader.digits) == 1352
    assert len(held_out) == 445
    assert not seen & set(held_out)


def test_the_three_kinds_of_digit_scenes_agree():
    objects, classes = open_scenes("detection", None, **BOTH).val, open_scenes("semantic", None, **BOTH).val
    segments = open_scenes("panoptic", None, **BOTH).val
    assert classes.classes == ("background", *DIGITS)
    assert segments.classes == (*DIGITS, "ground")
    assert segments.things == (True,) * 10 + (False,)
    assert classes.things[0] is False
    for index in range(5):
        one, two, three = objects[index], classes[index], segments[index]
        assert np.array_equal(np.asarray(one.image), np.asarray(two.image))
        assert torch.equal(three.masks[:-1], one.masks)
        assert torch.equal(three.boxes[:-1], one.boxes)
        assert three.labels.tolist() == [*one.labels.tolist(), 10]
        assert (three.masks.sum(0) == 1).all(), "nothing is void"
        painted = torch.zeros(128, 128, dtype=torch.uint8)
        for mask, label in zip(one.masks, one.labels, strict=True):
            painted[mask] = label.to(torch.uint8) + 1
        assert torch.equal(two.semantic, painted)
        assert torch.equal(three.semantic, torch.where(painted == 0, 10, painted - 1))
        assert two.masks is None
        assert len(two.labels) == 0
        assert one.semantic is None


# --- the data set class


def test_labels_follow_the_names():
    scenes = Scenes(painted(used=frozenset("ab")), ("b", "x", "a"), "stop")
    assert scenes.classes == ("b", "x", "a")
    assert scenes.things == (True, True, True)
    assert [scenes[index].labels.item() for index in (0, 1)] == [2, 0]
    assert scenes[0].semantic.unique().tolist() == [2, 255]
    assert scenes[1].semantic.unique().tolist() == [0, 255]
    assert Scenes(painted(), ("d", "c", "b", "a"), "stop").things == (False, False, True, True)
    assert Scenes(painted(), None, "stop")[3].labels.item() == 3


def test_a_bad_picture_stops_or_is_replaced_and_named():
    with pytest.raises(BadImageError, match=r"scene 2 is broken. To go on without it: --on-bad-image skip."):
        Scenes(painted(), None, "stop")[2]
    scenes = Scenes(painted(), None, "skip")
    assert (scenes[2].image_id, scenes[2].skipped) == (3, ("scene 2",))
    assert scenes[1].skipped == ()
    assert scenes[-1].image_id == 3
    with pytest.raises(IndexError):
        scenes[4]
    broken = painted().take([2, 2])
    with pytest.raises(BadImageError, match="None of the 2 images can be read"):
        Scenes(broken, None, "skip")[0]


def test_sides_can_be_taken_from():
    side = painted().take([3, 0])
    assert list(side.where) == [3, 0]
    assert side.sizes == [(3, 5)] * 2


def test_masks_to_boxes():
    masks = torch.zeros(4, 5, 7, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 4, 6] = masks[2, 1, 2] = masks[2, 3, 5] = True
    assert masks_to_boxes(masks).tolist() == [[0, 0, 1, 1], [6, 4, 7, 5], [2, 1, 6, 4], [0, 0, 0, 0]]
    assert masks_to_boxes(masks[:0]).shape == (0, 4)


def test_complaints_are_one_line(caplog):
    complaints = Complaints()
    complaints.settle("here", "stop")
    for example in ("x", "y"):
        complaints.add("things, left out", example)
    complaints.add("others, clipped", "z")
    with caplog.at_level(logging.WARNING):
        complaints.settle("here", "skip")
    (line,) = caplog.messages
    assert line == "here: broken annotations: 2 things, left out (first: x); 1 others, clipped (first: z)"
    with pytest.raises(
        UserError, match=r"here has broken annotations: 2 things.*Mend them, or --on-bad-annotation skip"
    ):
        complaints.settle("here", "stop")


# --- measuring a model on other data than its own


def test_evaluation_follows_the_model():
    names = DIGITS[::-1]
    scenes = open_scene_evaluation("detection", None, names, 10, **SAFE)
    plain = open_scene_evaluation("detection", None, None, 10, **SAFE)
    assert len(scenes) == 200
    assert [names[i] for i in scenes[0].labels] == [DIGITS[i] for i in plain[0].labels]
    with pytest.raises(UserError, match="digit_scenes has 10 classes, the model 7 without names"):
        open_scene_evaluation("detection", None, None, 7, **SAFE)
    with pytest.raises(UserError, match="digit_scenes has classes that the model does not have: 9; known: 0, 1"):
        open_scene_evaluation("detection", None, DIGITS[:9], 9, **SAFE)


def test_other_names_count_in_order(caplog):
    names = tuple(f"digit {name}" for name in DIGITS)
    with caplog.at_level(logging.WARNING):
        scenes = open_scene_evaluation("detection", None, names, 10, **SAFE)
    assert "no class is called as in the model" in caplog.text
    assert scenes.classes == DIGITS


def test_sources_that_are_not_there(tmp_path):
    for kind in ("detection", "semantic", "panoptic"):
        with pytest.raises(UserError, match=r"There is no .*nowhere: check the path"):
            open_scenes(kind, str(tmp_path / "nowhere"), **BOTH)


def test_class_lists():
    assert [len(names) for names in (labels.COCO_CLASSES, labels.COCO_IDS, labels.COCO_RAW_CLASSES)] == [80, 80, 91]
    assert len(labels.COCO_PANOPTIC_CLASSES) == len(labels.COCO_PANOPTIC_THINGS) == 133
    assert sum(labels.COCO_PANOPTIC_THINGS) == 80
    assert (len(labels.ADE20K_CLASSES), len(labels.CITYSCAPES_CLASSES)) == (150, 19)
    for names in (labels.COCO_RAW_CLASSES, labels.COCO_PANOPTIC_CLASSES, labels.ADE20K_CLASSES):
        assert len(set(names)) == len(names)
    from torchvision.models._meta import _COCO_CATEGORIES  # the raw ids, as torchvision's detectors have them

    for number, name in zip(labels.COCO_IDS, labels.COCO_CLASSES, strict=True):
        assert labels.COCO_RAW_CLASSES[number] == _COCO_CATEGORIES[number] == name
