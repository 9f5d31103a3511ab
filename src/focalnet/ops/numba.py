"""The focal operator on CPUs, compiled by numba: inference in float32 and bfloat16.

    c_l = GELU(DWConv_l(c_{l-1})),   total += g_l * c_l          one pass per level, while the sum is at hand
    out = total + g_{L+1} * GELU(mean(c_L))                      written once

A task is one image and one block of channels, as many as a vector register holds. Its levels live in two planes
(positions, lanes) with a margin of zeros, which stay in the caches, so memory sees the context once and the result
once; plain PyTorch moves the map about ten times. A tile is `TILE` neighbouring positions of a row: their sums stay in
registers over all taps, and every position that is read serves as many sums as it can. All arithmetic is float32.

The vectors are written out as LLVM code, because LLVM's own vectoriser neither keeps the sums in registers nor uses
the full width of AVX-512. Kernel sizes reach the compiler as types: a tuple of k numbers stands for k. The first call
with new sizes compiles for about two seconds; numba keeps the result on disk.

Blocks are shared out to Python threads (the code runs without the interpreter's lock): numba's own threads end the
process when two threads enter them at once or after a fork. A block is summed in one order, so the number of threads
does not change a bit.

Legend: B batch, H W height and width, C channels, L levels, K kernel size; addresses and strides are in bytes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch
from llvmlite import binding, ir
from numba import extending, njit, types
from torch import Tensor

from focalnet.ops.compiling import is_transformed

intrinsic = cast("Callable[[Any], Callable[..., Any]]", extending.intrinsic)
LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
TILE = 8
KERNEL_LIMIT = 15
DTYPES = (torch.float32, torch.bfloat16)
FLOAT = 4
"""Bytes of a float32."""
ERF = (
    (1.97484311e-06, 2.88034148e-04, 4.00341902e-03, 5.34667928e-02, 1.96243967e-01, 1.12837898e00),
    (3.74806107e-05, 1.21630038e-03, 1.54439778e-02, 1.16474331e-01, 5.07247849e-01, 1.0),
)
"""erf(z) = z P(z^2) / Q(z^2) on [-4, 4], highest power first; fitted for the smallest absolute error, 4e-7."""

F32, I16, I32, I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def can_run(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> tuple[bool, str]:
    """Whether the compiled code takes these tensors, and why."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (context, gates, *kernels)):
        return False, "it has no gradients"
    if context.device.type != "cpu" or context.ndim != 4 or not kernels:
        return False, "it convolves maps with two spatial axes on CPUs"
    if context.dtype not in DTYPES or (context.dtype == torch.float32 and torch.is_autocast_enabled("cpu")):
        return False, f"it computes in float32 or bfloat16, and context is {context.dtype}, perhaps under autocast"
    if any(kernel.shape[2] != kernel.shape[3] or kernel.shape[2] > KERNEL_LIMIT for kernel in kernels):
        return False, f"a kernel is not square or wider than {KERNEL_LIMIT}"
    if context.shape[3] % LANES or context.numel() == 0:
        return False, f"{context.shape[3]} channels are not a multiple of {LANES}"
    if not torch.compiler.is_compiling():
        if is_transformed():
            return False, "it knows neither torch.func nor forward derivatives"
        if 2 * context.shape[0] * context.shape[3] // LANES < torch.get_num_threads():
            return False, "there are too few channels to keep the threads busy"
    return True, f"{context.dtype} without gradients"


