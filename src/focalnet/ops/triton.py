"""The focal operator in Triton: launches its kernels, and is one operator to autograd, compile and CUDA graphs.

For maps that do not fit into the shared memory that `ops.cuda` needs, for float32 and for sequences, which are images
of one row. Keeps nothing for the backward pass but its inputs: the levels are computed again, which is faster than to
read them. Reads and writes maps in memory 3L + 1 times forward (plain PyTorch: about 34 for L = 3). Storage is float16,
bfloat16 or float32, sums are float32. Two runs on one device give the same bits. There is no second derivative.

Nothing is tuned while a user waits: `SETTINGS` are taken. With `FOCALNET_TUNE=1` they are measured on the device and
kept (`tuning`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from focalnet.ops import kernels, tuning

k: Any = kernels  # a launch takes options, such as num_warps, that no signature names


@dataclass(frozen=True)
class Settings:
    """How one level is cut into programs; every thread owns one strip of `COLUMNS` outputs and 16 bytes of channels.

    Attributes:
        block: channels of a program.
        warps: of 32 threads.
    """

    block: int = 64
    warps: int = 2


SETTINGS = Settings()
CANDIDATES = tuple(Settings(block, warps) for block, warps in ((64, 2), (64, 1), (64, 4), (32, 1), (128, 2), (128, 4)))
"""What tuning tries."""
LARGEST_BLOCK = max(settings.block for settings in CANDIDATES)
COLUMNS = 7
"""Outputs of a strip: it divides 56, 28, 14 and 7, the maps of an image of 224 pixels."""
WEIGHT_SUMS = 14
"""Sums that a thread of the weight gradient keeps per channel: rows of the kernel times its width."""
WEIGHT_PROGRAMS = 2048
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
KERNEL_LIMIT = 15


def can_run(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> tuple[bool, str]:
    """Whether the kernels take these tensors, and why."""
    if context.ndim > 4:
        return False, "volumes run in plain PyTorch"
    if not kernels:
        return False, "there is no level to convolve"
    if context.dtype not in DTYPES or gates.dtype != context.dtype:
        return False, f"context is {context.dtype} and gates are {gates.dtype}; both must be one of {DTYPES}"
    largest = max(max(kernel.shape[2:]) for kernel in kernels)
    if largest > KERNEL_LIMIT:
        return False, f"a kernel of {largest} is wider than {KERNEL_LIMIT}"
    return True, f"{context.dtype} on {context.device.type}"


def focal_context(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """See `focalnet.ops.focal_context`."""
    if context.ndim == 3:
        context, gates = context.unsqueeze(1), gates.unsqueeze(1)
        return focal_context(context, gates, [kernel.unsqueeze(2) for kernel in kernels]).squeeze(1)
    return _forward(context, gates, list(kernels))


@torch.library.custom_op("focalnet::focal_context", mutates_args=())
def _forward(context: Tensor, gates: Tensor, kernels: list[Tensor]) -> Tensor:
    with torch.cuda.device_of(context):  # Triton launches on the current device
        context = _rows_of_channels(context)
        levels, _, mean = _levels(context, kernels, _pack(kernels), slopes=False)
        out = torch.empty_like(levels[0])
        batch, height, width, channels = context.shape
        block = _block(channels)
        positions = max(16, 2048 // block)
        k.aggregate_kernel[(triton.cdiv(height * width, positions), triton.cdiv(channels, block), batch)](
            levels, gates, mean, out, height, width, channels, levels.stride(0), *gates.stride(),
            L=len(kernels), BP=positions, BC=block, num_warps=4,
        )  # fmt: skip
        return out


@_forward.register_fake
def _(context: Tensor, gates: Tensor, kernels: list[Tensor]) -> Tensor:
    return context.new_empty(context.shape)


@torch.library.custom_op("focalnet::focal_context_backward", mutates_args=())
def _backward(
    grad: Tensor, context: Tensor, gates: Tensor, kernels: list[Tensor], weights: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    with torch.cuda.device_of(context):  # Triton launches on the current device
        context, grad = _rows_of_channels(context), _rows_of_channels(grad)
        batch, height, width, channels = context.shape
        packed = _pack(kernels)
        levels, slopes, mean = _levels(context, kernels, packed, slopes=True)
        assert slopes is not None
        grads = slopes  # of the levels before GELU take their place
        block = _block(channels)
        positions = 32
        tiles = triton.cdiv(height * width, positions)
        parts = context.new_empty((batch, tiles, channels), dtype=torch.float32)
        grad_gates = torch.empty_like(gates, memory_format=torch.contiguous_format)
        align, *grad_strides = _strides(grad)
        k.gates_backward_kernel[(tiles, batch)](
            grad, levels, gates, mean, grad_gates, parts, height, width, channels, levels.stride(0), *gates.stride(),
            *grad_strides, GRAD_ALIGN=align, L=len(kernels), LEVELS=triton.next_power_of_2(len(kernels) + 1),
            BP=positions, BC=block, num_warps=4,
        )  # fmt: skip
        pooled_grad = _sum(parts, 1.0)
        grad_context = torch.empty_like(levels[0])
        grad_kernels = []
        for level in reversed(range(len(kernels))):
            last = level + 1 == len(kernels)
            source, weight = (grad, None) if last else (grads[level + 1], packed[level + 1])
            size = (0, 0) if last else kernels[level + 1].shape[2:]
            _launch_level(source, weight, size, k.BACKWARD, out=grads[level], slope=slopes[level], grad=grad,
                          gates=gates[..., level], pooled=(mean, pooled_grad) if last else None)  # fmt: skip
            if weights:
                grad_kernels.append(_weights(grads[level], levels[level - 1] if level else context, kernels[level]))
        _launch_level(grads[0], packed[0], kernels[0].shape[2:], k.PLAIN, out=grad_context)
        return grad_context, grad_gates, grad_kernels[::-1]


def backward(
    grad: Tensor, context: Tensor, gates: Tensor, kernels: list[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The gradients of `focal_context` by its context, gates and kernels."""
    return _backward(grad, context, gates, kernels, True)


