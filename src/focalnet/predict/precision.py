"""The arithmetic of a network that predicts."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, get_args

import torch

from focalnet.errors import UserError
from focalnet.models.create import load_model
from focalnet.models.exported import is_exported, open_exported
from focalnet.weights.sources import Source

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


def load(model: str, weights: Source | None, precision: Precision) -> Any:
    """`load_model`, and of an exported file the network in it, which computes in `precision` by itself.

    Raises:
        UserError: as `load_model`, and a precision that the file or the processor does not have.
    """
    return open_exported(model, precision) if weights is None and is_exported(model) else load_model(model, weights)


def arithmetic(
    network: Any, precision: Precision, device: torch.device
) -> Callable[[], AbstractContextManager[object]]:
    """Makes contexts in which a network computes so.

    Args:
        network: the network; one in an exported file computes by itself as it was opened.
        precision: "fp32"; "tf32", which rounds the factors of products to 10 bits; "bf16" or "fp16" where
            `torch.autocast` deems them safe.
        device: where.

    Raises:
        UserError: an unknown precision, or one that the device does not have.
    """
    if precision not in get_args(Precision):
        raise UserError(f"--precision is {precision}; give {', '.join(get_args(Precision))}.")
    if getattr(network, "exported", None):
        if precision != network.precision:
            raise UserError(
                f"--precision is {precision}, and the exported file was opened in {network.precision}; give its path."
            )
        return nullcontext
    if precision == "fp32":
        return nullcontext
    if precision == "tf32":
        if device.type != "cuda":
            raise UserError("--precision tf32 is arithmetic of NVIDIA's GPUs, and there is none; leave it out.")
        return _tf32
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("--precision bf16 is nothing that this GPU has; give fp16.")
    return partial(torch.autocast, device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
