"""Reads a page of HTML as the tests want it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects text, tags and attributes.

    Args:
        content: of the file.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(content.decode())
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
