"""Drawings on images: what is where, and that no text is covered or cut off."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from focalnet.visualize import draw
from focalnet.visualize.draw import annotate, draw_detections, draw_panoptic, draw_semantic, side_by_side
from focalnet.visualize.style import BACKGROUND, class_color

GREY = (120, 120, 120)


def grey(width=128, height=128):
    return Image.new("RGB", (width, height), GREY)


def test_a_box_is_where_it_should_be():
    """128 pixels become 384; the line of a box runs along its corners."""
    drawn = draw_detections(grey(), torch.tensor([[40.0, 50, 80, 100]]), ["cat"], [0.876], labels=[3])
    assert drawn.size == (384, 384)
    pixels = np.asarray(drawn)
    assert tuple(pixels[200, 120]) == tuple(pixels[200, 240]) == class_color(3)
    assert tuple(pixels[150, 200]) == tuple(pixels[300, 200]) == class_color(3)
    assert tuple(pixels[225, 180]) == tuple(pixels[10, 10]) == GREY


def test_the_image_stays():
    image = Image.new("RGB", (500, 600), GREY)
    drawn = draw_detections(image, [[5, 5, 50, 50]], ["cat"], [0.5])
    assert drawn.size == image.size
    assert image.getcolors() == [(300_000, GREY)]
    gray = draw_detections(Image.new("L", (500, 600), 120), [[5, 5, 50, 50]], ["cat"], [0.5])
    assert np.array_equal(np.asarray(gray), np.asarray(drawn))


def test_names_choose_colors_without_labels():
    one, two = (draw_detections(grey(), [[9, 9, 99, 99]], [name]) for name in ("cat", "cat"))
    assert one.tobytes() == two.tobytes()
    assert draw_detections(grey(), [[9, 9, 99, 99]], ["dog"]).tobytes() != one.tobytes()


def test_a_mask_is_translucent_with_a_contour():
    mask = np.zeros((1, 128, 128), bool)
    mask[0, 60:90, 20:50] = True
    pixels = np.asarray(draw_detections(grey(), [[0, 0, 5, 5]], ["x"], None, mask, labels=[0]))
    mixed = 0.4 * np.array(class_color(0)) + 0.6 * np.array(GREY)
    np.testing.assert_allclose(pixels[225, 100], mixed, atol=2)
    np.testing.assert_allclose(pixels[180, 100], class_color(0), atol=1)
    np.testing.assert_allclose(pixels[225, 149], class_color(0), atol=1)
    assert tuple(pixels[225, 151]) == tuple(pixels[178, 100]) == GREY


def test_a_mask_at_the_border_and_an_empty_one():
    masks = torch.zeros(2, 128, 128, dtype=torch.bool)
    masks[0] = True
    pixels = np.asarray(draw_detections(grey(), [[0, 0, 127, 127]] * 2, ["x", "y"], None, masks, labels=[0, 1]))
    np.testing.assert_allclose(pixels[300, 300], 0.4 * np.array(class_color(0)) + 0.6 * np.array(GREY), atol=2)


def test_no_object():
    for boxes in (torch.zeros(0, 4), []):
        drawn = draw_detections(grey(), boxes, [], [], np.zeros((0, 128, 128), bool), labels=[])
        assert drawn.getcolors() == [(384 * 384, GREY)]


def random_plates(seed, size):
    random = np.random.default_rng(seed)
    corner = random.uniform(-20, max(size), (40, 2))
    boxes = np.concatenate([corner, corner + random.uniform(1, 200, (40, 2))], 1)
    frames = [tuple(row) for row in np.clip(boxes, 0, [size[0] - 1, size[1] - 1] * 2).astype(int).tolist()]
    names = ["é" * int(random.integers(1, 80)) if index % 5 == 0 else f"class {index} 87%" for index in range(40)]
    return Image.new("RGB", size, GREY), frames, names


@pytest.mark.parametrize("size", [(480, 480), (1000, 700), (97, 640), (640, 60)])
@pytest.mark.parametrize("seed", range(3))
def test_plates_neither_overlap_nor_leave_the_image(size, seed):
    canvas, frames, names = random_plates(seed, size)
    plates = draw._draw_plates(canvas, frames, names, [class_color(index) for index in range(40)])
    assert plates
    for x1, y1, x2, y2 in plates:
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
    for (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) in itertools.combinations(plates, 2):
        assert ax2 <= bx1 or bx2 <= ax1 or ay2 <= by1 or by2 <= ay1


def test_the_text_lies_on_its_plate():
    """Nothing but grey outside the plate, ink within it, a margin of the plate's color around the ink."""
    canvas = Image.new("RGB", (480, 480), GREY)
    (x1, y1, x2, y2) = draw._draw_plates(canvas, [(100, 100, 300, 300)], ["Äpfel, Quitten jg"], [class_color(3)])[0]
    pixels = np.asarray(canvas)
    outside = pixels.copy()
    outside[y1:y2, x1:x2] = GREY
    assert (outside == GREY).all()
    plate = pixels[y1:y2, x1:x2]
    ink = (plate != class_color(3)).any(-1)
    assert ink.sum() > 100
    assert not ink[0].any()
    assert not ink[-1].any()
    assert not ink[:, 0].any()
    assert not ink[:, -1].any()


