"""The report of a run: one HTML file that needs nothing beside it.

Images are inside the file, there is no script, and the colors follow the reader's setting, light or dark. Every
text is escaped: class names come from folder names, and those may hold anything.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from focalnet.engine.run import write_atomically
from focalnet.tasks.base import Section

STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #667080; --line: #d9dee5; --page: #fff; --card: #f4f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #98a2b0; --line: #363d47; --page: #16191d; --card: #20252b }
}
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 1rem }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; border-top: 1px solid var(--line); padding-top: 1.5rem }
p { margin: 0 0 .75rem; color: var(--soft) }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .6rem; margin: 0 }
dl div { background: var(--card); border-radius: .4rem; padding: .5rem .75rem }
dt { color: var(--soft); font-size: .8rem }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere }
img { display: block; max-width: 100%; height: auto; border-radius: .4rem; background: #fff }
.wide { overflow-x: auto; max-height: 32rem; overflow-y: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem 1.5rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line) }
th { position: sticky; top: 0; background: var(--page); color: var(--soft); font-weight: 500 }
.number { text-align: right }
"""


def write_report(path: Path, *, title: str, summary: Mapping[str, Any], sections: Sequence[Section]) -> None:
    """Write a report under a temporary name and rename it.

    Args:
        path: the HTML file.
        title: heading and page title.
        summary: name -> value, shown first.
        sections: the parts, in order.

    Raises:
        UserError: the disk is full or read-only; an older report is still there.
    """
    metrics = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in summary.items())
    parts = "\n".join(_section(section) for section in sections)
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{_text(title)}</h1>
<dl>{metrics}</dl>
{parts}
</body>
</html>
"""
    write_atomically(path, page.encode(errors="replace"))  # folder names need not be text


def _section(section: Section) -> str:
    parts = [f"<h2>{_text(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{_text(section.text)}</p>")
    if section.png is not None:
        data = base64.b64encode(section.png).decode()
        parts.append(f'<img alt="{_text(section.title)}" src="data:image/png;base64,{data}">')
    if section.table:
        parts.append(_table(section.table))
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _table(rows: Sequence[Sequence[Any]]) -> str:
    head, *body = rows
    assert all(len(row) == len(head) for row in body), "the rows of a table have one length"
    right = [bool(body) and all(_is_number(row[column]) for row in body) for column in range(len(head))]

    def line(row: Sequence[Any], tag: str) -> str:
        opened = [f'<{tag} class="number">' if number else f"<{tag}>" for number in right]
        return "".join(f"{start}{_text(cell)}</{tag}>" for start, cell in zip(opened, row, strict=True))

    lines = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in body)
    table = f"<table>\n<thead><tr>{line(head, 'th')}</tr></thead>\n<tbody>{lines}</tbody>\n</table>"
    return f'<div class="wide">{table}</div>'


def _is_number(cell: Any) -> bool:
    if cell == "–":  # a metric that is not defined
        return True
    try:
        float(cell.replace(",", "") if isinstance(cell, str) else cell)
    except (TypeError, ValueError):
        return False
    return not isinstance(cell, bool)


def _text(value: Any) -> str:
    return escape("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value))
