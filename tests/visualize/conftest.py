"""What the tests of drawings share: the matplotlib figure behind a PNG file."""

from typing import Any

import pytest

from focalnet.visualize import style


@pytest.fixture
def figure(monkeypatch) -> Any:
    """Makes a drawing and gives the matplotlib figure instead of the file."""
    monkeypatch.setattr(style, "png", lambda figure: figure)

    def draw(function, *arguments, **options):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        made = function(*arguments, **options)
        FigureCanvasAgg(made).draw()
        return made

    return draw