@_backward.register_fake
def _(
    grad: Tensor, context: Tensor, gates: Tensor, kernels: list[Tensor], weights: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    grads = [torch.empty_like(kernel) for kernel in kernels] if weights else []
    return context.new_empty(context.shape), gates.new_empty(gates.shape), grads


def _keep(ctx, inputs, output) -> None:
    context, gates, kernels = inputs
    ctx.save_for_backward(context, gates, *kernels)


def _differentiate(ctx, grad: Tensor) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    context, gates, *kernels = ctx.saved_tensors
    weights = any(ctx.needs_input_grad[2])
    grad_context, grad_gates, grad_kernels = _backward(grad, context, gates, kernels, weights)
    return grad_context, grad_gates, list(grad_kernels) if weights else [None] * len(kernels)


def _no_second_derivative(ctx, *grads):
    raise NotImplementedError(
        "the Triton backend of focal_context has no second derivative; set FOCALNET_BACKEND=reference for one."
    )


_forward.register_autograd(_differentiate, setup_context=_keep)
_backward.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)


def _rows_of_channels(x: Tensor) -> Tensor:
    """The kernels need the channels of a position side by side, and read words of 16 bytes: else a copy is faster."""
    word = 16 // x.element_size()
    narrow = x.shape[-1] % word == 0 and (_strides(x)[0] < word or x.data_ptr() % 16 != 0)
    return x.contiguous() if narrow or (x.stride(-1) != 1 and x.shape[-1] != 1) else x


def _block(channels: int) -> int:
    """Channels of a program that has no settings: the block out of 64 and 32 that wastes least."""
    return min(64 if channels % 64 == 0 or channels > 256 else 32, triton.next_power_of_2(channels))


