"""The focal operator on CUDA: launches the Triton kernels, and is one operator to autograd, compile and CUDA graphs.

Keeps nothing for the backward pass but its inputs: the levels are computed again. Reads and writes maps in memory
3L + 1 times forward (plain PyTorch: about 34 for L = 3). Storage is float16, bfloat16 or float32, sums are float32.
Sequences run as images of one row. Two runs on one device give the same bits. There is no second derivative.

`SETTINGS` holds tile sizes per kernel size, so that nothing is tuned while a user waits; with `FOCALNET_TUNE=1` they
are measured on the device and kept (`tuning`), and `benchmarks/focal_context.py --tune` prints them.
"""

import itertools
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
    """How one level is cut into programs.

    Attributes:
        rows: output rows that share each loaded value.
        elements: positions times channels of a program, for one row.
        warps: of 32 threads.
    """

    rows: int
    elements: int
    warps: int = 4


SETTINGS = {7: (Settings(2, 4096), Settings(2, 2048)), 15: (Settings(4, 2048), Settings(2, 1024))}
"""Largest kernel size -> settings, and settings of the launches that also keep slopes or a mean and so hold more
values at once. Registers and spills checked for sm_90 with ptxas; not yet timed."""
CANDIDATES = tuple(
    Settings(rows, elements, warps)
    for rows, elements, warps in itertools.product((1, 2, 4), (1024, 2048, 4096), (4, 8))
)
"""What tuning tries."""
WEIGHT_SUMS = 28
"""Sums that a program of the weight gradient keeps: rows of the kernel times its width."""
WEIGHT_ELEMENTS = 512
WEIGHT_PROGRAMS = 1024
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
        flat = _forward(context.unsqueeze(1), gates.unsqueeze(1), [kernel.unsqueeze(2) for kernel in kernels])
        return flat.squeeze(1)
    return _forward(context, gates, list(kernels))