def test_semantic():
    labels = np.full((60, 80), 255)
    labels[:30, :40], labels[30:, :40] = 1, 2
    labels[5:8, 60:63] = 0
    drawn = draw_semantic(grey(80, 60), torch.tensor(labels), ["few", "one", "two", "absent"])
    pixels = np.asarray(drawn)
    assert drawn.width == 640
    assert drawn.height > 480
    for (y, x), label in {(100, 100): 1, (400, 100): 2}.items():
        np.testing.assert_allclose(pixels[y, x], 0.55 * np.array(class_color(label)) + 0.45 * np.array(GREY), atol=1)
    assert tuple(pixels[400, 500]) == GREY
    legend = {tuple(color) for color in pixels[480:].reshape(-1, 3).tolist()}
    assert {class_color(0), class_color(1), class_color(2)} <= legend
    assert class_color(3) not in legend


def test_semantic_of_nothing():
    assert draw_semantic(grey(), np.full((128, 128), 255), ["a"]).getcolors() == [(384 * 384, GREY)]


@pytest.mark.parametrize("size", [(20_000, 1), (3, 9_000), (700, 5)])
def test_a_thin_image_is_not_enlarged_beyond_bounds(size):
    """A strip of 12,000 x 8 pixels was enlarged to 720,000 x 480."""
    labels = np.zeros(size[::-1], np.uint8)
    drawn = draw_semantic(grey(*size), labels, ["a class with a name"])
    assert max(drawn.size) <= max(4 * draw.READABLE, max(size) + 100)
    legend = np.asarray(drawn)[size[1] :]
    assert (legend == class_color(0)).all(-1).any()
    assert drawn.width >= draw.READABLE // 2


def test_a_long_legend_stays_inside():
    labels = np.arange(128 * 128).reshape(128, 128) % 60
    drawn = draw_semantic(grey(), labels, [f"a rather long name of class {index}" * 3 for index in range(60)])
    pixels = np.asarray(drawn)
    assert (pixels[384:, -3:] == BACKGROUND).all()
    assert (pixels[-2:] == BACKGROUND).all()
    swatches = {tuple(color) for color in pixels[384:].reshape(-1, 3).tolist()}
    assert sum(class_color(index) in swatches for index in range(60)) == draw.MOST_NAMED


def test_panoptic_segments_of_one_class_differ():
    ids = np.zeros((128, 128), int)
    ids[:40], ids[40:80] = 7_000_001, 3
    segments = [{"id": 7_000_001, "label": 1}, {"id": 3, "label": 1}, {"id": 99, "label": 0}]
    pixels = np.asarray(draw_panoptic(grey(), ids, segments, ["sky", "cow"]))
    first, second, none = pixels[60, 60], pixels[180, 60], pixels[330, 60]
    np.testing.assert_allclose(first, 0.55 * np.array(class_color(1)) + 0.45 * np.array(GREY), atol=1)
    assert np.abs(first.astype(int) - second).max() > 20
    assert tuple(none) == GREY
    assert (pixels[119:121, 60] > 160).all(-1).any()  # the line between
    legend = {tuple(color) for color in pixels[384:].reshape(-1, 3).tolist()}
    assert class_color(1) in legend
    assert class_color(0) not in legend  # it has no pixel
    ids[80:] = 3
    full = draw_panoptic(grey(), ids, segments, ["sky", "cow"])
    assert pixels.shape[1] == full.width
    inked, without = ((sheet[384:] != BACKGROUND).any(-1).sum() for sheet in (pixels, np.asarray(full)))
    assert inked > without + 100  # the words for pixels without a segment


def test_side_by_side_aligns_the_tops():
    left, right = Image.new("RGB", (300, 200), (255, 0, 0)), Image.new("RGB", (300, 260), (0, 0, 255))
    pixels = np.asarray(side_by_side(left, right, ("truth", "a prediction whose title does not fit" * 3)))
    red, blue = (pixels == (255, 0, 0)).all(-1), (pixels == (0, 0, 255)).all(-1)
    assert red.sum() == 300 * 200
    assert blue.sum() == 300 * 260
    assert np.flatnonzero(red.any(1))[0] == np.flatnonzero(blue.any(1))[0]
    other = side_by_side(left, right.resize((30, 26)), ("a", "b"))
    assert other.size == pixels.shape[1::-1]


def test_drawings_need_pillow_alone():
    script = (
        "import sys; from PIL import Image; from focalnet.visualize.draw import draw_detections\n"
        "from focalnet.visualize.plots import mosaic\n"
        "mosaic([draw_detections(Image.new('RGB', (64, 64)), [[1, 2, 30, 40]], ['a'], [0.5])])\n"
        "assert 'matplotlib' not in sys.modules and 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_annotate():
    """The image is unchanged over a strip with ink, and small ones grow by a whole factor."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    made = annotate(Image.fromarray(noise), ["größer  93.1%", "and a second line that is far too long for this"])
    assert made.size[0] == 12 * 28
    top = made.crop((0, 0, 12 * 28, 8 * 28)).resize((12, 8), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(np.asarray(top), noise)
    strip = made.crop((0, 8 * 28, *made.size))
    background = Image.new("RGB", strip.size, BACKGROUND)
    left, _, right, bottom = ImageChops.difference(strip, background).getbbox()
    assert 0 < left < right < strip.width
    assert bottom < strip.height
    assert annotate(Image.new("RGB", (700, 500)), ["x"]).width == 700