def _strides(x: Tensor) -> list[int]:
    """The largest word that rows of channels are aligned to, at most 16 bytes, in elements; the strides in words."""
    strides = x.stride()[:3]
    align = math.gcd(*strides, 16 // x.element_size())
    return [align, *(stride // align for stride in strides)]


def _pack(kernels: list[Tensor]) -> list[Tensor]:
    """Per kernel (KH * KW, C) in float32: a tap is a row of channels. Behind the last one a block may be read."""
    flat = torch.cat([kernel.detach().reshape(kernel.shape[0], -1) for kernel in kernels], dim=1)
    memory = flat.new_empty(flat.numel() + LARGEST_BLOCK, dtype=torch.float32)
    packed = memory[: flat.numel()].view(flat.shape[::-1]).copy_(flat.t())
    return list(packed.split([kernel[0].numel() for kernel in kernels]))


def _tile(source: Tensor, settings: Settings) -> dict[str, int]:
    """Columns, positions and channels of a program, fitted to the map."""
    _, height, width, channels = source.shape
    columns = min(COLUMNS, width)
    block = min(settings.block, triton.next_power_of_2(channels))
    while block > 32 and triton.cdiv(channels, block) * block > 1.2 * channels:
        block //= 2
    positions = max(1, 32 * settings.warps * (16 // source.element_size()) // block)
    strips = height * triton.cdiv(width, columns)
    return {"COLUMNS": columns, "BP": min(positions, triton.next_power_of_2(strips)), "BC": block}


def _launch_level(
    source: Tensor, weight: Tensor | None, size: Sequence[int], mode: Any, *, out: Tensor | None = None,
    slope: Tensor | None = None, mean: bool = False, grad: Tensor | None = None, gates: Tensor | None = None,
    pooled: tuple[Tensor, Tensor] | None = None,
) -> Tensor | None:  # fmt: skip
    """One level; returns the sums of its programs, (B, programs, C), when `mean` asks for them."""
    batch, height, width, channels = source.shape
    tall, broad = size
    align, *strides = _strides(source)
    grad_align, *grad_strides = _strides(grad if grad is not None else source)

    def launch(settings: Settings, out: Tensor | None) -> Tensor | None:
        tile = _tile(source, settings)
        strips = triton.cdiv(width, tile["COLUMNS"])
        programs = triton.cdiv(height * strips, tile["BP"])
        parts = source.new_empty((batch, programs, channels), dtype=torch.float32) if mean else None
        k.level_kernel[(programs, triton.cdiv(channels, tile["BC"]), batch)](
            source, source if weight is None else weight, out, slope, parts, grad, gates,
            *(pooled or (None, None)), height, width, channels, strips, 1 / (height * width), *strides,
            *(gates.stride() if gates is not None else (0, 0, 0)), *grad_strides,
            ALIGN=align, GRAD_ALIGN=grad_align, MODE=mode.value, SLOPE=slope is not None,
            MEAN=mean or pooled is not None, KH=tall, KW=broad, num_warps=settings.warps, **tile,
        )  # fmt: skip
        return parts

    settings = SETTINGS
    if tuning.enabled():
        spare = None if out is None else torch.empty_like(out)  # the backward pass may write where it reads
        kind = f"{tall}x{broad} mode {mode.value} {mean=} {height}x{width}x{channels} {source.dtype}"
        kind += " slope" if slope is not None else ""
        settings = tuning.choose(kind, CANDIDATES, settings, lambda candidate: launch(candidate, spare))
    return launch(settings, out)


def _levels(
    context: Tensor, kernels: list[Tensor], packed: list[Tensor], *, slopes: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """All levels (L, B, H, W, C), the slopes of GELU there, and the mean of the last (B, C) in float32."""
    levels = context.new_empty((len(kernels), *context.shape))
    slope = torch.empty_like(levels) if slopes else None
    source, parts = context, None
    for level, (kernel, weight) in enumerate(zip(kernels, packed, strict=True)):
        parts = _launch_level(
            source, weight, kernel.shape[2:], k.FORWARD, out=levels[level],
            slope=slope[level] if slope is not None else None, mean=level + 1 == len(kernels),
        )  # fmt: skip
        source = levels[level]
    assert parts is not None
    return levels, slope, _sum(parts, 1 / (context.shape[1] * context.shape[2]))


def _sum(parts: Tensor, scale: float) -> Tensor:
    """(B, tiles, C) -> scale times the sum over the tiles, (B, C)."""
    batch, tiles, channels = parts.shape
    out = parts.new_empty((batch, channels))
    block = min(32, triton.next_power_of_2(channels))
    k.mean_kernel[(triton.cdiv(channels, block), batch)](parts, out, tiles, channels, scale, BT=32, BC=block)
    return out


def _weights(grad: Tensor, source: Tensor, kernel: Tensor) -> Tensor:
    """The gradient of one kernel, in its shape and type; `grad` is dense."""
    batch, height, width, channels = source.shape
    tall, broad = kernel.shape[2:]
    taps = max(1, min(tall, WEIGHT_SUMS // broad))
    groups = triton.cdiv(tall, taps)
    tile = _tile(source, Settings(block=_block(channels), warps=1))
    strips = triton.cdiv(width, tile["COLUMNS"])
    total = batch * height * strips
    wanted = triton.cdiv(WEIGHT_PROGRAMS, groups * triton.cdiv(channels, tile["BC"]))
    chunk = triton.cdiv(triton.cdiv(total, wanted), tile["BP"]) * tile["BP"]
    chunks = triton.cdiv(total, chunk)
    parts = source.new_empty((chunks, tall * broad, channels), dtype=torch.float32)
    align, *strides = _strides(source)
    k.weights_backward_kernel[(chunks * groups, triton.cdiv(channels, tile["BC"]))](
        grad, source, parts, total, height, width, channels, strips, *strides, chunk, groups,
        ALIGN=align, KH=tall, KW=broad, TAPS=taps, num_warps=1, **tile,
    )  # fmt: skip
    return parts.sum(0).t().reshape(kernel.shape).to(kernel.dtype)