@torch.library.custom_op("focalnet::focal_context", mutates_args=())
def _forward(context: Tensor, gates: Tensor, kernels: list[Tensor]) -> Tensor:
    with torch.cuda.device_of(context):  # Triton launches on the current device
        context = _rows_of_channels(context)
        levels, _, mean = _levels(context, kernels, slopes=False)
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
        levels, slopes, mean = _levels(context, kernels, slopes=True)
        assert slopes is not None
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
            source, kernel = (grad, None) if last else (slopes[level + 1], kernels[level + 1])
            _launch_level(source, kernel, k.BACKWARD, slope=slopes[level], grad=grad, gates=gates[..., level],
                          pooled=(mean, pooled_grad) if last else None)  # fmt: skip
            if weights:
                grad_kernels.append(_weights(slopes[level], levels[level - 1] if level else context, kernels[level]))
        _launch_level(slopes[0], kernels[0], k.PLAIN, out=grad_context)
        return grad_context, grad_gates, grad_kernels[::-1]


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
    """The kernels read any strides but need the channels of a position side by side."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _block(channels: int) -> int:
    """Channels of a program: the block out of 64 and 32 that wastes least."""
    return min(64 if channels % 64 == 0 or channels > 256 else 32, triton.next_power_of_2(channels))


def _strides(x: Tensor) -> list[int]:
    """The largest word that rows of channels are aligned to, at most 16 bytes, in elements; the strides in words."""
    strides = x.stride()[:3]
    align = math.gcd(*strides, 16 // x.element_size())
    return [align, *(stride // align for stride in strides)]


def _pack(kernel: Tensor, dtype: torch.dtype) -> Tensor:
    """(C, 1, KH, KW) -> (KH * KW, C): a tap is a row of channels."""
    return kernel.detach().reshape(kernel.shape[0], -1).t().to(dtype).contiguous()


def _settings(size: int, *, heavy: bool) -> Settings:
    return next(pair[int(heavy)] for limit, pair in SETTINGS.items() if size <= limit)


def _tile(height: int, width: int, channels: int, settings: Settings) -> dict[str, int]:
    """Rows, groups of rows, width and channels of a program, fitted to the map."""
    block = _block(channels)
    positions = max(settings.elements // block, 8)
    wide = 16 if triton.cdiv(width, 16) * 16 <= triton.cdiv(width, 8) * 8 else 8
    wide = min(wide, triton.next_power_of_2(width), positions)
    rows = min(settings.rows, triton.next_power_of_2(height))
    groups = min(positions // wide, triton.next_power_of_2(triton.cdiv(height, rows)))
    while rows > 1 and groups * rows >= 2 * height:  # a low map: fewer rows per value rather than idle threads
        rows //= 2
    return {"ROWS": rows, "GROUPS": groups, "WIDTH": wide, "BC": block}


def _launch_level(
    source: Tensor, kernel: Tensor | None, mode: int, *, out: Tensor | None = None, slope: Tensor | None = None,
    mean: bool = False, grad: Tensor | None = None, gates: Tensor | None = None,
    pooled: tuple[Tensor, Tensor] | None = None,
) -> Tensor | None:  # fmt: skip
    """One level; returns the sums of its tiles, (B, tiles, C), when `mean` asks for them."""
    batch, height, width, channels = source.shape
    tall, broad = kernel.shape[2:] if kernel is not None else (0, 0)
    heavy = out is not None and (mean or slope is not None)
    settings = _settings(max(tall, broad), heavy=heavy)
    packed = source if kernel is None else _pack(kernel, source.dtype)
    align, *strides = _strides(source)
    grad_align, *grad_strides = _strides(grad if grad is not None else source)

    def launch(settings: Settings, slope: Tensor | None) -> Tensor | None:
        tile = _tile(height, width, channels, settings)
        tiles_x = triton.cdiv(width, tile["WIDTH"])
        tiles = tiles_x * triton.cdiv(height, tile["GROUPS"] * tile["ROWS"])
        parts = source.new_empty((batch, tiles, channels), dtype=torch.float32) if mean else None
        k.level_kernel[(tiles, triton.cdiv(channels, tile["BC"]), batch)](
            source, packed, out, slope, parts, grad, gates,
            *(pooled or (None, None)), height, width, channels, tiles_x, 1 / (height * width), *strides,
            *(gates.stride() if gates is not None else (0, 0, 0)), *grad_strides,
            ALIGN=align, GRAD_ALIGN=grad_align, MODE=mode, SLOPE=slope is not None,
            MEAN=mean or pooled is not None, KH=tall, KW=broad, num_warps=settings.warps, **tile,
        )  # fmt: skip
        return parts

    if tuning.enabled():
        spare = None if slope is None else slope.clone()  # the backward pass writes where it reads
        kind = f"{tall}x{broad} mode {mode} {heavy=} {height}x{width}x{channels} {source.dtype}"
        settings = tuning.choose(kind, CANDIDATES, settings, lambda candidate: launch(candidate, spare))
    return launch(settings, slope)


def _levels(context: Tensor, kernels: list[Tensor], *, slopes: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """All levels (L, B, H, W, C), the slopes of GELU there, and the mean of the last (B, C) in float32."""
    levels = context.new_empty((len(kernels), *context.shape))
    slope = torch.empty_like(levels) if slopes else None
    source, parts = context, None
    for level, kernel in enumerate(kernels):
        parts = _launch_level(
            source, kernel, k.FORWARD, out=levels[level], slope=slope[level] if slope is not None else None,
            mean=level + 1 == len(kernels),
        )  # fmt: skip
        source = levels[level]
    assert parts is not None
    return levels, slope, _sum(parts, 1 / (context.shape[1] * context.shape[2]))


def _sum(parts: Tensor, scale: float) -> Tensor:
    """(B, tiles, C) -> scale times the sum over the tiles, (B, C)."""
    batch, tiles, channels = parts.shape
    out = parts.new_empty((batch, channels))
    block = min(32, triton.next_power_of_2(channels))
    rows = min(64, triton.next_power_of_2(tiles))
    k.mean_kernel[(triton.cdiv(channels, block), batch)](parts, out, tiles, channels, scale, BT=rows, BC=block)
    return out


def _weights(grad: Tensor, source: Tensor, kernel: Tensor) -> Tensor:
    """The gradient of one kernel, in its shape and type."""
    batch, height, width, channels = source.shape
    tall, broad = kernel.shape[2:]
    taps = max(1, min(tall, WEIGHT_SUMS // broad))
    groups = triton.cdiv(tall, taps)
    block = _block(channels)
    positions = WEIGHT_ELEMENTS // block
    wanted = triton.cdiv(WEIGHT_PROGRAMS, groups * triton.cdiv(channels, block))
    chunk = triton.cdiv(triton.cdiv(batch * height * width, wanted), positions) * positions
    chunks = triton.cdiv(batch * height * width, chunk)
    parts = source.new_empty((chunks, tall * broad, channels), dtype=torch.float32)
    align, *strides = _strides(source)
    k.weights_backward_kernel[(chunks * groups, triton.cdiv(channels, block))](
        grad, source, parts, batch * height * width, height, width, channels, *strides, chunk, groups,
        ALIGN=align, KH=tall, KW=broad, TAPS=taps, BP=positions, BC=block, num_warps=4,
    )  # fmt: skip
    return parts.sum(0).t().reshape(kernel.shape).to(kernel.dtype)
