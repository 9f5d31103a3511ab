"""The report of a run: one HTML file that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focalnet.engine.run import write_atomically
from focalnet.visualize.page import Group, Section, Value, page


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
    values = [Value(name, value) for name, value in summary.items()]
    write_atomically(path, page(title, [Section("", groups=[Group("Summary", values)]), *sections]))
