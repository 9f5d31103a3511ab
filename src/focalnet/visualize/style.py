"""One style for every drawing: the colors of classes, the font, the sizes, and how a figure becomes a file.

Drawings on images need Pillow alone; matplotlib is imported where the first figure is made. Figures are objects of
their own, so that drawing changes nothing for whoever else uses matplotlib in the process.
"""

import colorsys
import io
import warnings
from typing import TYPE_CHECKING

from PIL import Image

from focalnet.errors import MissingExtraError
from focalnet.visualize import fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

BACKGROUND: Color = (250, 250, 250)
INK: Color = (30, 30, 30)
PALETTE: tuple[Color, ...] = (
    (31, 119, 220), (255, 127, 14), (22, 150, 64), (222, 45, 53), (145, 80, 210), (0, 178, 190), (240, 80, 170),
    (188, 170, 10), (140, 86, 58), (122, 204, 60), (90, 98, 180), (250, 150, 135), (0, 110, 105), (165, 15, 90),
    (255, 200, 60), (95, 175, 245), (100, 110, 30), (205, 150, 235), (110, 120, 130), (95, 225, 175),
)  # fmt: skip
DOTS_PER_INCH = 120


def class_color(index: int) -> Color:
    """The color of a class, red green blue from 0 to 255: 20 chosen ones, then golden steps around the wheel.

    Args:
        index: the label, from 0.
    """
    if index < len(PALETTE):
        return PALETTE[index]
    steps = ((0.45, 0.85), (0.65, 0.6), (0.3, 0.6), (0.75, 0.85), (0.55, 0.4), (0.38, 0.95))
    lightness, saturation = steps[index % len(steps)]  # 6: every 55 classes, a multiple of 5, the hues come round again
    red, green, blue = colorsys.hls_to_rgb(index * 0.61803398875 % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def shade(color: Color, turn: int) -> Color:
    """The color itself, then lighter and darker ones in turn."""
    towards, share = ((0, 0.0), (255, 0.35), (0, 0.35), (255, 0.6), (0, 0.55))[turn % 5]
    red, green, blue = (round((1 - share) * part + share * towards) for part in color)
    return red, green, blue


def ink_on(color: Color) -> Color:
    """Black or white, whichever is read better on the color."""
    linear = [(part / 255) ** 2.2 for part in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (255, 255, 255) if luminance < 0.3 else INK


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """A small image by a whole factor, until its shorter side has about `side` pixels, or the longer one 4 `side`."""
    factor = max(1, min(side // min(image.size), 4 * side // max(image.size)))
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)


def short(text: str, most: int) -> str:
    """The text, shortened to `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(text: str) -> str:
    """Text that matplotlib can draw: class names may hold letters that no font has, halves of characters, and $."""
    return fonts.plottable(text).replace("$", r"\$")


def figure(width: float, height: float) -> "Figure":
    """An empty figure of matplotlib; sizes in inches.

    Raises:
        MissingExtraError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("Drawing", "train") from None
    return Figure((width, height), dpi=DOTS_PER_INCH, layout="constrained")


def bare(axes: "Axes", *, visible: bool) -> None:
    """Axes without ticks and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(visible)


def png(figure: "Figure") -> bytes:
    """The figure as a PNG file."""
    from matplotlib.text import Text

    for item in figure.findobj(Text):
        if isinstance(item, Text) and (families := fonts.families(item.get_text())):
            item.set_fontfamily(families)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it becomes a box
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
