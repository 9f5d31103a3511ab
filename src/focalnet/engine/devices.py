"""Devices and processes: an accelerate `Accelerator` for the machine that we are on."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from focalnet.engine.config import Precision
from focalnet.errors import MissingExtraError, UserError

PRECISIONS: dict[str, Precision] = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
"""accelerate's names -> ours."""


def build_accelerator(precision: Precision = "fp32", trackers: Sequence[str] = (), folder: Path | None = None) -> Any:
    """The accelerator for this process; under torchrun, one of several.

    Args:
        precision: arithmetic of the network; "auto" is bf16 where the GPU has it, fp16 on an older GPU, else fp32.
        trackers: packages to log to.
        folder: where they write.

    Raises:
        UserError: a tracker is not installed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError:
        raise MissingExtraError("Training and evaluation", "train") from None
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise UserError(f"--trackers {tracker} needs the package {tracker}: pip install {tracker}.")
    if precision == "auto":
        precision = "fp32"
        if torch.cuda.is_available():
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    mixed = next(theirs for theirs, ours in PRECISIONS.items() if ours == precision)
    if AcceleratorState._shared_state.get("_mixed_precision", mixed) != mixed:
        AcceleratorState._reset_state()  # it outlives a run, and refuses the next one another precision
    # Without `cpu`, accelerate starts several processes on CPUs as strangers to each other.
    cpu = not torch.accelerator.is_available()
    return Accelerator(mixed_precision=mixed, log_with=list(trackers) or None, project_dir=folder, cpu=cpu)
