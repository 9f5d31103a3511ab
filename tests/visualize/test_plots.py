"""Plots and sheets: what is on them, that nothing overlaps, and that odd input is drawn too."""

import io
import subprocess
import sys

import numpy as np
import pytest
from figure_checks import assert_no_overlap, titles
from PIL import Image

from focalnet.errors import MissingExtraError
from focalnet.visualize.draw import annotate
from focalnet.visualize.plots import (
    WIDTH,
    bars,
    confused_pairs,
    confusion,
    contact_sheet,
    curves,
    mosaic,
    over_threshold,
    per_class_table,
    pr_curves,
)

PNG = b"\x89PNG\r\n\x1a\n"


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


def test_the_score_has_a_panel_with_the_training_images(figure):
    given = [{**row, "train_top1": 1.0} for row in rows(3)]
    made = figure(curves, given, {"top1": "top-1", "top5": "top-5"}, "top1")
    assert titles(made) == ["loss", "top-1", "top-5", "learning rate"]
    assert [line.get_label() for line in made.axes[1].lines] == ["validation", "a sample of the training images"]


def test_curves_of_another_task(figure):
    """A metric that is no share gets its own panel."""
    made = figure(curves, [{"epoch": e, "train_loss": 1.0, "error": 30.0 / e, "mask_map": 0.1 * e} for e in (1, 2)])
    assert titles(made) == ["loss", "mask map", "error"]


@pytest.mark.parametrize(
    ("count", "shown", "counted"), [(3, 3, True), (24, 24, True), (25, 25, False), (110, 100, False)]
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
    axes = figure(confusion, np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]]), None, "accuracy 62.50% on 8 images").axes[0]
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


def test_confused_pairs():
    matrix = np.array([[5, 1, 0], [4, 3, 1], [0, 0, 2]])
    assert confused_pairs(matrix, ["a", "b", "c"]) == [
        ["truth", "prediction", "times", "of the truth"],
        ["b", "a", 4, "50.0%"],
        ["a", "b", 1, "16.7%"],
        ["b", "c", 1, "12.5%"],
    ]
    assert confused_pairs(np.eye(3, dtype=int), ["a", "b", "c"]) == []


def test_a_hundred_classes_can_be_read(figure):
    made = figure(confusion, np.eye(100, dtype=int), [f"class {index}" for index in range(100)])
    labels = made.axes[0].get_yticklabels()
    assert len(labels) == 100
    assert min(label.get_fontsize() for label in labels) >= 5.5
    assert made.get_size_inches()[0] <= WIDTH + 0.01, "a page shows it in its own size"
    assert_no_overlap(made)


def test_bars(figure):
    axes = figure(bars, [0.5, None, 0.25], ["a", "b", "$c"], "IoU").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [r"\$c", "a"]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.5]
    assert axes.get_title() == "IoU; mean 0.375"
    many = figure(bars, np.linspace(0, 1, 99).tolist(), [str(index) for index in range(99)], "IoU")
    assert "the worst 40 of 99 classes" in many.axes[0].get_title()
    assert figure(bars, [None], ["a"], "IoU").axes[0].get_title() == "IoU; mean 0.000"


def test_over_threshold(figure):
    given = {"threshold": [0, 0.5, 1], "F1": [0.1, 0.8, 0], "recall": [1, 0.9, 0]}
    axes = figure(over_threshold, given, 0.432).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["F1", "recall", "best: 0.432"]
    assert len(figure(over_threshold, given, None).axes[0].lines) == 2


def details(classes, absent=(), kinds=("box",)):
    recall = np.linspace(0, 1, 101)
    curves = [None if k in absent else (1 - recall ** (k + 1)).tolist() for k in range(classes)]
    present = [curve for curve in curves if curve]
    rows = [
        {f"{kind}_ap50": float(np.mean(curve)) if curve else None for kind in kinds} | {"objects": classes - index}
        for index, curve in enumerate(curves)
    ]
    mean = np.mean(present, 0).tolist() if present else None
    curve = {"recall": recall.tolist(), "precision": mean, "by_class": curves}
    return {"names": [f"$ class {k}" for k in range(classes)], "classes": rows, **dict.fromkeys(kinds, curve)}


def test_pr_curves(figure):
    made = figure(pr_curves, details(4, absent=(1,), kinds=("box", "mask")))
    assert titles(made) == ["boxes", "masks"]
    for axes in made.axes:
        assert [line.get_linewidth() for line in axes.lines] == [1, 1, 1, 2.6]
        np.testing.assert_allclose(axes.lines[-1].get_ydata(), details(4, absent=(1,))["box"]["precision"])
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        mean = np.mean(details(4, absent=(1,))["box"]["precision"])
        assert texts[0] == f"mean of 3  {mean:.3f}"
        assert texts[1] == r"\$ class 0  0.500"
    assert_no_overlap(made)


def test_pr_curves_of_many_classes(figure):
    made = figure(pr_curves, details(80))
    assert len(made.axes[0].lines) == 21
    texts = [text.get_text() for text in made.axes[0].get_legend().get_texts()]
    assert texts[0].startswith("mean of 80")
    assert texts[-1].startswith(r"\$ class 19")  # those with most objects
    assert_no_overlap(made)


def test_pr_curves_without_objects(figure):
    made = figure(pr_curves, details(3, absent=(0, 1, 2)))
    assert not made.axes[0].lines


def test_table():
    rows = [{"iou": 0.5, "thing": True, "pixels": 1234}, {"iou": None, "thing": False, "pixels": 0}]
    rows.append({"iou": 0.25, "thing": False, "pixels": 7})
    assert per_class_table(rows, ["a", "b", "c"]) == [
        ["class", "iou", "thing", "pixels"],
        ["c", "0.250", "no", "7"],
        ["a", "0.500", "yes", "1,234"],
        ["b", "–", "no", "0"],
    ]


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 3, 1), (3, 3, 1), (4, 3, 2)])
def test_mosaic(count, columns, rows):
    shots = [Image.new("RGB", (100 - 9 * index, 50), (255, 0, 0)) for index in range(count)]
    sheet = Image.open(io.BytesIO(mosaic(shots, columns)))
    assert sheet.format == "PNG"
    red = (np.asarray(sheet) == (255, 0, 0)).all(-1)
    assert red.sum() == sum(shot.width * shot.height for shot in shots)
    starts = np.flatnonzero(np.diff(red.any(1).astype(int), prepend=0) == 1)
    assert len(starts) == rows


def test_mosaic_shrinks_large_images():
    sheet = Image.open(io.BytesIO(mosaic([Image.new("RGB", (4000, 3000))] * 4, 4)))
    assert sheet.width < 2600


def test_files():
    assert curves(rows(2)).startswith(PNG)
    assert pr_curves(details(2)).startswith(PNG)


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
