"""Settings of the Triton kernels measured on this device, for who asks: `FOCALNET_TUNE=1`.

Without it the table in `ops.triton` is taken and nothing is measured. With it, the first launch of a new kind times the
candidates, which takes seconds, and keeps the fastest in `tuned.json` in the cache folder (`$XDG_CACHE_HOME/focalnet`,
else `~/.cache/focalnet`), one entry per device and kind; delete the file to measure again. A launch that is being
captured into a CUDA graph measures nothing.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from focalnet.inputs.folders import cache_folder

log = logging.getLogger(__name__)


def enabled() -> bool:
    """Whether the user asks for settings of this device."""
    return os.environ.get("FOCALNET_TUNE", "0") not in ("", "0")


def choose(kind: str, candidates: Sequence[Any], default: Any, run: Callable[[Any], Any]) -> Any:
    """The fastest of the candidates for launches of this kind.

    Args:
        kind: what the best choice depends on, besides the device.
        candidates: settings; the file keeps their place.
        default: what to take where nothing may be measured.
        run: a launch with the given settings, that may be repeated.
    """
    known = _known()
    name = f"{_device()} | {kind}"
    if name not in known:
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return default
        times = [measure(lambda settings=settings: run(settings)) for settings in candidates]
        known[name] = min(range(len(times)), key=times.__getitem__)
        log.info("tuned %s: %s in %.4f ms", name, candidates[known[name]], min(times))
        _write(known)
    return candidates[known[name]]


def measure(run: Callable[[], Any]) -> float:
    """Median milliseconds of a launch; infinite for settings that do not fit the device."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    try:
        time: Any = do_bench(run, return_mode="median")
    except OutOfResources:
        return float("inf")
    return float(time)


def path() -> Path:
    """Where the choices are kept."""
    return cache_folder("tuned.json")


@cache
def _known() -> dict[str, int]:
    try:
        return json.loads(path().read_text())
    except (OSError, ValueError):
        return {}


def _write(known: dict[str, int]) -> None:
    target = path()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known, indent=1))
        temporary.replace(target)
    except OSError as error:
        log.info("%s could not be written (%s); measured again next time", target, error.strerror)


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "interpreter"
