"""Pages of HTML: whole, escaped, with everything inside them."""

import base64
import io

import pytest
from PIL import Image

from focalnet.visualize.page import SHOT, Group, Section, Shot, Value, page
from html_pages import Page


def png(size=(300, 100)):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_page_has_all_that_it_is_given():
    sections = [
        Section("", groups=[Group("Accuracy", [Value("top-1", 0.99321, "share that is right"), Value("note", None)])]),
        Section("Next", commands=[("focalnet predict run", "on other images")]),
        Section("Curves", "Epoch by epoch.", png=png()),
        Section(
            "Classes",
            table=[["class", "recall", "note"], ["cat", "1,234", "x"], ["emu", "–", "y"], ["dog", 0.123456, None]],
        ),
        Section("Only text", "Nothing else."),
    ]
    made = Page(page("A run", sections, lead="today", command="focalnet train", headline=Value("best", 1.0, "of all")))
    assert made.texts == [
        *["A run", "A run", "today", "focalnet train", "1", "best", "of all"],
        *["Accuracy", "top-1", "share that is right", "0.9932", "note"],
        *["Next", "focalnet predict run", "# on other images", "Curves", "Epoch by epoch."],
        *["Classes", "class", "recall", "note", "cat", "1,234", "x", "emu", "–", "y", "dog", "0.1235"],
        *["Only text", "Nothing else."],
    ]
    (image,) = made.named("img")
    head, data = image["src"].split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == png()
    assert (image["alt"], image["width"]) == ("Curves", "240")
    assert [cell.get("class") for cell in made.named("td")] == [None, "number", None] * 3


@pytest.mark.parametrize(
    ("size", "kind", "shown"),
    [((2000, 1500), "jpeg", (SHOT, 360)), ((2000, 500), "jpeg", (2 * SHOT, 240)), ((16, 8), "png", (240, 120))],
)
def test_a_gallery_keeps_its_images_small(size, kind, shown):
    made = Page(page("t", [Section("Mistakes", gallery=[Shot(Image.new("RGB", size), "cat, not dog", "a/1.png")] * 2)]))
    assert len(made.named("img")) == 2
    head, data = made.named("img")[0]["src"].split(",")
    assert head == f"data:image/{kind};base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == shown
    assert made.texts[-2:] == ["cat, not dog", "a/1.png"]


def test_needs_nothing_beside_it():
    """No script and no address: it opens from a mail attachment, offline."""
    text = page("t", [Section("s", png=png(), table=[["a"], [1]])])
    made = Page(text)
    assert not made.named("script")
    assert not made.named("link")
    assert b"http" not in text
    assert b"@import" not in text
    assert b"prefers-color-scheme: dark" in text


def test_texts_are_escaped():
    nasty = """<script>alert("1")</script> & 'caf\udce9'"""
    section = Section(
        nasty,
        nasty,
        png=b"no image",
        table=[[nasty], [nasty]],
        groups=[Group(nasty, [Value(nasty, nasty, nasty)])],
        commands=[(nasty, nasty)],
        gallery=[Shot(Image.new("RGB", (9, 9)), nasty, nasty)],
    )
    made = Page(page(nasty, [section], lead=nasty, command=nasty, headline=Value(nasty, nasty, nasty)))
    told = nasty.replace("\udce9", "?")
    assert not made.named("script")
    assert {text.removeprefix("# ") for text in made.texts} == {told}
    assert {image["alt"] for image in made.named("img")} == {told}


def test_empty_tables():
    made = Page(page("t", [Section("s", table=[["only", "a head"]], folded=True), Section("n", table=[])]))
    assert len(made.named("table")) == 1
