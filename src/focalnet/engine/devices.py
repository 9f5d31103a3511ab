"""Devices and processes: where to compute, and an accelerate `Accelerator` for it."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from focalnet.engine.config import Precision
from focalnet.errors import MissingExtraError, UserError, unknown
from focalnet.inputs.ahead import cores
from focalnet.machine import multiplies_bfloat16

PRECISIONS: dict[Precision, str] = {"fp32": "no", "tf32": "no", "bf16": "bf16", "fp16": "fp16"}
"""Our names -> accelerate's."""
MOST_WORKERS = 16
"""Processes that prepare samples beside a GPU, unless more are asked for."""
MOST_BESIDE_A_CPU = 2
"""The same where the network takes the cores."""
KINDS = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that can be asked for."""
PLACE = "ACCELERATE_TORCH_DEVICE"
"""The environment variable from which accelerate takes a device; it has no argument for it."""

Device = str | torch.device | None
"""A device by name, for example "cuda:1"; None for the GPU if there is one."""


def find_device(device: Device = None) -> torch.device:
    """The device that is asked for; without a wish the GPU, else the CPU.

    Raises:
        UserError: no such device, or none that this machine has.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None:
        return accelerator or torch.device("cpu")
    kind, _, number = str(device).partition(":")
    if kind not in KINDS:
        raise unknown("device", str(device), KINDS)
    if number and not (number.isascii() and number.isdigit()):
        raise UserError(f"--device is {device}; a device has a number: {kind}:0.")
    if kind != "cpu" and (accelerator is None or accelerator.type != kind):
        there = "cpu alone" if accelerator is None else f"cpu and {accelerator.type}"
        raise UserError(f"--device is {device}, and torch finds {there} on this machine; take another one.")
    count = 1 if kind == "cpu" else torch.accelerator.device_count()
    if number and int(number) >= count:
        last = f"{kind}:0" if count == 1 else f"{kind}:0 to {kind}:{count - 1}"
        raise UserError(f"--device is {device}, and torch finds {last} on this machine; take another one.")
    return torch.device(kind, int(number)) if number and kind != "cpu" else torch.device(kind)


def build_accelerator(
    precision: Precision = "fp32",
    trackers: Sequence[str] = (),
    folder: Path | None = None,
    device: Device = None,
) -> Any:
    """The accelerator for this process; under torchrun, one of several.

    Args:
        precision: arithmetic of the network; "auto" is bf16 where the GPU has it, fp16 on an older GPU, else fp32.
        trackers: packages to log to.
        folder: where they write.
        device: where to compute.

    Raises:
        UserError: a tracker is not installed, or the device is not there.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, PartialState
    except ImportError:
        raise MissingExtraError("Training and evaluation", "train") from None
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise UserError(f"--trackers {tracker} needs the package {tracker}: pip install {tracker}.")
    where = find_device(device)
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several and where.index is not None:
        raise UserError(f"--device is {device}, and torchrun gives every process its own; leave the number out.")
    mixed = PRECISIONS[resolved(precision, where) if precision == "auto" else precision]
    # The state outlives a run, and refuses the next one another precision or device.
    before = PartialState._shared_state.get("device", where)
    if not several and (before.type, before.index or 0) != (where.type, where.index or 0):
        AcceleratorState._reset_state(reset_partial_state=True)
    elif AcceleratorState._shared_state.get("_mixed_precision", mixed) != mixed:
        AcceleratorState._reset_state()
    # Without `cpu`, accelerate starts several processes on CPUs as strangers to each other.
    build = {"mixed_precision": mixed, "log_with": list(trackers) or None, "project_dir": folder}
    if where.index is None:
        return Accelerator(**build, cpu=where.type == "cpu")
    torch.accelerator.set_device_index(where.index)
    kept = os.environ.get(PLACE)
    os.environ[PLACE] = str(where)
    try:
        return Accelerator(**build)
    finally:
        os.environ.pop(PLACE) if kept is None else os.environ.update({PLACE: kept})


def resolved(precision: Precision, device: torch.device) -> Precision:
    """What "auto" is on a device.

    Raises:
        UserError: "tf32" elsewhere than on one of NVIDIA's GPUs.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError("--precision tf32 is arithmetic of NVIDIA's GPUs, and there is none; leave it out.")
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def described(precision: Precision, device: torch.device) -> str:
    """An arithmetic in words; of one that the processor emulates, how to be faster."""
    if precision == "bf16" and device.type == "cpu" and not multiplies_bfloat16():
        return "bf16, which this processor emulates; --precision fp32 is several times as fast"
    return precision


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """A context in which products of float32 round their factors to 10 bits where the precision is "tf32"."""
    before = torch.get_float32_matmul_precision()
    if precision == "tf32" and torch.cuda.is_available():  # a run may go on elsewhere
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def worker_count(wish: int | None, batches: int, device: torch.device) -> int:
    """How many processes prepare samples.

    Args:
        wish: so many, where somebody said it.
        batches: how many there are; no more processes than that.
        device: of the network. One that is no CPU leaves the cores of the machine to its processes, of which a
            launcher says how many there are.
    """
    if wish is not None:
        return wish
    if device.type == "cpu":
        return min(MOST_BESIDE_A_CPU, cores(), batches)
    return min(MOST_WORKERS, max(cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1), batches)
