"""Names in any script are drawn with a font that has them, or by their codes: never as empty squares."""

import logging

import numpy as np
import pytest
from PIL import Image

from focalnet.visualize import fonts
from focalnet.visualize.draw import annotate, draw_detections, draw_semantic, side_by_side
from focalnet.visualize.fonts import Letters, runs, written
from focalnet.visualize.plots import confusion, contact_sheet

NAMES = ["猫", "قطة سوداء", "बिल्ली", "犬ネコ", "кошка", "Ａ", "\udcff half", "line\nbreak", "a$b"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing was looked for yet, and this system has no other fonts."""
    monkeypatch.setattr(fonts, "candidates", lambda letter: [])
    monkeypatch.setattr(fonts, "_chosen", [])
    monkeypatch.setattr(fonts, "_told", set())
    fonts.font_of.cache_clear()
    yield
    fonts.font_of.cache_clear()


def test_letters_that_no_font_has_are_codes_and_told_once(caplog):
    with caplog.at_level(logging.WARNING, "focalnet"):
        assert [written(name) for name in NAMES[:1] * 3] == ["\\u732b"] * 3
        assert written("猫 cat 93%") == "\\u732b cat 93%"
        assert written("狗") == "\\u72d7"
    (record,) = caplog.records
    assert "猫 (CJK)" in record.getMessage()
    assert "fonts-noto-cjk" in record.getMessage()
    assert written("ब्") == "\\u092c\\u094d", "marks too"
    assert written("Ａ\u200b") in ("A", "A\u200b")
    assert written("\udcff half") == "? half"
    assert written("кошка é") == "кошка é"


def test_a_font_of_the_system_is_looked_for_once(monkeypatch, tmp_path):
    """The font has the letters, as a stand-in for one that a system may lack."""
    asked = []
    other = fonts.base_path().replace("DejaVuSans.ttf", "DejaVuSerif.ttf")
    files = [str(tmp_path / "broken.ttf"), other]
    monkeypatch.setattr(fonts, "candidates", lambda letter: asked.append(letter) or files)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    real = fonts._letters
    extra = frozenset(map(ord, "猫狗 "))
    monkeypatch.setattr(fonts, "_letters", lambda path: real(path) | extra if path == other else real(path))
    assert list(runs("a 猫 狗, b")) == [(None, "a "), (other, "猫 狗, "), (None, "b")]
    assert asked == ["猫"], "the font in use is asked first"
    letters = Letters(20)
    assert letters.length("a 猫 b") > letters.length("a  b")
    assert fonts.families("a 猫") == ["DejaVu Sans", "DejaVu Serif"]
    assert fonts.families("abc") == []
    assert len(contact_sheet([Image.new("RGB", (9, 9))], ["猫"])) > 1000


def test_numbers_stay_on_the_right_of_words_that_run_to_the_left():
    mark = fonts.RIGHTWARDS
    assert written("قطة 93%") == f"{mark}قطة {mark}93%"
    assert written(written("قطة 93%")) == written("قطة 93%")
    assert written("cat 93%") == "cat 93%"


def test_without_shaping_such_letters_are_codes(monkeypatch):
    monkeypatch.setattr(fonts.features, "check", lambda name: False)
    assert written("قط") == "\\u0642\\u0637"
    assert written("кот") == "кот"


def test_every_drawing_takes_every_name():
    image = Image.fromarray(np.full((60, 80, 3), 90, np.uint8))
    boxes = [[5 * i, 5, 5 * i + 20, 30] for i in range(len(NAMES))]
    drawn = draw_detections(image, boxes, NAMES, [0.5] * len(NAMES))
    legend = draw_semantic(image, np.arange(80)[None].repeat(60, 0) % len(NAMES), NAMES)
    side_by_side(drawn, legend, (NAMES[0], NAMES[1]))
    annotate(image, NAMES)
    confusion(np.eye(len(NAMES), dtype=int), NAMES)


def test_plain_text_is_drawn_as_ever():
    """One run in the usual font is one call of Pillow's, to the pixel."""
    from PIL import ImageDraw

    one, two = Image.new("RGB", (200, 40)), Image.new("RGB", (200, 40))
    Letters(20).draw(ImageDraw.Draw(one), (3, 20), "tulip 93%", "white", "lm")
    ImageDraw.Draw(two).text((3, 20), "tulip 93%", "white", fonts.font(None, 20), "lm")
    assert np.array_equal(np.asarray(one), np.asarray(two))


def test_candidates_are_plain_fonts_first(monkeypatch):
    ranked = sorted(["/f/NotoSans-Bold.ttf", "/f/NotoSerif.ttf", "/f/NotoSans-Regular.ttf"], key=fonts._rank)
    assert ranked[0] == "/f/NotoSans-Regular.ttf"
