"""The report: whole, self-contained, escaped, and never half written."""

import base64
from html.parser import HTMLParser

import pytest

from focalnet.engine import report
from focalnet.engine.report import write_report
from focalnet.tasks.base import Section

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects text, tags and attributes."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.texts.append(data.strip())

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_report(tmp_path):
    path = tmp_path / "report.html"
    sections = [
        Section("Curves", "Epoch by epoch.", png=b"\x89PNG not really"),
        Section(
            "Classes",
            table=[["class", "recall", "note"], ["cat", "1,234", "x"], ["emu", "–", "y"], ["dog", 0.123456, None]],
        ),
        Section("Only text", "Nothing else."),
    ]
    write_report(path, title="A run", summary={"top1": 0.99321, "epochs": 30}, sections=sections)
    page = Page(path)
    assert page.texts[:6] == ["A run", "A run", "top1", "0.9932", "epochs", "30"]
    assert page.texts[6:] == [
        *[
            "Curves",
            "Epoch by epoch.",
            "Classes",
            "class",
            "recall",
            "note",
            "cat",
            "1,234",
            "x",
            "emu",
            "–",
            "y",
            "dog",
            "0.1235",
        ],
        *["Only text", "Nothing else."],
    ]
    (image,) = page.named("img")
    head, data = image["src"].split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == sections[0].png
    assert image["alt"] == "Curves"
    assert [cell.get("class") for cell in page.named("td")] == [None, "number", None] * 3


def test_needs_nothing_beside_it(tmp_path):
    """No script and no address: it opens from a mail attachment, offline."""
    path = tmp_path / "report.html"
    write_report(path, title="t", summary={}, sections=[Section("s", png=b"x", table=[["a"], [1]])])
    page = Page(path)
    assert not page.named("script")
    assert not page.named("link")
    text = path.read_text()
    assert "http" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_texts_are_escaped(tmp_path):
    nasty = """<script>alert("1")</script> & 'caf\udce9'"""
    path = tmp_path / "report.html"
    sections = [Section(nasty, nasty, png=b"x", table=[[nasty], [nasty]])]
    write_report(path, title=nasty, summary={nasty: nasty}, sections=sections)
    page = Page(path)
    assert not page.named("script")
    assert page.texts == [nasty.replace("\udce9", "?")] * 8
    assert page.named("img")[0]["alt"] == nasty.replace("\udce9", "?")


def test_an_older_report_survives(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(path, title="old", summary={}, sections=[])
    before = path.read_bytes()

    def fail(path, content):
        assert content.startswith(b"<!DOCTYPE html>")
        raise OSError("disk full")

    monkeypatch.setattr(report, "write_atomically", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, title="new", summary={}, sections=[])
    assert path.read_bytes() == before
    monkeypatch.undo()
    write_report(path, title="new", summary={}, sections=[])
    assert b"new" in path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_empty_tables(tmp_path):
    write_report(
        tmp_path / "r.html",
        title="t",
        summary={},
        sections=[Section("s", table=[["only", "a head"]]), Section("n", table=[])],
    )
    assert len(Page(tmp_path / "r.html").named("table")) == 1
