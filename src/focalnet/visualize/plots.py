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

MOST_LINES = 6
"""Metrics in one panel of curves: the first ones."""
MOST_COUNTED = 20
"""Classes up to which a confusion matrix shows counts."""
MOST_CLASSES = 50
"""Classes up to which a confusion matrix shows all of them."""
MOST_CURVES = 20
"""Classes up to which a plot of precision and recall shows the curve of each."""


def curves(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Training curves as small multiples: losses, metrics between 0 and 1, each other metric, learning rate.

    Args:
        rows: of `metrics.jsonl`, one per epoch. A row may lack some of the metrics.
    """
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if _is_curve(name, rows)]
    lines = {name: [(row["epoch"], row[name]) for row in rows if row.get(name) is not None] for name in names}
    losses = [name for name in names if name.endswith("loss")]
    others = [name for name in names if name not in losses and name != "lr"]
    shares = [name for name in others if all(0 <= value <= 1 for _, value in lines[name])]
    single = [[name] for name in others if name not in shares]
    panels = [losses, shares[:MOST_LINES], *single, ["lr"] if "lr" in names else []]
    panels = [panel for panel in panels if panel]
    figure = style.figure(4.2 * len(panels), 3.1)
    from matplotlib.ticker import MaxNLocator

    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in panel:
            epochs, values = zip(*lines[name], strict=True)
            axes.plot(epochs, values, label=_words(name), marker="o" if len(epochs) <= 30 else None, markersize=3.5)
        values = [value for name in panel for _, value in lines[name]]
        if panel is losses and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        axes.set_title(_words(panel[0]) if len(panel) == 1 else "loss" if panel is losses else "metrics", fontsize=11)
        if len(panel) > 1:
            axes.legend(frameon=False, fontsize=9)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return style.png(figure)


def _is_curve(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    beside = name in ("epoch", "step", "seconds") or name.endswith("per_second")
    return not beside and any(isinstance(row.get(name), int | float) for row in rows)


def _words(name: str) -> str:
    return {"lr": "learning rate", "val_loss": "validation", "train_loss": "training"}.get(name, name.replace("_", " "))


def confusion(matrix: np.ndarray, classes: Sequence[str] | None = None) -> bytes:
    """Confusion matrix, coloured by the share of each row; the colours spread small shares so that errors show.

    Up to 20 classes with counts, up to 50 without, beyond that the 50 classes with most errors.

    Args:
        matrix: (K, K) counts, rows are the truth, columns the predictions.
        classes: K names; by default their numbers.
    """
    matrix = np.asarray(matrix)
    names = [style.plain(style.short(name, 22)) for name in classes or map(str, range(len(matrix)))]
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    title = f"accuracy {np.trace(matrix) / max(matrix.sum(), 1):.2%} on {matrix.sum():,} images"
    if len(matrix) > MOST_CLASSES:
        errors = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
        kept = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
        title += f"\nthe {MOST_CLASSES} of {len(matrix)} classes with most errors"
        matrix, shares, names = matrix[np.ix_(kept, kept)], shares[np.ix_(kept, kept)], [names[k] for k in kept]
    count = len(matrix)
    size = max(3.2, count * (0.42 if count <= MOST_COUNTED else 0.2))
    label = 0.09 * max(map(len, names))
    figure = style.figure(size + label + 1.2, size + label + 0.5)
    from matplotlib.colors import PowerNorm

    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    small = 9 if count <= MOST_COUNTED else 7
    axes.set_xticks(range(count), names, rotation=90, fontsize=small)
    axes.set_yticks(range(count), names, fontsize=small)
    axes.set(xlabel="prediction", ylabel="truth")
    axes.set_title(title, fontsize=11)
    if count <= MOST_COUNTED:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                color = "white" if shares[row, column] > 0.35 else "black"
                axes.text(column, row, f"{number}", ha="center", va="center", color=color, fontsize=8)
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"], fontsize=8)
    bar.set_label("share of the row", fontsize=9)
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
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
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