def focal_context(context: Tensor, gates: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """See `focalnet.ops.focal_context`."""
    return _forward(context, gates, list(kernels))


@torch.library.custom_op("focalnet::focal_context_cpu", mutates_args=())
def _forward(context: Tensor, gates: Tensor, kernels: list[Tensor]) -> Tensor:
    context = context if context.stride(3) == 1 else context.contiguous()
    gates = gates.float().contiguous()
    batch, height, width, channels = context.shape
    sizes = [kernel.shape[2] for kernel in kernels]
    packed = [k.float().reshape(channels // LANES, LANES, -1).transpose(1, 2).contiguous() for k in kernels]
    out = context.new_empty(context.shape)
    tasks = batch * channels // LANES
    threads = min(torch.get_num_threads(), tasks)
    margin, wide = max(sizes) // 2, -(-width // TILE) * TILE
    plane = (height + 2 * margin) * (wide + 2 * margin) * LANES
    scratch = torch.zeros(threads, 2 * plane + (height * width + 1) * LANES)

    def work(thread: int) -> None:
        _blocks(
            (0,) * LANES, tuple((0,) * size for size in sizes), tasks * thread // threads,
            tasks * (thread + 1) // threads, context.dtype == torch.bfloat16, context.data_ptr(),
            tuple(stride * context.element_size() for stride in context.stride()[:3]), gates.data_ptr(),
            tuple((kernel.data_ptr(), size) for kernel, size in zip(packed, sizes, strict=True)), out.data_ptr(),
            (height, width, channels), (margin, wide + 2 * margin), scratch[thread].data_ptr(), plane * FLOAT,
        )  # fmt: skip

    if threads == 1:
        work(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    return out


@_forward.register_fake
def _(context: Tensor, gates: Tensor, kernels: list[Tensor]) -> Tensor:
    return context.new_empty(context.shape)


@njit(nogil=True, cache=True)
def _blocks(
    lanes, sizes, first, last, half, source, strides, gates, kernels, out, shape, border, scratch, plane
):  # fmt: skip
    """Tasks `first` to `last`; `scratch` holds two planes, the gated sum and the mean."""
    height, width, channels = shape
    margin, wide = border
    vector = len(lanes) * 4
    item = 2 if half else 4
    levels = len(kernels)
    gate_pitch = (levels + 1) * 4
    pitch = wide * vector
    inside = margin * pitch + margin * vector
    total = scratch + 2 * plane
    mean = total + height * width * vector
    for task in range(first, last):
        image = task // (channels // len(lanes))
        block = task % (channels // len(lanes))
        gate = gates + image * height * width * gate_pitch
        here, there = scratch, scratch + plane
        for y in range(height):
            row = source + image * strides[0] + y * strides[1] + block * len(lanes) * item
            for x in range(width):
                _read(lanes, half, row + x * strides[2], here + inside + y * pitch + x * vector)
        for position in range(height * width):
            _clear(lanes, total + position * vector)
        for level in range(levels):
            weights, size = kernels[level]
            weights += block * size * size * vector
            corner = here + (margin - size // 2) * (pitch + vector)
            for y in range(height):
                for x in range(0, width, TILE):
                    position = y * width + x
                    _tile(
                        lanes, sizes, level, corner + y * pitch + x * vector, pitch, weights,
                        there + inside + y * pitch + x * vector, total + position * vector,
                        gate + position * gate_pitch + level * 4, gate_pitch, width - x,
                    )  # fmt: skip
            here, there = there, here
        _clear(lanes, mean)
        for y in range(height):
            for x in range(width):
                _add(lanes, here + inside + y * pitch + x * vector, mean)
        _pool(lanes, mean, 1 / (height * width))
        target = out + (image * height * width * channels + block * len(lanes)) * item
        for position in range(height * width):
            _write(
                lanes, half, total + position * vector, mean, gate + position * gate_pitch + levels * 4,
                target + position * channels * item,
            )  # fmt: skip


def _vector(lanes: Any) -> ir.VectorType:
    return ir.VectorType(F32, lanes.count)


def _load(b: Any, address: Any, kind: Any) -> Any:
    align = 2 if getattr(kind, "element", kind) is I16 else 4
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def _store(b: Any, value: Any, address: Any) -> None:
    align = 2 if value.type.element is I16 else 4
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=align)


def _all(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _spread(b: Any, scalar: Any, kind: Any) -> Any:
    empty = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(empty, scalar, I32(0))
    return b.shuffle_vector(first, empty, _all(ir.VectorType(I32, kind.count), 0))


def _multiply_add(b: Any, x: Any, y: Any, z: Any) -> Any:
    return b.fadd(b.fmul(x, y, flags=("contract",)), z, flags=("contract",))


def _gelu(b: Any, x: Any) -> Any:
    kind = x.type
    z = b.fmul(x, _all(kind, 0.5**0.5))
    for sign, edge in (("<", -4.0), (">", 4.0)):
        z = b.select(b.fcmp_ordered(sign, z, _all(kind, edge)), _all(kind, edge), z)
    square = b.fmul(z, z)
    parts = []
    for powers in ERF:
        part = _all(kind, powers[0])
        for power in powers[1:]:
            part = _multiply_add(b, part, square, _all(kind, power))
        parts.append(part)
    half = b.fmul(x, _all(kind, 0.5))
    return _multiply_add(b, half, b.fdiv(b.fmul(z, parts[0]), parts[1]), half)


@intrinsic
def _tile(typingctx, lanes, sizes, level, source, pitch, weights, out, total, gate, gate_pitch, left):
    """Level `level` at min(`TILE`, `left`) positions: convolution, GELU, store, gated sum."""
    kind = _vector(lanes)
    step = lanes.count * FLOAT

    def generate(context, b, signature, arguments):
        _, _, level, source, pitch, weights, out, total, gate, gate_pitch, left = arguments
        after, end = b.append_basic_block("after"), b.append_basic_block("end")
        branch = b.switch(level, end)
        sums = []
        for number, size in enumerate(sizes):
            start, loop = b.append_basic_block(f"level{number}"), b.append_basic_block(f"rows{number}")
            branch.add_case(I64(number), start)
            b.position_at_end(start)
            b.branch(loop)
            b.position_at_end(loop)
            begins = [(I64(0), I64), (source, I64), (weights, I64), *[(_all(kind, 0.0), kind)] * TILE]
            carried = [b.phi(of) for _, of in begins]
            row, at, taps, *acc = carried
            read = {}
            for position in range(TILE + size.count - 1):
                x = _load(b, b.add(at, I64(position * step)), kind)
                if position < size.count:
                    read[position] = _load(b, b.add(taps, I64(position * step)), kind)
                for target in range(TILE):
                    if position - target in range(size.count):
                        acc[target] = _multiply_add(b, read[position - target], x, acc[target])
            following = [b.add(row, I64(1)), b.add(at, pitch), b.add(taps, I64(size.count * step)), *acc]
            for value, (begin, _), new in zip(carried, begins, following, strict=True):
                value.add_incoming(begin, start)
                value.add_incoming(new, loop)
            b.cbranch(b.icmp_signed("<", following[0], I64(size.count)), loop, after)
            sums.append((acc, loop))
        b.position_at_end(after)
        merged = [b.phi(kind) for _ in range(TILE)]
        for acc, loop in sums:
            for value, new in zip(merged, acc, strict=True):
                value.add_incoming(new, loop)
        for target in range(TILE):
            valid = b.append_basic_block(f"position{target}")
            b.cbranch(b.icmp_signed(">", left, I64(target)), valid, end)
            b.position_at_end(valid)
            value = _gelu(b, merged[target])
            _store(b, value, b.add(out, I64(target * step)))
            weight = _spread(b, _load(b, b.add(gate, b.mul(gate_pitch, I64(target))), F32), kind)
            place = b.add(total, I64(target * step))
            _store(b, _multiply_add(b, value, weight, _load(b, place, kind)), place)
        b.branch(end)
        b.position_at_end(end)
        return context.get_dummy_value()

    return types.void(lanes, sizes, *[types.int64] * 9), generate


@intrinsic
def _read(typingctx, lanes, half, source, target):
    """One vector, float32 or bfloat16, to float32."""
    kind, wide = _vector(lanes), ir.VectorType(I32, lanes.count)

    def generate(context, b, signature, arguments):
        _, half, source, target = arguments
        with b.if_else(half) as (then, otherwise):
            with then:
                bits = b.zext(_load(b, source, ir.VectorType(I16, lanes.count)), wide)
                _store(b, b.bitcast(b.shl(bits, _all(wide, 16)), kind), target)
            with otherwise:
                _store(b, _load(b, source, kind), target)
        return context.get_dummy_value()

    return types.void(lanes, types.boolean, types.int64, types.int64), generate


@intrinsic
def _write(typingctx, lanes, half, total, mean, gate, target):
    """total + gate * mean, to float32 or rounded to bfloat16."""
    kind, wide = _vector(lanes), ir.VectorType(I32, lanes.count)

    def generate(context, b, signature, arguments):
        _, half, total, mean, gate, target = arguments
        gate = _spread(b, _load(b, gate, F32), kind)
        value = _multiply_add(b, _load(b, mean, kind), gate, _load(b, total, kind))
        with b.if_else(half) as (then, otherwise):
            with then:
                bits = b.bitcast(value, wide)
                even = b.and_(b.lshr(bits, _all(wide, 16)), _all(wide, 1))
                bits = b.lshr(b.add(bits, b.add(even, _all(wide, 0x7FFF))), _all(wide, 16))
                _store(b, b.trunc(bits, ir.VectorType(I16, lanes.count)), target)
            with otherwise:
                _store(b, value, target)
        return context.get_dummy_value()

    return types.void(lanes, types.boolean, *[types.int64] * 4), generate


@intrinsic
def _add(typingctx, lanes, source, target):
    def generate(context, b, signature, arguments):
        _, source, target = arguments
        _store(b, b.fadd(_load(b, source, _vector(lanes)), _load(b, target, _vector(lanes))), target)
        return context.get_dummy_value()

    return types.void(lanes, types.int64, types.int64), generate


@intrinsic
def _clear(typingctx, lanes, target):
    def generate(context, b, signature, arguments):
        _store(b, _all(_vector(lanes), 0.0), arguments[1])
        return context.get_dummy_value()

    return types.void(lanes, types.int64), generate


@intrinsic
def _pool(typingctx, lanes, sums, scale):
    """GELU of `scale` times the sums, in place."""

    def generate(context, b, signature, arguments):
        _, sums, scale = arguments
        scale = _spread(b, b.fptrunc(scale, F32), _vector(lanes))
        _store(b, _gelu(b, b.fmul(_load(b, sums, _vector(lanes)), scale)), sums)
        return context.get_dummy_value()

    return types.void(lanes, types.int64, types.float64), generate
