"""The drawings: what is on them, that nothing overlaps, and that odd input is drawn too."""

import itertools
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from focalnet.errors import MissingExtraError
from focalnet.visualize import plots as pictures
from focalnet.visualize.plots import (
    annotate,
    confusion,
    contact_sheet,
    curves,
    explanation_panel,
    gate_panel,
    kernel_panel,
    modulator_panel,
)

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def figure(monkeypatch) -> Any:
    """Makes a drawing and gives the matplotlib figure instead of the file."""
    monkeypatch.setattr(pictures, "_png", lambda figure: figure)

    def draw(function, *arguments, **options):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        made = function(*arguments, **options)
        FigureCanvasAgg(made).draw()
        return made

    return draw


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def assert_no_overlap(figure):
    """No two texts of the figure touch, and none leaves it."""
    from matplotlib.text import Text

    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    shown = [text for text in texts if text.axes is None or text.axes.get_visible()]
    boxes = {text: text.get_window_extent(renderer) for text in shown}
    width, height = figure.canvas.get_width_height()
    for text, box in boxes.items():
        assert -1 <= box.x0 <= box.x1 <= width + 1, text
        assert -1 <= box.y0 <= box.y1 <= height + 1, text
    for one, two in itertools.combinations(boxes, 2):
        a, b = boxes[one], boxes[two]
        assert min(a.x1, b.x1) <= max(a.x0, b.x0) or min(a.y1, b.y1) <= max(a.y0, b.y0), (one, two)


def rows(epochs, every=1):
    made = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "step": 9 * epoch, "lr": 1e-3 / epoch, "train_loss": 2 / epoch, "seconds": 1.5}
        if epoch % every == 0:
            row |= {"val_loss": 3 / epoch, "top1": 1 - 1 / (epoch + 1), "top5": 1.0, "val_images_per_second": 99.0}
        made.append(row)
    return made


def test_curves(figure):
    made = figure(curves, rows(25, every=5))
    assert titles(made) == ["loss", "metrics", "learning rate"]
    loss, metrics, rate = made.axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    assert [line.get_label() for line in metrics.lines] == ["top1", "top5"]
    assert list(loss.lines[1].get_xdata()) == [5, 10, 15, 20, 25]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2 / epoch for epoch in range(1, 26)])
    assert loss.get_yscale() == "log"
    assert rate.get_yscale() == "linear"


def test_curves_of_one_epoch(figure):
    made = figure(curves, rows(1))
    assert titles(made) == ["loss", "metrics", "learning rate"]
    left, right = made.axes[0].get_xlim()
    assert [tick for tick in made.axes[0].get_xticks() if left <= tick <= right] == [1]


def test_curves_of_another_task(figure):
    """A metric that is no share gets its own panel."""
    made = figure(curves, [{"epoch": e, "train_loss": 1.0, "error": 30.0 / e, "mask_map": 0.1 * e} for e in (1, 2)])
    assert titles(made) == ["training", "mask map", "error"]


@pytest.mark.parametrize(
    ("count", "shown", "counted"), [(3, 3, True), (20, 20, True), (21, 21, False), (60, 50, False)]
)
def test_confusion(figure, count, shown, counted):
    matrix = np.diag(np.arange(1, count + 1))
    matrix[4 % count, 0] += 2
    axes = figure(confusion, matrix, [f"class {index}" for index in range(count)]).axes[0]
    assert axes.images[0].get_array().shape == (shown, shown)
    assert axes.images[0].get_array()[0, 0] == 1
    numbers = {text.get_text() for text in axes.texts}
    assert numbers == ({str(value) for value in np.unique(matrix) if value} if counted else set())
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == shown
    assert {"class 0", f"class {4 % count}"} <= set(names)  # the confused ones are kept


def test_confusion_rows_are_shares(figure):
    axes = figure(confusion, np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]])).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0.25, 0.5]])
    assert axes.get_title() == "accuracy 62.50% on 8 images"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]


@pytest.mark.parametrize("names", [["a" * 60, "日本", "caf\udce9"], ["$x", "$a_b$", "<&>"]])
def test_any_class_name(names):
    """Folder names may hold anything: halves of characters, formulas, letters without a glyph."""
    assert confusion(np.eye(3, dtype=int), names).startswith(PNG)
    assert contact_sheet([Image.new("L", (9, 9))] * 3, names).startswith(PNG)
    assert annotate(Image.new("L", (9, 9)), names).mode == "RGB"


def test_contact_sheet(figure):
    sizes = [(30, 40), (300, 40), (8, 8), (40, 300), (500, 500)]
    captions = ["one", "a caption of more than one line, and even longer than that by far, without end", *"345"]
    made = figure(contact_sheet, [Image.new("RGB", size) for size in sizes], captions)
    assert len(made.axes) == 8
    assert [axes.get_visible() and bool(axes.images) for axes in made.axes] == [True] * 5 + [False] * 3
    assert made.axes[0].get_xlabel() == "one"
    assert made.axes[1].get_xlabel().count("\n") == 2
    assert not [tick for axes in made.axes for tick in axes.get_xticks()]
    assert_no_overlap(made)


def test_annotate():
    """The image is unchanged over a strip with ink, and small ones grow by a whole factor."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    made = annotate(Image.fromarray(noise), ["größer  93.1%", "and a second line that is far too long for this"])
    assert made.size[0] == 12 * 28
    top = made.crop((0, 0, 12 * 28, 8 * 28)).resize((12, 8), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(np.asarray(top), noise)
    strip = made.crop((0, 8 * 28, *made.size))
    background = Image.new("RGB", strip.size, pictures.BACKGROUND)
    left, _, right, bottom = ImageChops.difference(strip, background).getbbox()
    assert 0 < left < right < strip.width
    assert bottom < strip.height
    assert annotate(Image.new("RGB", (700, 500)), ["x"]).width == 700


def explanation(*, stages=4, levels=3, shape=(64, 96), smallest=(2, 3), grad_cam=True):
    random = np.random.default_rng(0)
    return SimpleNamespace(
        image=random.random((*shape, 3)),
        kernels=[[random.normal(size=(3 + 2 * k, 3 + 2 * k)) for k in range(levels)] for _ in range(stages)],
        gates=random.normal(size=(levels + 1, *smallest)),
        modulators=[random.random((side * smallest[0], side * smallest[1])) for side in range(stages, 0, -1)],
        grad_cam=random.random(shape) if grad_cam else None,
        caption="answer: cat (93.1%)",
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
    expected = ["picture", *stages, *(["Grad-CAM"] if given.grad_cam is not None else []), "picture", *levels, "global"]
    if levels:
        expected += levels if len(stages) == 1 else stages
    assert drawn == expected
    assert sum(bool(axes.images) for axes in made.axes) == 2 + len(stages) + len(given.gates) + (
        given.grad_cam is not None
    ) + len(stages) * len(levels)


def test_maps_lie_over_the_picture(figure):
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
        curves(rows(2)),
    ):
        assert png.startswith(PNG)


def test_no_global_state():
    """pyplot, which keeps figures alive and chooses a window system, is never imported."""
    script = "import sys; from focalnet.visualize.plots import curves; curves([{'epoch': 1, 'lr': 1.0}])"
    script += "; assert 'matplotlib.figure' in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"\[train\]"):
        curves(rows(1))
    with pytest.raises(MissingExtraError, match=r"\[train\]"):
        confusion(np.eye(2, dtype=int))
    annotate(Image.new("RGB", (9, 9)), ["needs Pillow alone"])
