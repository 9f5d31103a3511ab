"""Boxes, masks and maps of labels drawn on images, and the plots of their metrics.

Arrays and PIL images go in, and no model and no task is known. Drawings on images are images and need Pillow
alone; small ones are enlarged by a whole factor, so that text is readable beside pixels that stay pixels. A class has
the same colour in all of them. No text covers another: a plate that finds no place is left out, its box is not.

Shapes: N objects, H × W pixels, K classes. Boxes are x1 y1 x2 y2 in pixels of the image.
"""

import colorsys
import io
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from focalnet.visualize import plots as pictures
from focalnet.visualize.plots import BACKGROUND, INK

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

READABLE = 480
"""Pixels that the shorter side of an image has at most after it was enlarged."""
FILL, PAINT, HALO = 0.4, 0.55, 110
"""How opaque a mask and a map of labels are, of 1, and the light or dark line around a box, of 255."""
MOST_CURVES = 20
"""Classes up to which a plot shows the curve of each."""
MOST_NAMED = 24
"""Classes up to which a legend names all."""
PALETTE: tuple[Color, ...] = (
    (31, 119, 220), (255, 127, 14), (22, 150, 64), (222, 45, 53), (145, 80, 210), (0, 178, 190), (240, 80, 170),
    (188, 170, 10), (140, 86, 58), (122, 204, 60), (90, 98, 180), (250, 150, 135), (0, 110, 105), (165, 15, 90),
    (255, 200, 60), (95, 175, 245), (100, 110, 30), (205, 150, 235), (110, 120, 130), (95, 225, 175),
)  # fmt: skip


