"""The focal operator on tensor cores: launches the kernels of `focal.cu`, compiled by NVRTC for the map at hand.

One launch forward, two backward; a map is read and written once. For float16 and bfloat16, and for maps of which
eight channels, or four, fit into the shared memory of a multiprocessor: up to about 60 x 60 on a Hopper card, which
are all maps of an image of 224 pixels. The gradient of a map that only fits forward comes from the Triton kernels.

Keeps nothing for the backward pass but its inputs. Sums are float32, and two runs give the same bits. There is no
second derivative.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from focalnet.ops import nvrtc, reference
from focalnet.ops.compiling import HAS_TRITON, is_transformed
from focalnet.ops.plan import DTYPES, LEVELS, WORD, maps

REDUCE_THREADS = 256


def can_run(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> tuple[bool, str]:
    """Whether the kernels take these tensors, and why. Under torch.compile the sizes are looked at when it runs."""
    why = nvrtc.missing()
    if why is not None:
        return False, why
    if context.ndim != 4:
        return False, "only images run on tensor cores"
    if gates.dtype != context.dtype or any(kernel.dtype != kernels[0].dtype for kernel in kernels):
        return False, f"gates are {gates.dtype} and context is {context.dtype}, or kernels differ in type"
    if any(kernel.shape[2] != kernel.shape[3] for kernel in kernels):
        return False, "a kernel is not square"
    if torch.compiler.is_compiling():
        return context.dtype in DTYPES and context.shape[3] % WORD == 0, "the rest is seen when it runs"
    if is_transformed():
        return False, "it knows neither torch.func nor forward derivatives"
    why = maps(context, kernels).refused
    return why is None, why or "it fits into shared memory"


def focal_context(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """See `focalnet.ops.focal_context`."""
    if torch.compiler.is_compiling():
        return _forward_operator(context, gates, list(kernels))
    if not torch.is_grad_enabled():
        return _forward(context, gates, kernels)
    return _Function.apply(context, gates, *kernels)


class _Function(torch.autograd.Function):
    """Eager mode: a call of an operator of torch.library costs more time than the launch."""

    @staticmethod
    def forward(ctx: Any, context: Tensor, gates: Tensor, *kernels: Tensor) -> Tensor:
        ctx.save_for_backward(context, gates, *kernels)
        return _forward(context, gates, kernels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        context, gates, *kernels = ctx.saved_tensors
        grad_context, grad_gates, grad_kernels = _backward(grad, context, gates, kernels)
        return grad_context, grad_gates, *grad_kernels


@torch.library.custom_op("focalnet::focal_context_on_tensor_cores", mutates_args=())
def _forward_operator(context: Tensor, gates: Tensor, kernels: list[Tensor]) -> Tensor:
    return _forward(context, gates, kernels)


@_forward_operator.register_fake
def _(context: Tensor, gates: Tensor, kernels: list[Tensor]) -> Tensor:
    return context.new_empty(context.shape)


@torch.library.custom_op("focalnet::focal_context_on_tensor_cores_backward", mutates_args=())
def _backward_operator(
    grad: Tensor, context: Tensor, gates: Tensor, kernels: list[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    grad_context, grad_gates, grad_kernels = _backward(grad, context, gates, kernels)
    return grad_context, grad_gates, [kernel.clone() for kernel in grad_kernels]  # one memory each


@_backward_operator.register_fake
def _(grad: Tensor, context: Tensor, gates: Tensor, kernels: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    return (
        context.new_empty(context.shape), gates.new_empty(gates.shape), [torch.empty_like(kernel) for kernel in kernels]
    )  # fmt: skip


def _keep(ctx: Any, inputs: Any, output: Tensor) -> None:
    context, gates, kernels = inputs
    ctx.save_for_backward(context, gates, *kernels)


def _differentiate(ctx: Any, grad: Tensor) -> Any:
    context, gates, *kernels = ctx.saved_tensors
    return _backward_operator(grad, context, gates, kernels)


_forward_operator.register_autograd(_differentiate, setup_context=_keep)


def _forward(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    known = maps(context, kernels)
    plan = known.forward
    if plan is None or known.refused:
        return _other_forward(context, gates, kernels)
    context = _aligned(context)
    out = torch.empty(context.shape, dtype=context.dtype, device=context.device)
    _launch(
        plan.program, "forward", plan.grid, plan.threads, plan.shared,
        [context, gates, *_pointers(kernels), out, *context.shape, *context.stride()[:3], *gates.stride(), plan.images,
         plan.tail],
    )  # fmt: skip
    return out


def _backward(
    grad: Tensor, context: Tensor, gates: Tensor, kernels: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    known = maps(context, kernels)
    plan = known.backward
    if plan is None or known.refused:
        return _other_backward(grad, context, gates, kernels)
    context, grad = _aligned(context), _aligned(grad)
    (_, chunks), device, taps = plan.grid, context.device, plan.taps
    grad_context = torch.empty(context.shape, dtype=context.dtype, device=device)
    grad_gates = torch.empty(gates.shape, dtype=context.dtype, device=device)
    grad_kernels = torch.empty(taps, dtype=kernels[0].dtype, device=device)
    rows = context.shape[3] // min(plan.channels, WORD)
    gate_parts = torch.empty((rows, *gates.shape), dtype=torch.float32, device=device)
    weight_parts = torch.empty((chunks * plan.warps, taps), dtype=torch.float32, device=device)
    _launch(
        plan.program, "backward", plan.grid, plan.threads, plan.shared,
        [context, gates, *_pointers(kernels), grad, grad_context, gate_parts, weight_parts, *context.shape,
         *context.stride()[:3], *gates.stride(), *grad.stride()[:3], plan.images, plan.tail],
    )  # fmt: skip
    columns = grad_gates.numel()
    _launch(
        plan.program, "reduce", (-(-(columns + taps) // REDUCE_THREADS), 1), REDUCE_THREADS, 0,
        [gate_parts, grad_gates, rows, columns, weight_parts, grad_kernels, chunks * plan.warps, taps],
    )  # fmt: skip
    split = grad_kernels.split([kernel.numel() for kernel in kernels])
    return grad_context, grad_gates, [part.view(kernel.shape) for part, kernel in zip(split, kernels, strict=True)]


def _other_forward(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Of maps that do not fit: a compiled graph learns that when it runs."""
    if HAS_TRITON:
        from focalnet.ops import triton

        return triton.focal_context(context, gates, kernels)
    return reference.focal_context(context, gates, kernels)


