"""Recorded sizes beside the heads of the files, and what EXIF turns."""

import pytest
import torch
from PIL import Image

from focalnet.data import sizes
from focalnet.data.problems import Problems, whole
from focalnet.data.sizes import Fit, fit_sizes, read_size
from focalnet.inputs.image import ROTATED, head_of, load_image
from focalnet.structures import BACK, TURNS, turn_boxes, turn_pixels


def image(path, orientation=1, size=(8, 6)):
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.new("RGB", size).save(path, exif=exif)
    return str(path)


@pytest.mark.parametrize("value", [96, 96.0, "96", " 96.0 ", "9.6e1"])
def test_numbers_in_any_spelling(value):
    assert whole(value) == 96
    assert read_size(value, 64) == (96, 64)


@pytest.mark.parametrize(
    "value", [None, True, 0, -3, 1.5, "x", "", [], {}, float("nan"), float("inf"), 10**400, "9" * 9999, 1e12]
)
def test_what_is_no_size(value):
    assert read_size(value, 64) is None


def fit(files, recorded, **options):
    problems = Problems()
    return fit_sizes(files, recorded, problems, **options), [(one.count, one.lost) for one in problems.found]


def test_sizes_are_compared(tmp_path):
    files = [image(tmp_path / f"{number}.jpg") for number in range(3)]
    (tmp_path / "2.jpg").write_bytes(b"no image")
    assert fit(files, [(6, 8), (9, 8), (5, 5)]) == ([Fit((6, 8)), None, Fit((5, 5))], [(1, "images")])
    assert fit(files, [None, (6, 8), None]) == ([Fit((6, 8)), Fit((6, 8)), None], [(1, "images")])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotations_of_the_bitmap_as_it_lies(tmp_path, orientation):
    """One that a size tells is enough for squares and half turns."""
    files = [image(tmp_path / "a.jpg", 6), image(tmp_path / "b.jpg", orientation), image(tmp_path / "c.jpg", 6, (7, 7))]
    fits, told = fit(files, [(6, 8), (6, 8), (7, 7)])
    assert fits == [Fit((6, 8), 6), Fit((6, 8), orientation), Fit((7, 7), 6)]
    assert told == [(2 + (orientation > 1), None)]
    for file, one in zip(files, fits, strict=True):
        assert one.upright == load_image(file).size[::-1]


def test_upright_annotations(tmp_path):
    files = [image(tmp_path / f"{orientation}.jpg", orientation) for orientation in range(1, 9)]
    upright = [(8, 6) if orientation in ROTATED else (6, 8) for orientation in range(1, 9)]
    assert fit(files, upright) == ([Fit(size) for size in upright], [])
    assert fit(files, [None] * 8)[0] == [Fit(size) for size in upright]
    square = [image(tmp_path / "square.jpg", 6, (7, 7)), files[5]]
    assert fit(square, [(7, 7), (8, 6)]) == ([Fit((7, 7)), Fit((8, 6))], [])
    assert fit([files[2]], [(6, 8)]) == ([Fit((6, 8))], []), "half a turn tells nothing by itself"


def test_boxes_tell_what_sizes_do_not(tmp_path):
    """Label Studio writes the size of the bitmap as it lies, with the boxes of the upright image."""
    files = [image(tmp_path / "a.jpg", 6), image(tmp_path / "b.jpg", 6)]
    fits, told = fit(files, [(6, 8)] * 2, reach=lambda index: (7.9, 5.0) if index else None)
    assert fits == [Fit((8, 6))] * 2
    assert told == [(2, None)]
    assert fit(files, [(6, 8)] * 2, reach=lambda index: (5.0, 7.9))[0] == [Fit((6, 8), 6)] * 2


def test_some_heads_of_many(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "LOOK_AT_ALL", 4)
    monkeypatch.setattr(sizes, "SAMPLE", 2)
    files = [image(tmp_path / f"{number}.png") for number in range(6)]
    looked = []
    monkeypatch.setattr(sizes, "head_of", lambda path: looked.append(path) or head_of(path))
    assert fit(files, [(6, 8)] * 6) == ([Fit((6, 8))] * 6, [])
    assert len(looked) == 2
    assert fit(files, [(6, 8), (6, 8), (6, 9), (6, 9), (6, 8), (6, 8)])[1] == [(2, "images")], (
        "one is wrong: all are read"
    )


@pytest.mark.parametrize("orientation", TURNS)
def test_turns_are_those_of_pillow(tmp_path, orientation):
    pixels = torch.arange(48, dtype=torch.uint8).reshape(6, 8)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(pixels.numpy()).save(tmp_path / "x.png", exif=exif)
    upright = torch.tensor(list(load_image(tmp_path / "x.png").convert("L").tobytes()))
    turned = turn_pixels(pixels, orientation)
    assert torch.equal(turned.flatten(), upright)
    boxes = torch.tensor([[1.0, 2, 4, 3], [0, 0, 8, 6]])
    found = turn_boxes(boxes, (6, 8), orientation)
    left, top, right, bottom = found[0].int().tolist()
    assert sorted(turned[top:bottom, left:right].flatten().tolist()) == pixels[2:3, 1:4].flatten().tolist()
    back = BACK.get(orientation, orientation)
    assert torch.equal(turn_pixels(turned, back), pixels)
    assert torch.equal(turn_boxes(found, tuple(turned.shape), back), boxes)
