"""Side-by-side speed and memory, see `measure`; what it needs is imported when it begins."""

from typing import Any

from focalnet.bench.options import BenchOptions

__all__ = ["BenchOptions", "bench"]


def bench(options: BenchOptions) -> list[dict[str, Any]]:
    """Measure, print a table, and return its rows. See `measure.bench`."""
    from focalnet.bench import measure

    return measure.bench(options)
