"""Boxes, masks, label maps and text drawn on images.

Arrays and PIL images go in, PIL images come out, and Pillow is all it takes; no model, no task is known. Small images
are enlarged by a whole factor, so that text is readable beside pixels that stay pixels. A class has the same color in
all drawings. No text covers another: a plate that finds no place is left out, its box is not.

Shapes: N objects, H × W pixels, K classes. Boxes are x1 y1 x2 y2 in pixels of the image.
"""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from focalnet.inputs.image import Signal
from focalnet.visualize import style
from focalnet.visualize.fonts import Letters
from focalnet.visualize.style import BACKGROUND, INK, PALETTE, Color, class_color, ink_on, shade

Rectangle = tuple[int, int, int, int]

READABLE = 480
"""Pixels that the shorter side of an image has at most after it was enlarged."""
FILL, PAINT, HALO = 0.4, 0.55, 110
"""How opaque a mask and a label map are, of 1, and the light or dark line around a box, of 255."""
CLOSE = 320
"""Side in pixels of a closeup."""
AROUND, LEAST = 2.2, 24
"""How much larger than its box it shows, and how many pixels at least."""
MOST_NAMED = 24
"""Classes up to which a legend names all."""


def draw_detections(
    image: Signal,
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
        labels: N classes, which choose the colors; without them the names do, and two may share one.

    Returns:
        a new image, RGB, enlarged if the image is small.
    """
    canvas, factor = _enlarge(image)
    codes = [zlib.crc32(name.encode(errors="replace")) % len(PALETTE) for name in names]
    numbers = codes if labels is None else list(map(int, labels))
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
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(*ink_on(color), HALO), width=line + 2)
        draw.rectangle((x1, y1, x2, y2), outline=color, width=line)
    texts = [name if scores is None else f"{name} {float(scores[index]):.0%}" for index, name in enumerate(names)]
    _draw_plates(canvas, frames, texts, colors)
    return canvas


def closeup(image: Signal, box: Sequence[float], label: int) -> Image.Image:
    """A square of an image around a box, which is framed.

    Args:
        image: any image.
        box: x1 y1 x2 y2 in its pixels.
        label: chooses the color of the frame.
    """
    left, top, right, bottom = box
    whole = image.convert("RGB")
    side = round(min(max(AROUND * max(right - left, bottom - top), LEAST), *whole.size))
    x, y = (
        round(min(max((low + high - side) / 2, 0), most - side))
        for low, high, most in ((left, right, whole.width), (top, bottom, whole.height))
    )
    canvas = whole.crop((x, y, x + side, y + side)).resize((CLOSE, CLOSE), Image.Resampling.BICUBIC)
    frame = [round((value - start) * CLOSE / side) for value, start in zip(box, (x, y, x, y), strict=True)]
    color = class_color(label)
    draw = ImageDraw.Draw(canvas)
    for widening, width, paint in ((2, 8, ink_on(color)), (0, 4, color)):
        low, high = (max(value - widening, 0) for value in frame[:2]), (value + widening for value in frame[2:])
        (x1, y1), (x2, y2) = low, high
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=paint, width=width)
    return canvas


def draw_semantic(image: Signal, labels: Any, classes: Sequence[str]) -> Image.Image:
    """The image under the colors of its classes, with a legend below, the largest class first.

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
    image: Signal, ids: Any, segments: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> Image.Image:
    """The image under its segments: a color per class, a shade of it per segment, a line around each.

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
            colors[inside], regions[inside] = shade(class_color(label), seen[label]), index
            seen[label] += 1
    canvas = _paint_regions(image, regions, colors)
    entries: list[tuple[str, Color | None]] = [
        (f"{classes[label]} × {count}" if count > 1 else classes[label], class_color(label))
        for label, count in sorted(seen.items())
    ]
    if (regions < 0).any():
        entries.append(("not painted: no segment", None))
    return _with_legend(canvas, entries)


def annotate(image: Signal, lines: Sequence[str]) -> Image.Image:
    """The image over a strip with text, the first line larger; small images are enlarged so that it is readable.

    Args:
        image: any image.
        lines: what to write; a line that is too long for the image is shortened.

    Returns:
        a new image, RGB.
    """
    canvas = style.enlarged(image.convert("RGB"), 224)
    size = max(13, canvas.width // 22)
    sizes = [size, *[round(0.8 * size)] * (len(lines) - 1)]
    faces = [Letters(size) for size in sizes]
    margin, heights = size // 2, [round(1.35 * size) for size in sizes]
    sheet = Image.new("RGB", (canvas.width, canvas.height + sum(heights) + 2 * margin), BACKGROUND)
    sheet.paste(canvas)
    draw, y = ImageDraw.Draw(sheet), canvas.height + margin
    for line, face, height in zip(lines, faces, heights, strict=True):
        face.draw(draw, (margin, y), face.fitting(line, canvas.width - 2 * margin), INK)
        y += height
    return sheet


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
    gap, head, letters = size, 2 * size, Letters(size)
    height = max(image.height for image in pair)
    sheet = Image.new("RGB", (2 * left.width + gap, height + head), BACKGROUND)
    draw, x = ImageDraw.Draw(sheet), 0
    for image, title in zip(pair, titles, strict=True):
        sheet.paste(image, (x, head))
        text = letters.fitting(title, image.width - size // 2)
        letters.draw(draw, (x + size // 4, head // 2), text, INK, "lm")
        x += image.width + gap
    return sheet


def _enlarge(image: Signal) -> tuple[Image.Image, int]:
    """An upright copy that text fits on, and by which factor it is larger."""
    image = ImageOps.exif_transpose(image) if isinstance(image, Image.Image) else image
    upright = image.convert("RGB")
    canvas = style.enlarged(upright, READABLE)
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


def _paint_regions(image: Signal, regions: np.ndarray, colors: np.ndarray) -> Image.Image:
    """The enlarged image under the colors (H, W, 3) of its regions (H, W), -1 for none, with light lines between.

    Colors are uint8.
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


def _draw_plates(
    canvas: Image.Image, frames: Sequence[Rectangle], texts: Sequence[str], colors: Sequence[Color]
) -> list[Rectangle]:
    """Plates at their boxes, where they cover no other plate; gives their places."""
    draw = ImageDraw.Draw(canvas)
    size = max(13, min(canvas.size) // 46)
    letters, pad = Letters(size), max(2, size // 4)
    height, taken = letters.height + pad, []
    for (x1, y1, x2, y2), text, color in zip(frames, texts, colors, strict=True):
        text = letters.fitting(text, canvas.width - 2 * pad)
        width = int(np.ceil(letters.length(text))) + 2 * pad
        across = [x1, x2 - width + 1]
        down = [y1 - height, y2 + 1, y1, y2 - height + 1]
        places = [(x, y) for y in down for x in across]
        places += [(x1, y) for y in range(y1 + height, y2 - height, height)]
        for x, y in places:
            x = min(max(x, 0), canvas.width - width)
            plate = (x, y, x + width, y + height)
            if y >= 0 and plate[3] <= canvas.height and not any(_overlap(plate, other) for other in taken):
                draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
                letters.draw(draw, (x + pad, y + pad // 2), text, ink_on(color))
                taken.append(plate)
                break
    return taken


def _overlap(one: Rectangle, two: Rectangle) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _with_legend(canvas: Image.Image, entries: Sequence[tuple[str, Color | None]]) -> Image.Image:
    """The image over a strip of swatches with names; a sheet wider than the image if that is too narrow."""
    size = max(13, canvas.width // 26)
    letters, square, gap = Letters(size), size, size // 2
    sheet_width = max(canvas.width, READABLE // 2) if entries else canvas.width
    shown: list[tuple[str, Color | None]] = list(entries[:MOST_NAMED])
    if len(entries) > MOST_NAMED:
        shown.append((f"and {len(entries) - MOST_NAMED} more", None))
    x, y, row, places = gap, canvas.height + gap, round(1.5 * size), []
    for name, color in shown:
        lead = square + gap if color else 0
        text = letters.fitting(name, sheet_width - 2 * gap - lead)
        width = lead + int(np.ceil(letters.length(text)))
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
        letters.draw(draw, (x + lead, y + row // 2), text, INK, "lm")
    return sheet
