"""Colors: told apart, and text that can be read on them."""

import numpy as np
import pytest
from skimage.color import rgb2lab, rgb2xyz

from focalnet.visualize.style import class_color, ink_on


def lab(colors):
    return rgb2lab(np.array(colors)[None] / 255)[0]


def test_colors_are_told_apart():
    """By CIE76 distance, of which 2 can just be seen: the first twenty all, later ones from their neighbours."""
    colors = lab([class_color(index) for index in range(400)])
    far = np.linalg.norm(colors[:20, None] - colors[None, :20], axis=-1) + 1e3 * np.eye(20)
    assert far.min() > 15
    for step in (1, 2, 3):
        assert np.linalg.norm(colors[step:] - colors[:-step], axis=-1).min() > 20
    assert len({class_color(index) for index in range(400)}) > 380
    assert all(isinstance(part, int) and 0 <= part <= 255 for index in range(400) for part in class_color(index))


def test_many_classes_have_colors_of_their_own():
    colors = np.array([class_color(index) for index in range(150)])
    close = (np.abs(colors[:, None] - colors).max(-1) <= 8).sum(1) > 1
    assert close.sum() <= 2


@pytest.mark.parametrize("index", range(40))
def test_ink_is_read_on_every_color(index):
    """The contrast of the web guidelines, where 3 is asked of large text."""

    def luminance(color):
        return rgb2xyz(np.array(color)[None, None] / 255)[0, 0, 1]

    bright, dark = sorted((luminance(class_color(index)), luminance(ink_on(class_color(index)))))[::-1]
    assert (bright + 0.05) / (dark + 0.05) >= 3
