"""The focal operator: one function on tensors, several backends.

`focal_context` tries `BACKENDS` in order and takes the first whose `can_run` says yes; the choice and the reason
are logged at DEBUG. The order on GPUs is what `benchmarks/gpu.py` measured. The environment variable
`FOCALNET_BACKEND` forces one by name. Plain PyTorch alone serves what relatives of FocalNet add: biases, even and dense
kernels, and `causal_focal_context`, which works in chunks.
`linear` is the other thing that FocalNet does to a feature map: a product over the channel axis. `convolve` serves
networks of sound, along frames.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from focalnet.errors import UserError, unknown
from focalnet.ops import reference
from focalnet.ops.compiling import HAS_NUMBA, HAS_TRITON, is_exporting
from focalnet.ops.frames import convolve
from focalnet.ops.linear import linear, linear_slices

__all__ = ["BACKENDS", "Backend", "causal_focal_context", "convolve", "focal_context", "linear", "linear_slices"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """One implementation of `focal_context`.

    Attributes:
        name: what `FOCALNET_BACKEND` calls it.
        can_run: takes the arguments of `focal_context`, returns (yes or no, why).
        run: takes the arguments of `focal_context`.
    """

    name: str
    can_run: Callable[..., tuple[bool, str]]
    run: Callable[..., Tensor]


NUMBA_WORK = 10**8
"""Multiplications of one call from which numba is worth the seconds that its first call takes to compile."""
KEPT = "torch.export keeps plain PyTorch"
TRITON_WORK = 2 * 10**9
"""Multiplications of one call from which the Triton kernels win over their launches, which take the host a while."""


def _beyond_the_paper(kernels: Sequence[Tensor], biases: Sequence[Tensor] | None) -> str | None:
    if biases is not None:
        return "the convolutions have a bias"
    if any(size % 2 == 0 for kernel in kernels for size in kernel.shape[2:]):
        return "a kernel is even"
    return "a kernel is dense" if any(kernel.shape[1] > 1 for kernel in kernels) else None


def _cuda_can_run(
    context: Tensor, gates: Tensor, kernels: Sequence[Tensor], biases: Sequence[Tensor] | None = None
) -> tuple[bool, str]:
    if context.device.type != "cuda" or torch.version.cuda is None:
        return False, f"its kernels run on CUDA devices, and the tensors are on {context.device.type}"
    if is_exporting():
        return False, KEPT
    beyond = _beyond_the_paper(kernels, biases)
    if beyond is not None:
        return False, f"{beyond}, which plain PyTorch alone serves"
    from focalnet.ops import cuda

    return cuda.can_run(context, gates, kernels)


def _cuda_run(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    from focalnet.ops import cuda

    return cuda.focal_context(context, gates, kernels)


def _triton_can_run(
    context: Tensor, gates: Tensor, kernels: Sequence[Tensor], biases: Sequence[Tensor] | None = None
) -> tuple[bool, str]:
    if not HAS_TRITON:
        return False, "the package triton is not installed"
    if is_exporting():
        return False, KEPT
    if context.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return False, f"its kernels run on CUDA devices, and the tensors are on {context.device.type}"
    if os.environ.get("FOCALNET_BACKEND") != "triton":
        if _learns(context, gates, kernels):
            return False, "its gradient is no faster than plain PyTorch; FOCALNET_BACKEND=triton asks for it"
        if _is_below(TRITON_WORK, context, kernels):
            return False, "the map is too small to wait for its launches"
    beyond = _beyond_the_paper(kernels, biases)
    if beyond is not None:
        return False, f"{beyond}, which plain PyTorch alone serves"
    from focalnet.ops import triton

    return triton.can_run(context, gates, kernels)


def _learns(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (context, gates, *kernels))


def _triton_run(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    from focalnet.ops import triton

    return triton.focal_context(context, gates, kernels)


def _numba_can_run(
    context: Tensor, gates: Tensor, kernels: Sequence[Tensor], biases: Sequence[Tensor] | None = None
) -> tuple[bool, str]:
    if not HAS_NUMBA:
        return False, "the package numba is not installed"
    if is_exporting():
        return False, KEPT
    if os.environ.get("FOCALNET_BACKEND") != "numba" and _is_below(NUMBA_WORK, context, kernels):
        return False, "the map is too small to wait for its compiler"
    beyond = _beyond_the_paper(kernels, biases)
    if beyond is not None:
        return False, f"{beyond}, which plain PyTorch alone serves"
    from focalnet.ops import numba

    return numba.can_run(context, gates, kernels)


def _is_below(work: int, context: Tensor, kernels: Sequence[Tensor]) -> bool:
    small = context.numel() * sum(kernel[0].numel() for kernel in kernels) < work
    if not torch.compiler.is_compiling():
        return small
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(small)  # a branch on a dynamic size would tie the graph to one side of it


def _numba_run(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    from focalnet.ops import numba

    return numba.focal_context(context, gates, kernels)


BACKENDS = [
    Backend("cuda", _cuda_can_run, _cuda_run),
    Backend("triton", _triton_can_run, _triton_run),
    Backend("numba", _numba_can_run, _numba_run),
    Backend("reference", lambda *_: (True, "plain PyTorch runs everywhere"), reference.focal_context),
]


def focal_context(
    context: Tensor, gates: Tensor, kernels: Sequence[Tensor], biases: Sequence[Tensor] | None = None
) -> Tensor:
    """Gated sum of focal levels: `sum_l g_l c_l + g_{L+1} GELU(mean(c_L))`, `c_l = GELU(dwconv_l(c_{l-1}))`.

    Yang et al. 2022, Eq. 4 and 5; channels last, S stands for 1, 2 or 3 spatial axes.

    Args:
        context: z, (B, *S, C).
        gates: (B, *S, L+1), used as they are, without activation; the last one gates the global level.
        kernels: L depth-wise kernels (C, 1, *k_l), or dense ones (C, C, *k_l) as on the time axis of Video-FocalNets;
            L may be 0. Zeros around keep the size; for an even size the odd zero is on the right, as in FocalCodec.
        biases: of the convolutions, L times (C,), as in FocalCodec; None for none.

    Returns:
        (B, *S, C).

    Raises:
        UserError: the shapes do not fit each other, or `FOCALNET_BACKEND` names a backend that is unknown or
            cannot run on these tensors.
    """
    _check(context, gates, kernels, biases, levels=len(kernels) + 1)
    arguments = (context, gates, kernels) if biases is None else (context, gates, kernels, biases)
    forced = _forced()
    for backend in BACKENDS:
        if forced is not None and backend.name != forced:
            continue
        can_run, reason = backend.can_run(*arguments)
        if not torch.compiler.is_compiling():
            log.debug("focal_context backend %s: %s (%s)", backend.name, "chosen" if can_run else "passed over", reason)
        if can_run:
            return backend.run(*arguments)
        if forced is not None:
            raise _cannot_run(forced, reason)
    raise AssertionError("the reference backend runs everywhere")


def causal_focal_context(
    context: Tensor,
    gates: Tensor,
    kernels: Sequence[Tensor],
    biases: Sequence[Tensor] | None = None,
    past: Sequence[Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The levels of a sequence that look back only: `sum_l g_l c_l`, `c_l = GELU(dwconv_l(c_{l-1}))`, l = 1..L+1.

    FocalCodec-Stream (Della Libera et al. 2025): a convolution takes the place of the mean, which would need the end
    of the sequence. Before the first position every level repeats its own first value. A sequence may come in chunks:
    what one call returns as the past goes into the next, and the results are those of the whole sequence.

    Args:
        context: z, (B, T, C).
        gates: (B, T, L+1), one per kernel.
        kernels: L+1 kernels (C, 1, k_l) of any size; the last one is of the level that reaches furthest.
        biases: of the convolutions, L+1 times (C,); None for none.
        past: per kernel the k_l - 1 values that its level read last, (B, k_l - 1, C); None at the start.

    Returns:
        (B, T, C), and the past of the next chunk. Where gradients are on, it belongs to the graph: detach it to cut.

    Raises:
        UserError: the shapes do not fit each other, or `FOCALNET_BACKEND` names a backend other than the reference.
    """
    if context.ndim != 3:
        raise UserError(f"context has {context.ndim} axes; the causal levels take sequences (B, T, C).")
    _check(context, gates, kernels, biases, levels=len(kernels))
    expected = [(context.shape[0], kernel.shape[2] - 1, context.shape[2]) for kernel in kernels]
    if past is not None and [tuple(tensor.shape) for tensor in past] != expected:
        raise UserError(f"past has the shapes {[tuple(tensor.shape) for tensor in past]}; this layer needs {expected}.")
    forced = _forced()
    if forced not in (None, "reference"):
        raise _cannot_run(forced, "causal levels run in plain PyTorch alone")
    return reference.causal_focal_context(context, gates, kernels, biases, past)