def _other_backward(
    grad: Tensor, context: Tensor, gates: Tensor, kernels: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    if HAS_TRITON:
        from focalnet.ops import triton

        return triton.backward(grad, context, gates, list(kernels))
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (context, gates, *kernels)]
        out = reference.focal_context(leaves[0], leaves[1], leaves[2:])
    grad_context, grad_gates, *grad_kernels = torch.autograd.grad(out, leaves, grad)
    return grad_context, grad_gates, grad_kernels


def _aligned(x: Tensor) -> Tensor:
    """Eight channels of a position are read as one word of 16 bytes."""
    image, row, column, channel = x.stride()
    whole = channel == 1 and not (image % WORD or row % WORD or column % WORD or x.data_ptr() % 16)
    return x if whole else x.contiguous()


def _pointers(kernels: Sequence[Tensor]) -> list[Tensor | None]:
    return [*[kernel.contiguous() for kernel in kernels], *[None] * (LEVELS - len(kernels))]


def _launch(
    program: nvrtc.Program, name: str, grid: tuple[int, int], threads: int, shared: int,
    arguments: Sequence[Tensor | int | None],
) -> None:  # fmt: skip
    first = arguments[0]
    assert isinstance(first, Tensor)
    if first.device.index == torch.cuda.current_device():
        return program.launch(name, grid, threads, shared, arguments)
    with torch.cuda.device(first.device):
        return program.launch(name, grid, threads, shared, arguments)
