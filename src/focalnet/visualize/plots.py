"""Drawings: curves, confusion matrices, contact sheets, captions, and the paper's three images.

They are made from arrays and PIL images, and know no model and no task. A figure is the bytes of a PNG file;
`annotate`, which turns an image into an image, returns an image and needs Pillow alone. Figures are objects of
their own, so that drawing changes nothing for whoever else uses matplotlib in the process.

Sequential quantities are drawn in viridis or magma, which are perceptually uniform, signed ones in red and blue
around zero.
"""

import importlib.util
import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from focalnet.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120
MOST_COUNTED = 20
"""Classes up to which a confusion matrix shows counts."""
MOST_LINES = 6
"""Metrics in one panel of curves: the first ones."""
MOST_CLASSES = 50
"""Classes up to which a confusion matrix shows all of them."""
KERNEL = 1.55
"""Inches of a row of kernels."""
BACKGROUND, INK = (250, 250, 250), (30, 30, 30)


class Explained(Protocol):
    """What `explanation_panel` draws; `focalnet.explain.Explanation` is one.

    Attributes:
        image: (H, W, 3), 0 to 1.
        kernels: per stage and level, (k, k).
        gates: (L+1, h, w), the last one of the global level.
        modulators: per stage, (h, w), at least 0.
        grad_cam: (H, W), at least 0, or None.
        caption: one line over the image.
    """

    image: np.ndarray
    kernels: list[list[np.ndarray]]
    gates: np.ndarray
    modulators: list[np.ndarray]
    grad_cam: np.ndarray | None

    @property
    def caption(self) -> str: ...