def class_color(index: int) -> Color:
    """The colour of a class, red green blue from 0 to 255: 20 chosen ones, then golden steps around the wheel.

    Args:
        index: the label, from 0.
    """
    if index < len(PALETTE):
        return PALETTE[index]
    steps = ((0.45, 0.85), (0.65, 0.6), (0.3, 0.6), (0.75, 0.85), (0.55, 0.4), (0.38, 0.95))
    lightness, saturation = steps[index % len(steps)]  # 6: every 55 classes, a multiple of 5, the hues come round again
    red, green, blue = colorsys.hls_to_rgb(index * 0.61803398875 % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(
    image: Image.Image,
    boxes: Any,
    names: Sequence[str],
    scores: Sequence[float] | None = None,
    masks: Any | None = None,
    *,
    labels: Sequence[int] | None = None,
) -> Image.Image:
    """The image with boxes, plates with name and score, and translucent masks with a contour.

    Plates are placed in the order of the objects, so that the first, best ones get theirs.

    Args:
        image: any image.
        boxes: (N, 4).
        names: N names.
        scores: N, 0 to 1; none for the truth.
        masks: (N, H, W), bool.
        labels: N classes, which choose the colours; without them the names do, and two may share one.

    Returns:
        a new image, RGB, enlarged if the image is small.
    """
    canvas, factor = _enlarge(image)
    numbers = [zlib.crc32(name.encode()) % len(PALETTE) for name in names] if labels is None else list(map(int, labels))
    colors = [class_color(number) for number in numbers]
    line = max(2, round(min(canvas.size) / 300))
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * factor
    limits = np.array([canvas.width - 1, canvas.height - 1] * 2)
    frames: list[Rectangle] = [tuple(row) for row in np.clip(corners.round(), 0, limits).astype(int).tolist()]
    if masks is not None:
        masks = np.asarray(masks, dtype=bool)
        assert masks.shape == (len(colors), image.height, image.width), f"masks {masks.shape}, image {image.size}"
        for mask, color in zip(masks[::-1], colors[::-1], strict=True):  # the best one on top
            _paint_mask(canvas, mask, color, factor, max(1, line // 2))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for (x1, y1, x2, y2), color in zip(frames[::-1], colors[::-1], strict=True):
        x2, y2 = max(x1, x2), max(y1, y2)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(*_ink(color), HALO), width=line + 2)
        draw.rectangle((x1, y1, x2, y2), outline=color, width=line)
    texts = [name if scores is None else f"{name} {float(scores[index]):.0%}" for index, name in enumerate(names)]
    _draw_plates(canvas, frames, texts, colors)
    return canvas


def draw_semantic(image: Image.Image, labels: Any, classes: Sequence[str]) -> Image.Image:
    """The image under the colours of its classes, with a legend below, the largest class first.

    Args:
        image: any image.
        labels: (H, W); pixels of other labels than 0 to K - 1 are not painted.
        classes: K names.

    Returns:
        a new image, RGB, higher than the image by the legend, and enlarged if it is small.
    """
    labels = np.asarray(labels).astype(np.int64)
    known = (labels >= 0) & (labels < len(classes))
    colors = np.array([class_color(index) for index in range(len(classes))], np.uint8).reshape(-1, 3)
    canvas = _paint_regions(image, np.where(known, labels, -1), colors[np.where(known, labels, 0)])
    counts = np.bincount(labels[known], minlength=len(classes))
    present = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    return _with_legend(canvas, [(classes[index], class_color(index)) for index in present])


def draw_panoptic(
    image: Image.Image, ids: Any, segments: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> Image.Image:
    """The image under its segments: a colour per class, a shade of it per segment, a line around each.

    Args:
        image: any image.
        ids: (H, W), the segment of each pixel; pixels of ids without a segment are not painted.
        segments: of each its `id` and its `label`.
        classes: K names.

    Returns:
        a new image, RGB, with a legend that counts the segments of each class and says where pixels are in none,
        enlarged if the image is small.
    """
    ids = np.asarray(ids).astype(np.int64)
    colors, regions = np.zeros((*ids.shape, 3), np.uint8), np.full(ids.shape, -1)
    seen: Counter[int] = Counter()
    for index, segment in enumerate(segments):
        inside, label = ids == segment["id"], int(segment["label"])
        if inside.any():
            colors[inside], regions[inside] = _shade(class_color(label), seen[label]), index
            seen[label] += 1
    canvas = _paint_regions(image, regions, colors)
    entries: list[tuple[str, Color | None]] = [
        (f"{classes[label]} × {count}" if count > 1 else classes[label], class_color(label))
        for label, count in sorted(seen.items())
    ]
    if (regions < 0).any():
        entries.append(("not painted: no segment", None))
    return _with_legend(canvas, entries)


def side_by_side(left: Image.Image, right: Image.Image, titles: tuple[str, str]) -> Image.Image:
    """Two images beside each other, each under its title; their tops are aligned, for legends differ in height.

    Args:
        left: any image.
        right: any image; it is brought to the width of the left one.
        titles: what to write over them.
    """
    pair = [left.convert("RGB"), right.convert("RGB")]
    if right.width != left.width:
        height = max(1, round(right.height * left.width / right.width))
        pair[1] = pair[1].resize((left.width, height), Image.Resampling.LANCZOS)
    size = max(13, left.width // 28)
    gap, head, font = size, 2 * size, pictures._font(size)
    height = max(picture.height for picture in pair)
    sheet = Image.new("RGB", (2 * left.width + gap, height + head), BACKGROUND)
    draw, x = ImageDraw.Draw(sheet), 0
    for picture, title in zip(pair, titles, strict=True):
        sheet.paste(picture, (x, head))
        draw.text((x + size // 4, head // 2), _fitting(draw, title, font, picture.width - size // 2), INK, font, "lm")
        x += picture.width + gap
    return sheet


def mosaic(shots: Sequence[Image.Image], columns: int = 3) -> bytes:
    """Images in rows on one sheet, each shrunk to the width of its column.

    Args:
        shots: at least one, of any sizes.
        columns: images per row.

    Returns:
        a PNG file.
    """
    columns = min(columns, len(shots))
    width = min(max(picture.width for picture in shots), 2400 // columns)
    gap = max(6, width // 40)
    fitted = []
    for picture in shots:
        scale = min(1.0, width / picture.width)
        size = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))
        fitted.append(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS) if scale < 1 else picture)
    rows = [fitted[start : start + columns] for start in range(0, len(fitted), columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (columns * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)), BACKGROUND)
    y = gap
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            x = gap + column * (width + gap) + (width - picture.width) // 2
            sheet.paste(picture.convert("RGB"), (x, y))
        y += height + gap
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def pr_curves(details: Mapping[str, Any]) -> bytes:
    """Precision over recall at IoU 0.5: the mean over the classes bold, the classes thin; a panel for boxes, one for
    masks. The legend gives the area under each curve, which is AP50.

    Args:
        details: of `focalnet.metrics.detection.AveragePrecision`. Of more than 20 classes with objects, those with
            most objects are shown.
    """
    kinds = [kind for kind in ("box", "mask") if kind in details]
    figure = pictures._figure(6.6 * len(kinds), 4.4)
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        curves, rows = details[kind], details["classes"]
        there = [index for index, row in enumerate(rows) if row[f"{kind}_ap50"] is not None]
        shown = sorted(sorted(there, key=lambda index: -rows[index]["objects"])[:MOST_CURVES])
        for index in shown:
            color = [part / 255 for part in class_color(index)]
            name = pictures._plain(pictures._short(details["names"][index], 22))
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
    return pictures._png(figure)


def per_class_table(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[list[str]]:
    """The `classes` of a metric's details as a table, its head first, the worst class at the top.

    Args:
        rows: per class; the first figure sorts, and None, an undefined one, is shown as a dash at the end.
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


def _enlarge(image: Image.Image) -> tuple[Image.Image, int]:
    """An upright copy that text fits on, and by which factor it is larger."""
    upright = ImageOps.exif_transpose(image).convert("RGB")
    canvas = pictures._enlarged(upright, READABLE)
    return canvas.copy(), canvas.width // upright.width


def _repeat(values: np.ndarray, factor: int) -> np.ndarray:
    return values.repeat(factor, 0).repeat(factor, 1)


def _paint_mask(canvas: Image.Image, mask: np.ndarray, color: Color, factor: int, line: int) -> None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    top, left = rows[0], columns[0]
    part = np.pad(_repeat(mask[top : rows[-1] + 1, left : columns[-1] + 1], factor), line)
    inside = Image.fromarray(part.astype(np.uint8) * 255)
    core = inside.filter(ImageFilter.MinFilter(2 * line + 1))
    opacity = np.where(part & (np.asarray(core) == 0), 1.0, FILL) * part
    stencil = Image.fromarray((255 * opacity).astype(np.uint8))
    canvas.paste(color, (int(left) * factor - line, int(top) * factor - line), stencil)


def _paint_regions(image: Image.Image, regions: np.ndarray, colors: np.ndarray) -> Image.Image:
    """The enlarged image under the colours (H, W, 3) of its regions (H, W), -1 for none, with light lines between.

    Colours are uint8.
    """
    canvas, factor = _enlarge(image)
    size = (canvas.height // factor, canvas.width // factor)
    assert regions.shape == size, f"map {regions.shape}, image {size}"
    regions, paint = _repeat(regions, factor), Image.fromarray(_repeat(colors, factor))
    painted = Image.fromarray(np.uint8(255) * (regions >= 0))
    canvas.paste(Image.blend(canvas, paint, PAINT), mask=painted)
    border = np.zeros(regions.shape, bool)
    border[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    border[1:] |= regions[1:] != regions[:-1]
    if min(canvas.size) >= 800:
        border[:, :-1] |= border[:, 1:]
        border[:-1] |= border[1:]
    canvas.paste((255, 255, 255), mask=Image.fromarray(np.uint8(0.65 * 255) * border))
    return canvas


def _shade(color: Color, turn: int) -> Color:
    """The colour itself, then lighter and darker ones in turn."""
    towards, share = ((0, 0.0), (255, 0.35), (0, 0.35), (255, 0.6), (0, 0.55))[turn % 5]
    red, green, blue = (round((1 - share) * part + share * towards) for part in color)
    return red, green, blue


def _ink(color: Color) -> Color:
    """Black or white, whichever is read better on the colour."""
    linear = [(part / 255) ** 2.2 for part in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (255, 255, 255) if luminance < 0.3 else INK


def _draw_plates(
    canvas: Image.Image, frames: Sequence[Rectangle], texts: Sequence[str], colors: Sequence[Color]
) -> list[Rectangle]:
    """Plates at their boxes, where they cover no other plate; gives their places."""
    draw = ImageDraw.Draw(canvas)
    size = max(13, min(canvas.size) // 46)
    font, pad = pictures._font(size), max(2, size // 4)
    ascent, descent = font.getmetrics()
    height, taken = ascent + descent + pad, []
    for (x1, y1, x2, y2), text, color in zip(frames, texts, colors, strict=True):
        text = _fitting(draw, text, font, canvas.width - 2 * pad)
        width = int(np.ceil(draw.textlength(text, font))) + 2 * pad
        across = [x1, x2 - width + 1]
        down = [y1 - height, y2 + 1, y1, y2 - height + 1]
        places = [(x, y) for y in down for x in across]
        places += [(x1, y) for y in range(y1 + height, y2 - height, height)]
        for x, y in places:
            x = min(max(x, 0), canvas.width - width)
            plate = (x, y, x + width, y + height)
            if y >= 0 and plate[3] <= canvas.height and not any(_overlap(plate, other) for other in taken):
                draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
                draw.text((x + pad, y + pad // 2), text, _ink(color), font)
                taken.append(plate)
                break
    return taken


def _overlap(one: Rectangle, two: Rectangle) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _with_legend(canvas: Image.Image, entries: Sequence[tuple[str, Color | None]]) -> Image.Image:
    """The image over a strip of swatches with names; a sheet wider than the image if that is too narrow."""
    size = max(13, canvas.width // 26)
    font, square, gap = pictures._font(size), size, size // 2
    draw = ImageDraw.Draw(canvas)
    sheet_width = max(canvas.width, READABLE // 2) if entries else canvas.width
    shown: list[tuple[str, Color | None]] = list(entries[:MOST_NAMED])
    if len(entries) > MOST_NAMED:
        shown.append((f"and {len(entries) - MOST_NAMED} more", None))
    x, y, row, places = gap, canvas.height + gap, round(1.5 * size), []
    for name, color in shown:
        lead = square + gap if color else 0
        text = _fitting(draw, name, font, sheet_width - 2 * gap - lead)
        width = lead + int(np.ceil(draw.textlength(text, font)))
        if x > gap and x + width > sheet_width - gap:
            x, y = gap, y + row
        places.append((x, y, text, color, lead))
        x += width + 2 * gap
    sheet = Image.new("RGB", (sheet_width, y + row + gap // 2 if places else canvas.height), BACKGROUND)
    sheet.paste(canvas)
    draw = ImageDraw.Draw(sheet)
    for x, y, text, color, lead in places:
        if color:
            top = y + (row - square) // 2
            draw.rectangle((x, top, x + square - 1, top + square - 1), fill=color)
        draw.text((x + lead, y + row // 2), text, INK, font, "lm")
    return sheet


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: Any, width: float) -> str:
    """The text, shortened to `width` pixels."""
    while text and draw.textlength(text, font) > width:
        text = text.removesuffix("…")[:-1].rstrip() + "…" if len(text) > 1 else ""
    return text
