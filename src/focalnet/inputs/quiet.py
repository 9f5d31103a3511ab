"""Decoders' remarks on files that they decode all the same are not shown, in one thread or in many.

`warnings.catch_warnings` puts back what it found when it was entered: of two threads that overlap, the one that leaves
last may leave the filters of the other behind for good. Here the first thread that decodes sets them, and the last one
puts back what was there.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

DECODERS = r"(PIL|tifffile|torchvision|numpy|focalnet\.inputs)\b"
"""Modules whose warnings are ignored, as a regular expression."""

_lock = threading.RLock()
_inside: list[warnings.catch_warnings] = []
"""One entry per thread that decodes; the first one knows what was there before."""


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Ignore the warnings of decoders."""
    with _lock:
        entry: warnings.catch_warnings = _inside[0] if _inside else warnings.catch_warnings()
        if not _inside:
            entry.__enter__()
            warnings.filterwarnings("ignore", module=DECODERS)
        _inside.append(entry)
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if not _inside:
                entry.__exit__(None, None, None)