def _forced() -> str | None:
    forced = os.environ.get("FOCALNET_BACKEND")
    if forced is not None and forced not in {backend.name for backend in BACKENDS}:
        raise unknown("FOCALNET_BACKEND", forced, (backend.name for backend in BACKENDS))
    return forced


def _cannot_run(forced: str | None, reason: str) -> UserError:
    return UserError(f"FOCALNET_BACKEND={forced} cannot run here: {reason}. Unset it to let focalnet choose.")


def _check(
    context: Tensor, gates: Tensor, kernels: Sequence[Tensor], biases: Sequence[Tensor] | None, levels: int
) -> None:
    spatial, channels = context.ndim - 2, context.shape[-1]
    if spatial not in (1, 2, 3):
        raise UserError(f"context has {context.ndim} axes; focal_context takes (B, *S, C) with 1, 2 or 3 spatial axes.")
    expected = (*context.shape[:-1], levels)
    if gates.shape != expected:
        raise UserError(
            f"gates has shape {tuple(gates.shape)}; {len(kernels)} kernels on this context need {expected}."
        )
    for index, kernel in enumerate(kernels):
        if kernel.ndim != spatial + 2 or kernel.shape[0] != channels or kernel.shape[1] not in (1, channels):
            raise UserError(
                f"kernel {index} has shape {tuple(kernel.shape)}; a depth-wise kernel on this context is "
                f"({channels}, 1{', k' * spatial}), a dense one ({channels}, {channels}{', k' * spatial})."
            )
    if biases is not None and [tuple(bias.shape) for bias in biases] != [(channels,)] * len(kernels):
        raise UserError(
            f"biases have the shapes {[tuple(bias.shape) for bias in biases]}; {len(kernels)} kernels on this context "
            f"need as many of ({channels},)."
        )
