"""Panels of an explanation: what is on them, that nothing overlaps, and that each map lies over the image."""

import numpy as np
import pytest
from figure_checks import assert_no_overlap

from focalnet.visualize.explanation import Explanation, explanation_panel, gate_panel, kernel_panel, modulator_panel

PNG = b"\x89PNG\r\n\x1a\n"


def explanation(*, stages=4, levels=3, shape=(64, 96), smallest=(2, 3), grad_cam=True):
    random = np.random.default_rng(0)
    return Explanation(
        image=random.random((*shape, 3)),
        kernels=[[random.normal(size=(3 + 2 * k, 3 + 2 * k)) for k in range(levels)] for _ in range(stages)],
        gates=random.normal(size=(levels + 1, *smallest)),
        modulators=[random.random((side * smallest[0], side * smallest[1])) for side in range(stages, 0, -1)],
        grad_cam=random.random(shape) if grad_cam else None,
        logits=np.log([0.069, 0.931]),
        classes=("dog", "cat"),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stages": 1, "smallest": (14, 14)},
        {"stages": 3, "levels": 2, "shape": (32, 32), "smallest": (4, 4)},
        {"levels": 4, "shape": (224, 64), "grad_cam": False},
        {"levels": 0, "shape": (32, 300)},
        {"stages": 2, "levels": 1, "grad_cam": False},
    ],
)
def test_explanation_panel(figure, options):
    given = explanation(**options)
    made = figure(explanation_panel, given)
    assert_no_overlap(made)
    drawn = [axes.get_title() for axes in made.axes if axes.images and axes.get_title()]
    stages = [f"stage {index + 1}" for index in range(len(given.modulators))]
    levels = [f"level {index + 1}" for index in range(len(given.gates) - 1)]
    kernels = levels if len(stages) == 1 else stages * bool(levels)
    columns = max(len(stages), len(levels) + 1, len(kernels)) + 1
    rows = [stages, [*levels, "global"], *([["Grad-CAM"]] if given.grad_cam is not None else [])]
    expected = []
    for names in rows:  # where there is room, the maps over the image stand beside those alone, else below them
        expected += ["image", *names, *["over the image"] * (len(names) if 2 * len(names) < columns else 0)]
    assert drawn == [*expected, *kernels]
    maps = sum(1 + 2 * len(names) for names in rows)
    assert sum(bool(axes.images) for axes in made.axes) == maps + len(stages) * len(levels)


def test_maps_lie_over_the_image(figure):
    """A map with one peak is up-sampled so that the peak stays where it was."""
    gates = np.zeros((2, 4, 6))
    gates[0, 1, 4] = 1
    made = figure(gate_panel, np.zeros((40, 60, 3)), gates)
    picture, first = made.axes[0].images[0].get_array(), made.axes[1].images[0].get_array()
    assert first.shape == picture.shape[:2] == (200, 300)
    row, column = np.unravel_index(first.argmax(), first.shape)
    assert row == pytest.approx(75, abs=1)
    assert column == pytest.approx(225, abs=1)


def test_levels_that_a_stage_lacks(figure):
    """Stages may have different numbers of levels; each kernel stays under its own stage."""
    made = figure(kernel_panel, [[np.ones((3, 3))], [np.ones((5, 5)), np.ones((7, 7))]])
    labels = [[axes.get_xlabel() for axes in made.axes[row : row + 3]] for row in (0, 3)]
    assert labels == [["", "3 × 3, ± 1", "5 × 5, ± 1"], ["", "", "7 × 7, ± 1"]]


def test_files():
    given = explanation()
    for png in (
        gate_panel(given.image, given.gates),
        modulator_panel(given.image, given.modulators),
        kernel_panel(given.kernels),
        explanation_panel(given),
    ):
        assert png.startswith(PNG)


def test_caption():
    given = explanation()
    assert given.caption == "prediction: cat (93.1%)"
    given.target = 0
    assert given.caption == "prediction: cat (93.1%), Grad-CAM for: dog"
    given.classes = None
    assert given.caption == "prediction: class 1 (93.1%), Grad-CAM for: class 0"
    given.logits = None
    assert given.caption == ""
