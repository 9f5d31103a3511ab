"""Scenes of digits, painted on the fly."""

import pickle

import numpy as np
import torch

from focalnet.data import DenseSample, open_data
from focalnet.data.formats.digit_scenes import VISIBLE, open_digit_scenes

SAFE = {"on_bad_image": "stop", "on_bad_annotation": "stop"}
BOTH = {**SAFE, "val_fraction": 0.25, "seed": 0}
DIGITS = tuple("0123456789")


def same(one: DenseSample, other: DenseSample) -> bool:
    return (
        np.array_equal(np.asarray(one.image), np.asarray(other.image))
        and torch.equal(one.boxes, other.boxes)
        and torch.equal(one.labels, other.labels)
    )


def test_a_digit_scene_is_exact():
    data = open_data("detection", None, **BOTH)
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
    """A digit is painted in one color, so the pixels of its mask differ from the ground: a mask is no mere claim."""
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
    objects, classes = open_data("detection", None, **BOTH).val, open_data("semantic", None, **BOTH).val
    segments = open_data("panoptic", None, **BOTH).val
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
