"""Pages of HTML that need nothing beside them: the report of a run, the check of a data set.

Images are inside the page, there is no script, and the colors follow the reader's setting, light or dark. Every text
is escaped: the names of classes and files come from folders, and those may hold anything.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

from focalnet.visualize.style import DOTS_PER_INCH, enlarged

CSS_DOTS_PER_INCH = 96
"""A figure has as many inches on the page as in matplotlib, so that its letters have the size that was asked for."""
SHOT = 480
"""Longest side of an image of a gallery, in pixels: about two for one of the screen."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5d6776; --line: #d9dee5; --page: #fff; --card: #f4f6f8;
  --accent: #1f6feb; --bad: #b42318 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa5b3; --line: #363d47; --page: #16191d; --card: #20252b; --accent: #6ea8fe;
    --bad: #ff8a80 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .35rem }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .35rem; border-top: 1px solid var(--line); padding-top: 1.25rem }
h3 { font-size: .95rem; margin: 0 0 .5rem }
p { margin: 0 0 .75rem; color: var(--soft) }
p.lead { margin: 0 }
p.bad { color: var(--bad) }
code, pre { font: .85rem/1.6 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
pre { margin: .5rem 0 .75rem; padding: .6rem .9rem; background: var(--card); border-radius: .4rem;
  white-space: pre-wrap; overflow-wrap: anywhere }
pre .soft { color: var(--soft) }
.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1rem; margin: 1.25rem 0 .5rem }
.headline b { font-size: 3rem; line-height: 1.1; color: var(--accent); font-variant-numeric: tabular-nums }
.headline span { font-size: 1.2rem; font-weight: 600 }
.headline p { flex: 1 1 24rem; margin: 0 }
.groups { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .9rem; margin: .75rem 0 }
.group { background: var(--card); border-radius: .5rem; padding: .8rem 1rem }
dl { margin: 0; display: grid; grid-template-columns: minmax(9rem, 1fr) auto; gap: .3rem .9rem }
dl div { display: contents }
dt { color: var(--soft); font-size: .9rem }
dt small { display: block; font-size: .78rem; line-height: 1.35 }
dd { margin: 0; font-weight: 600; text-align: right; font-variant-numeric: tabular-nums }
img { display: block; max-width: 100%; height: auto; border-radius: .4rem; background: #fff }
.beside { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; align-items: flex-start }
.gallery { display: grid; gap: 1rem; margin-top: .75rem; align-items: end }
figure { margin: 0 }
figure img { width: 100%; background: none }
audio { display: block; width: 100%; margin-top: .35rem }
figure img.coarse { image-rendering: pixelated }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .35rem }
figcaption small { display: block; color: var(--soft); font-size: .78rem }
.scroll { overflow: auto; max-height: 34rem; margin-top: .75rem }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem 1.5rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line) }
th { position: sticky; top: 0; background: var(--page); color: var(--soft); font-weight: 500 }
.number { text-align: right }
summary { cursor: pointer; color: var(--accent); margin: .5rem 0 }
@media print { details > * { display: block } .scroll { max-height: none } }
"""


@dataclass(frozen=True)
class Value:
    """A number or a word with its name.

    Attributes:
        name: what it is called.
        value: floats are shown with four digits, None as nothing.
        meaning: what it says, in words, under the name.
    """

    name: str
    value: Any
    meaning: str = ""


@dataclass(frozen=True)
class Group:
    """Values that belong together, shown in one box.

    Attributes:
        title: above them.
        values: in their order.
    """

    title: str
    values: Sequence[Value]


@dataclass(frozen=True)
class Shot:
    """An image of a gallery.

    Attributes:
        image: of any size; a large one is made smaller, a tiny one shown with sharp pixels.
        caption: what to see on it.
        note: a softer line under that: the name of the file.
        sound: a WAV file, to be played under the image.
    """

    image: Image.Image
    caption: str = ""
    note: str = ""
    sound: bytes = b""


@dataclass(frozen=True)
class Section:
    """One part of a page: a heading, and below it what there is of the following, in this order.

    Attributes:
        title: the heading.
        text: a sentence under it.
        groups: boxes of values.
        commands: lines to type, each with what it does.
        png: a figure.
        gallery: images with captions.
        columns: most images of the gallery beside each other.
        table: rows of equal length, the first one is the head.
        folded: show the table only when it is asked for.
    """

    title: str
    text: str = ""
    png: bytes | None = None
    table: Sequence[Sequence[Any]] | None = None
    groups: Sequence[Group] = ()
    commands: Sequence[tuple[str, str]] = ()
    gallery: Sequence[Shot] = ()
    columns: int = 4
    folded: bool = False


def page(
    title: str, sections: Iterable[Section], *, lead: str = "", command: str = "", headline: Value | None = None
) -> bytes:
    """A page as a file.

    Args:
        title: the heading.
        sections: the parts, in order. One without a title continues the head of the page.
        lead: a line under the heading: when, how long.
        command: what was typed to get here.
        headline: the one value to know, shown large, with its meaning.
    """
    head = [f"<h1>{_text(title)}</h1>"]
    head += [f'<p class="lead">{_text(lead)}</p>'] if lead else []
    head += [f"<pre>{_text(command)}</pre>"] if command else []
    if headline is not None:
        head.append(
            f'<div class="headline"><b>{_text(headline.value)}</b><span>{_text(headline.name)}</span>'
            f"<p>{_text(headline.meaning)}</p></div>"
        )
    body = "\n".join([*head, *(_section(section) for section in sections)])
    whole = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""
    return whole.encode(errors="replace")  # the names of folders need not be text


def _section(section: Section) -> str:
    parts = [f"<h2>{_text(section.title)}</h2>"] if section.title else []
    if section.text:
        parts.append(f"<p>{_text(section.text)}</p>")
    if section.groups:
        parts.append(f'<div class="groups">{"".join(map(_group, section.groups))}</div>')
    if section.commands:
        lines = (f'{_text(line)}  <span class="soft"># {_text(what)}</span>' for line, what in section.commands)
        parts.append("<pre>" + "\n".join(lines) + "</pre>")
    beside = section.png is not None and section.table and not section.folded and not section.gallery
    if beside:
        parts.append('<div class="beside">')
    if section.png is not None:
        parts.append(_figure(section.png, section.title))
    if section.gallery:
        width = max(10.0, 68 / max(section.columns, 1) - 1)
        shots = "".join(map(_shot, section.gallery))
        style = f"grid-template-columns: repeat(auto-fill, minmax({width:.1f}rem, 1fr))"
        parts.append(f'<div class="gallery" style="{style}">{shots}</div>')
    if section.table:
        table = _table(section.table)
        more = f"{len(section.table) - 1} rows"
        parts.append(f"<details><summary>{more}</summary>{table}</details>" if section.folded else table)
    if beside:
        parts.append("</div>")
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _group(group: Group) -> str:
    values = "".join(
        f"<div><dt>{_text(value.name)}{f'<small>{_text(value.meaning)}</small>' if value.meaning else ''}</dt>"
        f"<dd>{_text(value.value)}</dd></div>"
        for value in group.values
    )
    return f'<div class="group"><h3>{_text(group.title)}</h3><dl>{values}</dl></div>'


def _figure(png: bytes, title: str) -> str:
    try:
        width = Image.open(io.BytesIO(png)).width * CSS_DOTS_PER_INCH // DOTS_PER_INCH
    except OSError:
        width = 0
    size = f' width="{width}"' if width else ""
    return f'<img alt="{_text(title)}"{size} src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _shot(shot: Shot) -> str:
    """Photographs as JPEG, which is a tenth of the size; images of few pixels as PNG."""
    image, coarse, buffer = shot.image.convert("RGB"), max(shot.image.size) <= SHOT // 4, io.BytesIO()
    if coarse:
        enlarged(image, SHOT // 4).save(buffer, "PNG")
    else:
        longest = SHOT * 2 if image.width > 1.5 * image.height else SHOT
        image.thumbnail((longest, longest))
        image.save(buffer, "JPEG", quality=88)
    kind = "png" if coarse else "jpeg"
    data = base64.b64encode(buffer.getvalue()).decode()
    note = f"<small>{_text(shot.note)}</small>" if shot.note else ""
    wav = base64.b64encode(shot.sound).decode()
    player = f'<audio controls src="data:audio/wav;base64,{wav}"></audio>' if wav else ""
    return (
        f'<figure><img alt="{_text(shot.caption)}"{" class=coarse" if coarse else ""} '
        f'src="data:image/{kind};base64,{data}">{player}<figcaption>{_text(shot.caption)}{note}</figcaption></figure>'
    )


def _table(rows: Sequence[Sequence[Any]]) -> str:
    head, *body = rows
    assert all(len(row) == len(head) for row in body), "the rows of a table have one length"
    right = [bool(body) and all(_is_number(row[column]) for row in body) for column in range(len(head))]

    def line(row: Sequence[Any], tag: str) -> str:
        opened = [f'<{tag} class="number">' if number else f"<{tag}>" for number in right]
        return "".join(f"{start}{_text(cell)}</{tag}>" for start, cell in zip(opened, row, strict=True))

    lines = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in body)
    table = f"<table>\n<thead><tr>{line(head, 'th')}</tr></thead>\n<tbody>{lines}</tbody>\n</table>"
    return f'<div class="scroll">{table}</div>'


def _is_number(cell: Any) -> bool:
    if cell == "–":  # a metric that is not defined
        return True
    try:
        float(cell.replace(",", "").rstrip("%").strip() if isinstance(cell, str) else cell)
    except (TypeError, ValueError):
        return False
    return not isinstance(cell, bool)


def _text(value: Any) -> str:
    return escape("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value))
