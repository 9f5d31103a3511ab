"""What a FocalNet did with an image, as data and as the panels of the paper: kernels, gates, modulators, Grad-CAM.

`focalnet.explain` fills an `Explanation`; nothing here runs a network. Sequential quantities are drawn in viridis or
magma, which are perceptually uniform, signed ones in red and blue around zero.

Legend: H W pixels of the image, h w positions of a stage's map, L focal levels, k the size of a kernel, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from focalnet.visualize import style

MOST_LABELS = 5
"""In a caption, of those that are predicted."""
KERNEL = 1.55
"""Inches of a row of kernels."""
BAR = 0.6
"""Inches of the colors and the title of a map, which one over the image does not have."""
OVER = 0.55
"""How opaque a map is over the image."""


@dataclass
class Explanation:
    """What a FocalNet did with one image, as float32 arrays.

    Attributes:
        image: what the network saw, before it was normalised, (H, W, 3), 0 to 1.
        kernels: per stage and level (k, k).
        gates: (L+1, h, w) of the last stage, the last one of the global level.
        modulators: per stage (h, w), at least 0.
        grad_cam: (H, W), at least 0, where it was asked for.
        target: the class of `grad_cam`.
        logits: (K,) of a classifier.
        classes: names of the K classes, where known.
        threshold: least score of a label, of a multi-label classifier.
    """

    image: np.ndarray
    kernels: list[list[np.ndarray]]
    gates: np.ndarray
    modulators: list[np.ndarray]
    grad_cam: np.ndarray | None = None
    target: int | None = None
    logits: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    threshold: float | None = None

    @property
    def caption(self) -> str:
        """The prediction, and the class of Grad-CAM, in one line; empty without logits."""
        if self.logits is None:
            return ""
        if self.threshold is None:
            shares = np.exp(self.logits - self.logits.max())
            shares, told = shares / shares.sum(), [int(shares.argmax())]
        else:
            shares = 1 / (1 + np.exp(-self.logits))
            told = [int(index) for index in np.argsort(-shares, kind="stable") if shares[index] >= self.threshold]
        labels = ", ".join(f"{self.name(index)} ({shares[index]:.1%})" for index in told[:MOST_LABELS])
        prediction = f"prediction: {labels or 'no label'}"
        return prediction if self.target is None else f"{prediction}, Grad-CAM for: {self.name(self.target)}"

    def name(self, index: int) -> str:
        """What a class is called."""
        return self.classes[index] if self.classes else f"class {index}"

    def save(self, path: str | Path) -> None:
        """Write everything as one PNG."""
        Path(path).write_bytes(explanation_panel(self))

    def save_npz(self, path: str | Path) -> None:
        """Write the arrays: `image`, `gates`, `modulator_1` …, `kernel_1_1` … (stage, level), `grad_cam`, `logits`."""
        arrays = {"image": self.image, "gates": self.gates, "grad_cam": self.grad_cam, "logits": self.logits}
        for stage, modulator in enumerate(self.modulators, 1):
            arrays[f"modulator_{stage}"] = modulator
        for stage, levels in enumerate(self.kernels, 1):
            for level, kernel in enumerate(levels, 1):
                arrays[f"kernel_{stage}_{level}"] = kernel
        with open(path, "wb") as file:
            np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})


def kernel_panel(kernels: Sequence[Sequence[np.ndarray]]) -> bytes:
    """Depth-wise kernels (paper, Figures 10 and 11): a row per level, a column per stage.

    Args:
        kernels: per stage and level (k, k): the mean over the channels.
    """
    rows = _kernel_rows(kernels)
    columns = max(len(row) for row in rows) + 1
    figure = style.figure(1.6 * columns, KERNEL * len(rows) + 0.3)
    _draw_kernels(figure, rows, columns)
    return style.png(figure)


def gate_panel(image: np.ndarray, gates: np.ndarray) -> bytes:
    """Gate maps beside the image (paper, Figure 5).

    Args:
        image: (H, W, 3), 0 to 1.
        gates: (L+1, h, w), the last one of the global level.
    """
    width, height = _strip(image, len(gates) + 1)
    figure = style.figure(width, 2 * height - BAR)
    _draw_maps(figure, image, _named_gates(gates), "viridis", len(gates) + 1)
    return style.png(figure)


def modulator_panel(image: np.ndarray, modulators: Sequence[np.ndarray]) -> bytes:
    """Magnitude of the modulator per stage beside the image (paper, Figures 6 and 15).

    Args:
        image: (H, W, 3), 0 to 1.
        modulators: per stage (h, w): the L2 norm over the channels.
    """
    width, height = _strip(image, len(modulators) + 1)
    figure = style.figure(width, 2 * height - BAR)
    _draw_maps(figure, image, _named_modulators(modulators), "magma", len(modulators) + 1)
    return style.png(figure)


def explanation_panel(explanation: Explanation) -> bytes:
    """The paper's three images on one sheet, the maps alone and over the image, and Grad-CAM where there is one."""
    image, kernels = explanation.image, _kernel_rows(explanation.kernels)
    modulators, gates = _named_modulators(explanation.modulators), _named_gates(explanation.gates)
    columns = max(len(modulators), len(gates), *map(len, kernels)) + 1
    rows = [
        ("Modulator: its length at each position, last block of each stage", modulators, "magma"),
        ("Gates: how much each level counts, last block", gates, "viridis"),
    ]
    if explanation.grad_cam is not None:
        name = "" if explanation.target is None else f" the class {style.plain(explanation.name(explanation.target))}"
        rows.append((f"Grad-CAM: what speaks for{name or ' the class'}", {"Grad-CAM": explanation.grad_cam}, "inferno"))
    width, height = _strip(image, columns)
    heights = [height + 0.3 + (height - BAR) * (_lines(maps, columns) - 1) for _, maps, _ in rows]
    heights += [KERNEL * len(kernels) + 0.6] if kernels else []
    figure = style.figure(width, sum(heights) + 0.3)
    figure.suptitle(style.plain(explanation.caption), fontsize=12)
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    for part, (title, maps, colors) in zip(parts, rows, strict=False):
        _heading(part, title)
        _draw_maps(part, image, maps, colors, columns)
    if kernels:
        _heading(parts[-1], "Kernels: mean over the channels, last block of each stage")
        _draw_kernels(parts[-1], kernels, columns)
    return style.png(figure)


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
    """Inches of a row of images with color bars."""
    shape = np.clip(image.shape[0] / image.shape[1], 0.4, 1.6)
    return max(2.1 * columns, 6.5), 2.0 * shape + 0.8