def curves(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Training curves as small multiples: losses, metrics between 0 and 1, each other metric, learning rate.

    Args:
        rows: of `metrics.jsonl`, one per epoch. A row may lack some of the figures.
    """
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if _is_curve(name, rows)]
    lines = {name: [(row["epoch"], row[name]) for row in rows if row.get(name) is not None] for name in names}
    losses = [name for name in names if name.endswith("loss")]
    others = [name for name in names if name not in losses and name != "lr"]
    shares = [name for name in others if all(0 <= value <= 1 for _, value in lines[name])]
    single = [[name] for name in others if name not in shares]
    panels = [losses, shares[:MOST_LINES], *single, ["lr"] if "lr" in names else []]
    panels = [panel for panel in panels if panel]
    figure = _figure(4.2 * len(panels), 3.1)
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
    return _png(figure)


def _is_curve(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    beside = name in ("epoch", "step", "seconds") or name.endswith("per_second")
    return not beside and any(isinstance(row.get(name), int | float) for row in rows)


def _words(name: str) -> str:
    return {"lr": "learning rate", "val_loss": "validation", "train_loss": "training"}.get(name, name.replace("_", " "))


def confusion(matrix: np.ndarray, classes: Sequence[str] | None = None) -> bytes:
    """Confusion matrix, coloured by the share of each row; the colours spread small shares so that errors show.

    Up to 20 classes with counts, up to 50 without, beyond that the 50 classes with most errors.

    Args:
        matrix: (K, K) counts, rows are the truth, columns the answers.
        classes: K names; by default their numbers.
    """
    matrix = np.asarray(matrix)
    names = [_plain(_short(name, 22)) for name in classes or map(str, range(len(matrix)))]
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
    figure = _figure(size + label + 1.2, size + label + 0.5)
    from matplotlib.colors import PowerNorm

    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    small = 9 if count <= MOST_COUNTED else 7
    axes.set_xticks(range(count), names, rotation=90, fontsize=small)
    axes.set_yticks(range(count), names, fontsize=small)
    axes.set(xlabel="answer", ylabel="truth")
    axes.set_title(title, fontsize=11)
    if count <= MOST_COUNTED:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                color = "white" if shares[row, column] > 0.35 else "black"
                axes.text(column, row, f"{number}", ha="center", va="center", color=color, fontsize=8)
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"], fontsize=8)
    bar.set_label("share of the row", fontsize=9)
    return _png(figure)


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 4) -> bytes:
    """Images in rows, each with a caption under it.

    Args:
        images: of any sizes.
        captions: one per image.
        columns: images per row.
    """
    columns = min(columns, len(pictures))
    texts = [textwrap.fill(_plain(caption), 26, max_lines=3, placeholder=" …") for caption in captions]
    rows = -(-len(pictures) // columns)
    lines = max(text.count("\n") + 1 for text in texts)
    figure = _figure(2.3 * columns, (2.2 + 0.17 * lines) * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, picture, text in zip(grid, pictures, texts, strict=False):
        axes.imshow(_enlarged(picture.convert("RGB"), 220))
        axes.set_xlabel(text, fontsize=9)
        axes.set_anchor("S")
    for index, axes in enumerate(grid):
        _bare(axes, visible=index < len(pictures))
    return _png(figure)


def annotate(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The image over a strip with text, the first line larger; small images are enlarged so that it is readable.

    Args:
        image: any image.
        lines: what to write; a line that is too long for the image is shortened.

    Returns:
        a new image, RGB.
    """
    picture = _enlarged(image.convert("RGB"), 224)
    size = max(13, picture.width // 22)
    sizes = [size, *[round(0.8 * size)] * (len(lines) - 1)]
    fonts = [_font(size) for size in sizes]
    margin, heights = size // 2, [round(1.35 * size) for size in sizes]
    sheet = Image.new("RGB", (picture.width, picture.height + sum(heights) + 2 * margin), BACKGROUND)
    sheet.paste(picture)
    draw, y = ImageDraw.Draw(sheet), picture.height + margin
    for line, font, height in zip(lines, fonts, heights, strict=True):
        text = line
        while text and draw.textlength(text, font) > picture.width - 2 * margin:
            text = text.removesuffix("…")[:-1].rstrip() + "…" if len(text) > 1 else ""
        draw.text((margin, y), text, INK, font)
        y += height
    return sheet


def kernel_panel(kernels: Sequence[Sequence[np.ndarray]]) -> bytes:
    """Depth-wise kernels (paper, Figures 10 and 11): a row per level, a column per stage.

    Args:
        kernels: per stage and level (k, k): the mean over the channels.
    """
    rows = _kernel_rows(kernels)
    columns = max(len(row) for row in rows) + 1
    figure = _figure(1.6 * columns, KERNEL * len(rows) + 0.3)
    _draw_kernels(figure, rows, columns)
    return _png(figure)


def gate_panel(image: np.ndarray, gates: np.ndarray) -> bytes:
    """Gate maps beside the image (paper, Figure 5).

    Args:
        image: (H, W, 3), 0 to 1.
        gates: (L+1, h, w), the last one of the global level.
    """
    figure = _figure(*_strip(image, len(gates) + 1))
    _draw_maps(figure, image, _named_gates(gates), "viridis", len(gates) + 1)
    return _png(figure)


def modulator_panel(image: np.ndarray, modulators: Sequence[np.ndarray]) -> bytes:
    """Magnitude of the modulator per stage beside the image (paper, Figures 6 and 15).

    Args:
        image: (H, W, 3), 0 to 1.
        modulators: per stage (h, w): the L2 norm over the channels.
    """
    figure = _figure(*_strip(image, len(modulators) + 1))
    _draw_maps(figure, image, _named_modulators(modulators), "magma", len(modulators) + 1)
    return _png(figure)


def explanation_panel(explanation: Explained) -> bytes:
    """The paper's three images on one sheet, and Grad-CAM where there is one."""
    image, rows = explanation.image, _kernel_rows(explanation.kernels)
    modulators, gates = _named_modulators(explanation.modulators), _named_gates(explanation.gates)
    if explanation.grad_cam is not None:
        modulators["Grad-CAM"] = explanation.grad_cam
    columns = max(len(modulators), len(gates), *map(len, rows)) + 1
    width, height = _strip(image, columns)
    heights = [height + 0.3, height + 0.3, *([KERNEL * len(rows) + 0.6] if rows else [])]
    figure = _figure(width, sum(heights) + 0.3)
    figure.suptitle(_plain(explanation.caption), fontsize=12)
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    _heading(parts[0], "Modulator: its length at each position, last block of each stage")
    _draw_maps(parts[0], image, modulators, "magma", columns)
    _heading(parts[1], "Gates: how much each level counts, last block")
    _draw_maps(parts[1], image, gates, "viridis", columns)
    if rows:
        _heading(parts[2], "Kernels: mean over the channels, last block of each stage")
        _draw_kernels(parts[2], rows, columns)
    return _png(figure)


def _named_gates(gates: np.ndarray) -> dict[str, np.ndarray]:
    return {"global" if level == len(gates) else f"level {level}": gate for level, gate in enumerate(gates, 1)}


def _named_modulators(modulators: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"stage {stage}": modulator for stage, modulator in enumerate(modulators, 1)}


def _kernel_rows(kernels: Sequence[Sequence[np.ndarray]]) -> list[dict[str, np.ndarray | None]]:
    """A row per level with a kernel per stage, None for a level that a stage lacks; one stage fills a single row."""
    if len(kernels) == 1:
        return [{f"level {level}": kernel for level, kernel in enumerate(kernels[0], 1)}] if kernels[0] else []
    return [
        {f"stage {stage}": row[level] if level < len(row) else None for stage, row in enumerate(kernels, 1)}
        for level in range(max(map(len, kernels)))
    ]


def _strip(image: np.ndarray, columns: int) -> tuple[float, float]:
    """Inches of a row of images with colour bars."""
    shape = np.clip(image.shape[0] / image.shape[1], 0.4, 1.6)
    return max(2.1 * columns, 6.5), 2.0 * shape + 0.8


def _heading(figure: Any, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, weight="bold")


def _draw_maps(figure: Any, image: np.ndarray, maps: Mapping[str, np.ndarray], cmap: str, columns: int) -> None:
    grid = figure.subplots(1, columns, squeeze=False)[0]
    picture = _enlarged(Image.fromarray((image * 255).round().astype(np.uint8)), 224)
    grid[0].imshow(picture)
    grid[0].set_title("picture", fontsize=10)
    for axes, (title, values) in zip(grid[1:], maps.items(), strict=False):
        smooth = Image.fromarray(values.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
        shown = axes.imshow(np.asarray(smooth), cmap=cmap)
        axes.set_title(title, fontsize=10)
        low, high = shown.get_clim()
        bar = figure.colorbar(shown, cax=axes.inset_axes((0, -0.09, 1, 0.05)), orientation="horizontal")
        bar.set_ticks([low, high], labels=[f"{low:.3g}", f"{high:.3g}"], fontsize=8)
        bar.outline.set_visible(False)
        for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
            label.set_horizontalalignment(side)
    for index, axes in enumerate(grid):
        _bare(axes, visible=index <= len(maps))


def _draw_kernels(figure: Any, rows: Sequence[Mapping[str, np.ndarray | None]], columns: int) -> None:
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        _bare(axes, visible=False)
    for index, (line, row) in enumerate(zip(grid, rows, strict=True)):
        if len(rows) > 1:
            line[0].text(0.9, 0.5, f"level {index + 1}", ha="right", va="center", fontsize=10)
        for axes, (title, kernel) in zip(line[1:], row.items(), strict=False):
            if index == 0:
                axes.set_title(title, fontsize=10)
            if kernel is None:
                continue
            limit = float(np.abs(kernel).max()) or 1.0
            axes.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_xlabel(f"{kernel.shape[0]} × {kernel.shape[1]}, ± {limit:.2g}", fontsize=8, labelpad=3)


def _bare(axes: "Axes", *, visible: bool) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(visible)


def _font(size: int) -> Any:
    """The font that matplotlib brings, for Pillow's own knows no letters beyond ASCII."""
    found = importlib.util.find_spec("matplotlib")
    folders = found.submodule_search_locations if found else None
    path = Path(next(iter(folders)), "mpl-data/fonts/ttf/DejaVuSans.ttf") if folders else None
    return ImageFont.truetype(path, size) if path and path.exists() else ImageFont.load_default(size)


def _enlarged(image: Image.Image, side: int) -> Image.Image:
    """A small image by a whole factor, until its shorter side has about `side` pixels, or the longer one four times
    as many."""
    factor = max(1, min(side // min(image.size), 4 * side // max(image.size)))
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _plain(text: str) -> str:
    """Text that matplotlib can draw: class names come from folder names, which may hold halves of characters and $."""
    return text.encode(errors="replace").decode().replace("$", r"\$")


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("Drawing", "train") from None
    return Figure((width, height), dpi=DOTS_PER_INCH, layout="constrained")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it becomes a box
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
