"""Checks of a matplotlib figure: the titles on it, and that no text covers another or leaves it."""

import itertools


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