def _heading(figure: Any, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, weight="bold")


def _lines(maps: Mapping[str, np.ndarray], columns: int) -> int:
    """Lines that maps take alone and over the image: one where both fit beside each other."""
    return 1 if 2 * len(maps) < columns else 2


def _draw_maps(figure: Any, image: np.ndarray, maps: Mapping[str, np.ndarray], cmap: str, columns: int) -> None:
    """The image, then the maps, each with its colors, and all of them over the image."""
    lines = _lines(maps, columns)
    height = _strip(image, columns)[1]
    grid = figure.subplots(lines, columns, squeeze=False, height_ratios=[height, height - BAR][:lines])
    for axes in grid.flat:
        style.bare(axes, visible=False)
    canvas = style.enlarged(Image.fromarray((image * 255).round().astype(np.uint8)), 224)
    grid[0][0].imshow(canvas)
    grid[0][0].set_title("image", fontsize=10)
    over = grid[1][1:] if lines > 1 else grid[0][1 + len(maps) :]
    for alone, above, (title, values) in zip(grid[0][1:], over, maps.items(), strict=False):
        smooth = np.asarray(Image.fromarray(values.astype(np.float32)).resize(canvas.size, Image.Resampling.BILINEAR))
        shown = alone.imshow(smooth, cmap=cmap)
        alone.set_title(title, fontsize=10)
        above.imshow(canvas.convert("L"), cmap="gray", vmin=0, vmax=255)
        above.imshow(smooth, cmap=cmap, alpha=OVER)
        if lines == 1:
            above.set_title("over the image", fontsize=10)
        low, high = shown.get_clim()
        bar = figure.colorbar(shown, cax=alone.inset_axes((0, -0.09, 1, 0.05)), orientation="horizontal")
        bar.set_ticks([low, high], labels=[f"{low:.3g}", f"{high:.3g}"], fontsize=8)
        bar.outline.set_visible(False)
        for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
            label.set_horizontalalignment(side)
    if lines > 1:
        grid[1][0].text(0.95, 0.5, "over the image", ha="right", va="center", fontsize=10)


def _draw_kernels(figure: Any, rows: Sequence[Mapping[str, np.ndarray | None]], columns: int) -> None:
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        style.bare(axes, visible=False)
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
