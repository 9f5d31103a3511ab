"""Plots of training and evaluation, and sheets of many images: each function gives the bytes of a PNG file.

They are made from arrays, metrics and PIL images, and know no model and no task.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from focalnet.inputs.image import Signal
from focalnet.visualize import style
from focalnet.visualize.style import BACKGROUND, class_color

WIDTH = 11.4
"""Inches of a figure that is as wide as a page."""
BAR = "#4878b0"
MOST_LINES = 6
"""Metrics in one panel of curves: the first ones."""
MOST_COUNTED = 24
"""Classes up to which a confusion matrix shows counts."""
MOST_CLASSES = 100
"""Classes up to which a confusion matrix shows all of them."""
MOST_PAIRS = 15
"""Rows of a table of confused classes."""
MOST_BARS = 40
"""Classes that have a bar: the worst."""
MOST_CURVES = 20
"""Classes up to which a plot of precision and recall shows the curve of each."""


def curves(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str] | None = None, score: str | None = None
) -> bytes:
    """Training curves as small multiples: losses, the score, other metrics between 0 and 1, each other metric, the
    learning rate.

    Args:
        rows: of `metrics.jsonl`, one per epoch. A row may lack some of the metrics.
        names: what metrics are called, by their names in the rows.
        score: the metric with a panel of its own, where a row `train_SCORE` is drawn beside it.
    """
    names = {"lr": "learning rate", "val_loss": "validation", "train_loss": "training", **(names or {})}
    names["val_loss"], names[f"train_{score}"] = "validation", "a sample of the training images"
    found = [name for name in dict.fromkeys(name for row in rows for name in row) if _is_curve(name, rows)]
    lines = {name: [(row["epoch"], row[name]) for row in rows if row.get(name) is not None] for name in found}
    losses = [name for name in found if name.endswith("loss") or name.startswith("train_loss")]
    best = [name for name in (score, f"train_{score}") if name in found]
    others = [name for name in found if name not in (*losses, *best, "lr")]
    shares = [name for name in others if all(0 <= value <= 1 for _, value in lines[name])]
    single = [[name] for name in others if name not in shares]
    panels = [losses, best, shares[:MOST_LINES], *single, ["lr"] if "lr" in found else []]
    panels = [panel for panel in panels if panel]
    columns = min(len(panels), 2 if len(panels) == 4 else 3)
    lines_of_panels = -(-len(panels) // columns)
    figure = style.figure(WIDTH if columns > 1 else WIDTH / 2, 3.1 * lines_of_panels)
    from matplotlib.ticker import MaxNLocator

    grid = list(figure.subplots(lines_of_panels, columns, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid, panels, strict=False):
        for name in panel:
            epochs, values = zip(*lines[name], strict=True)
            label, dashes = names.get(name, name.replace("_", " ")), "--" if panel is best and name != score else "-"
            marker = "o" if len(epochs) <= 30 else None
            axes.plot(epochs, values, dashes, label=label, marker=marker, markersize=3.5)
        values = [value for name in panel for _, value in lines[name]]
        if panel is losses and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        title = "loss" if panel is losses else names.get(panel[0], panel[0].replace("_", " "))
        if panel is best and len(panel) > 1:
            axes.lines[0].set_label("validation")
        if panel is not best and panel is not losses and len(panel) > 1:
            title = "metrics"
        axes.set_title(title, fontsize=11)
        if len(panel) > 1:
            axes.legend(frameon=False, fontsize=9)
        axes.set_xlabel("epoch")
        _plain_axes(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return style.png(figure)


def _is_curve(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    beside = name in ("epoch", "step", "seconds") or name.endswith("per_second")
    return not beside and any(isinstance(row.get(name), int | float) for row in rows)


def _plain_axes(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def confusion(matrix: np.ndarray, classes: Sequence[str] | None = None, title: str = "") -> bytes:
    """Confusion matrix, colored by the share of each row; the colors spread small shares so that errors show.

    Up to 24 classes with counts, up to 100 without, beyond that the 100 classes with most errors. It is as wide as a
    page, so that the names of 100 classes can be read.

    Args:
        matrix: (K, K) counts, rows are the truth, columns the predictions.
        classes: K names; by default their numbers.
        title: above it.
    """
    matrix = np.asarray(matrix)
    names = [style.plain(style.short(name, 22)) for name in classes or map(str, range(len(matrix)))]
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if len(matrix) > MOST_CLASSES:
        errors = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
        kept = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
        title += f"\nthe {MOST_CLASSES} of {len(matrix)} classes with most errors"
        matrix, shares, names = matrix[np.ix_(kept, kept)], shares[np.ix_(kept, kept)], [names[k] for k in kept]
    count = len(matrix)
    label = 0.09 * max(map(len, names))
    room = WIDTH - label - 1.4
    size = max(3.2, min(room, count * (0.42 if count <= MOST_COUNTED else 0.2)))
    figure = style.figure(size + label + 1.4, size + label + 0.5)
    from matplotlib.colors import PowerNorm

    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    small = 9 if count <= MOST_COUNTED else min(8.0, 72 * size / count * 0.9)
    axes.set_xticks(range(count), names, rotation=90, fontsize=small)
    axes.set_yticks(range(count), names, fontsize=small)
    axes.set(xlabel="prediction", ylabel="truth")
    axes.set_title(title.strip(), fontsize=11)
    if count <= MOST_COUNTED:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                color = "white" if shares[row, column] > 0.35 else "black"
                axes.text(column, row, f"{number}", ha="center", va="center", color=color, fontsize=8)
    else:  # lines to follow from a name to its row and column
        axes.set_xticks(np.arange(4.5, count, 5), minor=True)
        axes.set_yticks(np.arange(4.5, count, 5), minor=True)
        axes.grid(which="minor", color="black", alpha=0.15, linewidth=0.6)
        axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"], fontsize=8)
    bar.set_label("share of the row", fontsize=9)
    return style.png(figure)


def confused_pairs(matrix: np.ndarray, classes: Sequence[str]) -> list[list[Any]]:
    """The entries beside the diagonal of a confusion matrix as a table, its head first, the most frequent at the top.

    Args:
        matrix: (K, K) counts, rows are the truth, columns the predictions.
        classes: K names.
    """
    wrong = np.array(matrix)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [divmod(int(place), len(wrong)) for place in order if wrong.flat[place]]
    body = [
        [classes[truth], classes[said], wrong[truth, said], f"{wrong[truth, said] / matrix[truth].sum():.1%}"]
        for truth, said in pairs
    ]
    return [["truth", "prediction", "times", "of the truth"], *body] if body else []


def bars(values: Sequence[float | None], classes: Sequence[str], what: str) -> bytes:
    """A figure of each class between 0 and 1 as a bar, the worst at the top, and their mean as a line.

    Args:
        values: of each class; None, which is left out, where it is not defined.
        classes: their names.
        what: the name of the figure.
    """
    there = sorted((value, index) for index, value in enumerate(values) if value is not None)
    shown = there[:MOST_BARS]
    names = [style.plain(style.short(classes[index], 30)) for _, index in shown]
    mean = sum(value for value, _ in there) / max(len(there), 1)
    figure = style.figure(7.5, 1.1 + 0.24 * max(len(shown), 2))
    axes = figure.subplots()
    axes.barh(range(len(shown)), [value for value, _ in shown], color=BAR, height=0.7)
    for place, (value, _) in enumerate(shown):
        axes.text(value + 0.01, place, f"{value:.3f}", va="center", fontsize=8)
    axes.axvline(mean, color="black", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(shown)), names, fontsize=9)
    axes.set(xlim=(0, 1.1), xticks=np.linspace(0, 1, 6), ylim=(len(shown) - 0.4, -0.6))
    more = f", the worst {len(shown)} of {len(there)} classes" if len(there) > len(shown) else ""
    axes.set_title(f"{what}{more}; mean {mean:.3f}", fontsize=11)
    _plain_axes(axes)
    return style.png(figure)


def over_threshold(curves: Mapping[str, Sequence[float]], best: float | None) -> bytes:
    """Figures between 0 and 1 over the threshold of the score, with the best one.

    Args:
        curves: `threshold`, and by name the figures of each.
        best: where to draw a line.
    """
    figure = style.figure(7.5, 3.4)
    axes = figure.subplots()
    for name, values in curves.items():
        if name != "threshold":
            width = 2.4 if name == "F1" else 1.3
            axes.plot(curves["threshold"], values, label=name, linewidth=width)
    if best is not None:
        axes.axvline(best, color="black", linewidth=1, linestyle=":", label=f"best: {best:.3g}")
    axes.set(xlabel="threshold", xlim=(0, 1), ylim=(0, 1.03))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _plain_axes(axes)
    return style.png(figure)


def pr_curves(details: Mapping[str, Any]) -> bytes:
    """Precision over recall at IoU 0.5: the mean over the classes bold, the classes thin; a panel for boxes, one for
    masks. The legend gives the area under each curve, which is AP50.

    Args:
        details: of `focalnet.metrics.detection.AveragePrecision`. Of more than 20 classes with objects, those with
            most objects are shown.
    """
    kinds = [kind for kind in ("box", "mask") if kind in details]
    figure = style.figure(6.6 * len(kinds), 4.4)
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        curves, rows = details[kind], details["classes"]
        there = [index for index, row in enumerate(rows) if row[f"{kind}_ap50"] is not None]
        shown = sorted(sorted(there, key=lambda index: -rows[index]["objects"])[:MOST_CURVES])
        for index in shown:
            color = [part / 255 for part in class_color(index)]
            name = style.plain(style.short(details["names"][index], 22))
            label = f"{name}  {rows[index][f'{kind}_ap50']:.3f}"
            axes.plot(curves["recall"], curves["by_class"][index], color=color, linewidth=1, alpha=0.8, label=label)
        if curves["precision"] is not None:
            label = f"mean of {len(there)}  {np.mean(curves['precision']):.3f}"
            axes.plot(curves["recall"], curves["precision"], color="black", linewidth=2.6, label=label)
            handles, texts = axes.get_legend_handles_labels()
            title = "AP50" if len(shown) == len(there) else f"AP50, {len(shown)} classes\nwith most objects"
            axes.legend(
                [handles[-1], *handles[:-1]], [texts[-1], *texts[:-1]], title=title, frameon=False, fontsize=8,
                title_fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5),
            )  # fmt: skip
        ticks = np.linspace(0, 1, 6)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03), xticks=ticks, yticks=ticks)
        axes.set_title({"box": "boxes", "mask": "masks"}[kind], fontsize=11)
        _plain_axes(axes)
    return style.png(figure)


def per_class_table(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[list[str]]:
    """The `classes` of a metric's details as a table, its head first, the worst class at the top.

    Args:
        rows: per class; the first metric sorts, and None, an undefined one, is shown as a dash at the end.
        classes: their names.
    """
    keys = list(rows[0]) if rows else []
    order = sorted(range(len(rows)), key=lambda index: (rows[index][keys[0]] is None, rows[index][keys[0]] or 0))
    body = [[classes[index], *[_cell(rows[index][key]) for key in keys]] for index in order]
    return [["class", *[key.replace("_", " ") for key in keys]], *body]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def contact_sheet(images: Sequence[Signal], captions: Sequence[str], columns: int = 4) -> bytes:
    """Images in rows, each with a caption under it.

    Args:
        images: of any sizes.
        captions: one per image.
        columns: images per row.
    """
    columns = min(columns, len(images))
    texts = [textwrap.fill(style.plain(caption), 26, max_lines=3, placeholder=" …") for caption in captions]
    rows = -(-len(images) // columns)
    lines = max(text.count("\n") + 1 for text in texts)
    figure = style.figure(2.3 * columns, (2.2 + 0.17 * lines) * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, image, text in zip(grid, images, texts, strict=False):
        axes.imshow(style.enlarged(image.convert("RGB"), 220))
        axes.set_xlabel(text, fontsize=9)
        axes.set_anchor("S")
    for index, axes in enumerate(grid):
        style.bare(axes, visible=index < len(images))
    return style.png(figure)


def mosaic(images: Sequence[Image.Image], columns: int = 3) -> bytes:
    """Images in rows on one sheet, each shrunk to the width of its column.

    Args:
        images: at least one, of any sizes.
        columns: images per row.

    Returns:
        a PNG file.
    """
    columns = min(columns, len(images))
    width = min(max(image.width for image in images), 2400 // columns)
    gap = max(6, width // 40)
    fitted = []
    for image in images:
        scale = min(1.0, width / image.width)
        size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        fitted.append(image.convert("RGB").resize(size, Image.Resampling.LANCZOS) if scale < 1 else image)
    rows = [fitted[start : start + columns] for start in range(0, len(fitted), columns)]
    heights = [max(image.height for image in row) for row in rows]
    sheet = Image.new("RGB", (columns * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)), BACKGROUND)
    y = gap
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            x = gap + column * (width + gap) + (width - image.width) // 2
            sheet.paste(image.convert("RGB"), (x, y))
        y += height + gap
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
