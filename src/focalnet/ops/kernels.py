"""Triton kernels of the focal operator, forward and backward; `focalnet.ops.triton` launches them.

A map is (B, H, W, C), channels last. A position is a strip of COLUMNS outputs of one row; a program of `level_kernel`
owns BP positions times BC channels, one position and 16 bytes of channels per thread. A column of the source is loaded
and unpacked once per row of the kernel and serves up to KW outputs. All sums and weights are float32.

GELU is exact (erf) for maps of float32. Half precision takes a polynomial that is off by 1e-6, far below its rounding.

    forward        c_l = GELU(conv_l(c_{l-1})), l = 1..L      level_kernel, FORWARD; the last one sums parts of the mean
                   m = mean(c_L)                              mean_kernel
                   out = sum_l g_l c_l + g_{L+1} GELU(m)      aggregate_kernel: no sweep for the global level alone
    backward       c_l and GELU'(a_l) once more               level_kernel, FORWARD with SLOPE
                   dg_l = <dO, c_l>, parts of sum dO g_{L+1}  gates_backward_kernel
                   da_l = (g_l dO + conv^T_{l+1}(da_{l+1}) + [l = L] dm / HW) GELU'(a_l)     level_kernel, BACKWARD
                   dz = conv^T_1(da_1)                        level_kernel, PLAIN
                   dw_l = sum over positions of da_l c_{l-1}  weights_backward_kernel: parts per chunk, then one sum

Nothing is added atomically, so two runs give the same bits. Strides come in units of ALIGN elements: the compiler
then knows that a row of channels may be read in words of ALIGN. Index arithmetic inside one image is 32 bit.

Legend: a before, c after GELU; g gates; dX gradient of X; KH, KW kernel size; TAPS of one row of it.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
# ruff: noqa: N803, N806, RUF005 (names of sizes as in the paper; the compiler knows `+` on tuples only)

import triton
import triton.language as tl

FORWARD = tl.constexpr(0)
BACKWARD = tl.constexpr(1)
PLAIN = tl.constexpr(2)
VARYING = ("H", "W", "strips", "scale", "sb", "sh", "sw", "gb", "gh", "gw", "gl", "db", "dh", "dw", "level_stride",
           "tiles", "total", "chunk", "groups")  # fmt: skip
"""Arguments that no kernel is compiled anew for: maps of detection change with every image."""


@triton.jit
def _normal_above(a):
    """The standard normal distribution's upper tail at a >= 0, as 2 to a polynomial: off by 2e-6 at most."""
    p = tl.fma(a, -0.00048667425289750, 0.00718885101377964)
    p = tl.fma(a, p, -0.05212074145674706)
    p = tl.fma(a, p, -0.45962867140769958)
    p = tl.fma(a, p, -1.15097987651824951)
    return tl.exp2(tl.fma(a, p, -1.00000512599945068))


@triton.jit
def _gelu_and_slope(a, SLOPE: tl.constexpr, EXACT: tl.constexpr):
    """GELU(a), with erf or to 1e-6, and GELU'(a) or 0."""
    if EXACT:
        below = 0.5 + 0.5 * tl.erf(a * 0.7071067811865476)
        c = a * below
    else:
        above = _normal_above(tl.abs(a))
        c = tl.maximum(a, 0.0) - tl.abs(a) * above
        below = tl.where(a > 0.0, 1.0 - above, above)
    slope = below + a * (tl.exp(-0.5 * a * a) * 0.3989422804014327) if SLOPE else 0.0
    return c, slope


@triton.jit
def _row(sums, source, weight, row_ok, first, channel, channel_ok, W, C, sw,
         KW: tl.constexpr, COLUMNS: tl.constexpr, FLIP: tl.constexpr):  # fmt: skip
    """Add the products of one row of the source with one row of the kernel."""
    every = (first * 0)[:, None] + channel[None, :]  # the shape of a tile: a weight then needs no exchange of threads
    taps = ()
    for dx in tl.static_range(KW):
        tap = KW - 1 - dx if FLIP else dx
        taps = taps + (tl.load(weight + tap * C + every),)
    for j in tl.static_range(COLUMNS + KW - 1):
        column = first + (j - KW // 2)
        ok = row_ok & (column >= 0) & (column < W)
        offset = (column * sw)[:, None] + channel[None, :]
        value = tl.load(source + offset, ok[:, None] & channel_ok[None, :], other=0.0).to(tl.float32)
        new = ()
        for o in tl.static_range(COLUMNS):
            total = sums[o]
            if j - o >= 0 and j - o < KW:
                total = tl.fma(value, taps[j - o], total)
            new = new + (total,)
        sums = new
    return sums


@triton.jit(do_not_specialize=VARYING)
def level_kernel(source, weight, out, slope, parts, grad, gates, mean, pooled_grad,
                 H, W, C, strips, scale, sb, sh, sw, gb, gh, gw, db, dh, dw,
                 ALIGN: tl.constexpr, GRAD_ALIGN: tl.constexpr, MODE: tl.constexpr, SLOPE: tl.constexpr,
                 MEAN: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, COLUMNS: tl.constexpr, BP: tl.constexpr,
                 BC: tl.constexpr):  # fmt: skip
    """One level: a depth-wise convolution of `source` and what follows it.

    FORWARD:  out = GELU(a); with SLOPE slope = GELU'(a); with MEAN parts[b, program] = sum of out over its outputs.
    BACKWARD: out = (gates * grad + a + [MEAN] scale * pooled_grad * GELU'(mean)) * slope, also in place; the
              convolution is the transposed one; KH = 0 leaves it out.
    PLAIN:    out = a, transposed.
    """
    EXACT: tl.constexpr = source.dtype.element_ty == tl.float32
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    channel_ok = channel < C
    image = tl.program_id(2).to(tl.int64)
    position = tl.program_id(0) * BP + tl.arange(0, BP)
    row = position % H  # neighbours in a column share most of the rows that they read
    first = (position // H) * COLUMNS
    source += image * sb * ALIGN
    dense = image * H * W * C

    sums = ()
    for _ in tl.static_range(COLUMNS):
        sums = sums + (tl.zeros((BP, BC), tl.float32),)
    for dy in range(KH):
        source_row = row + (dy - KH // 2)
        row_ok = (source_row >= 0) & (source_row < H)
        line = source + (source_row * (sh * ALIGN))[:, None]
        taps = weight + (KH - 1 - dy if MODE != FORWARD else dy) * KW * C
        sums = _row(sums, line, taps, row_ok, first, channel, channel_ok, W, C, sw * ALIGN,
                    KW, COLUMNS, MODE != FORWARD)  # fmt: skip

    part = tl.zeros((BP, BC), tl.float32)
    shared = tl.zeros((BC,), tl.float32)
    if MODE == BACKWARD and MEAN:
        m = tl.load(mean + image * C + channel, channel_ok, other=0.0)
        _, shared = _gelu_and_slope(m, True, True)
        shared *= scale * tl.load(pooled_grad + image * C + channel, channel_ok, other=0.0)
    for o in tl.static_range(COLUMNS):
        a = sums[o]
        column = first + o
        ok = column < W
        mask = ok[:, None] & channel_ok[None, :]
        offset = dense + (row * W + column)[:, None] * C + channel[None, :]
        if MODE == FORWARD:
            c, s = _gelu_and_slope(a, SLOPE, EXACT)
            tl.store(out + offset, c, mask)
            if SLOPE:
                tl.store(slope + offset, s, mask)
            if MEAN:
                part = tl.fma(tl.broadcast_to(ok.to(tl.float32)[:, None], c.shape), c, part)
        elif MODE == BACKWARD:
            gate = tl.load(gates + image * gb + row * gh + column * gw, ok, other=0.0).to(tl.float32)
            at = (row * (dh * GRAD_ALIGN) + column * (dw * GRAD_ALIGN))[:, None] + channel[None, :]
            d = tl.load(grad + image * db * GRAD_ALIGN + at, mask, other=0.0).to(tl.float32)
            d = tl.fma(tl.broadcast_to(gate[:, None], d.shape), d, a)
            if MEAN:
                d += shared[None, :]
            d *= tl.load(slope + offset, mask, other=0.0).to(tl.float32)
            tl.store(out + offset, d, mask)
        else:
            tl.store(out + offset, a, mask)
    if MODE == FORWARD and MEAN:
        programs = tl.num_programs(0)
        tl.store(parts + (image * programs + tl.program_id(0)) * C + channel, tl.sum(part, 0), channel_ok)


@triton.jit(do_not_specialize=VARYING)
def mean_kernel(parts, out, tiles, C, scale, BT: tl.constexpr, BC: tl.constexpr):
    """out[b] = scale * sum over tiles of parts[b, tile], in a fixed order."""
    channel = tl.program_id(0) * BC + tl.arange(0, BC)
    image = tl.program_id(1).to(tl.int64)
    total = tl.zeros((BT, BC), tl.float32)
    for start in range(0, tiles, BT):
        tile = start + tl.arange(0, BT)
        mask = (tile < tiles)[:, None] & (channel < C)[None, :]
        total += tl.load(parts + image * tiles * C + tile[:, None] * C + channel[None, :], mask, other=0.0)
    tl.store(out + image * C + channel, tl.sum(total, 0) * scale, channel < C)


@triton.jit(do_not_specialize=VARYING)
def aggregate_kernel(levels, gates, mean, out, H, W, C, level_stride, gb, gh, gw, gl,
                     L: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """out = sum_l gates_l * levels[l] + gates_{L+1} * GELU(mean)."""
    position = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    image = tl.program_id(2).to(tl.int64)
    ok = position < H * W
    mask = ok[:, None] & (channel < C)[None, :]
    gates += image * gb + (position // W) * gh + (position % W) * gw
    offset = image * H * W * C + position[:, None] * C + channel[None, :]
    pooled, _ = _gelu_and_slope(tl.load(mean + image * C + channel, channel < C, other=0.0), False, True)
    gate = tl.load(gates + L * gl, ok, other=0.0).to(tl.float32)
    total = gate[:, None] * pooled[None, :]
    for level in tl.static_range(L):
        gate = tl.load(gates + level * gl, ok, other=0.0).to(tl.float32)
        c = tl.load(levels + offset, mask, other=0.0).to(tl.float32)
        total = tl.fma(tl.broadcast_to(gate[:, None], c.shape), c, total)
        levels += level_stride
    tl.store(out + offset, total, mask)


@triton.jit(do_not_specialize=VARYING)
def gates_backward_kernel(grad, levels, gates, mean, grad_gates, parts, H, W, C, level_stride,
                          gb, gh, gw, gl, db, dh, dw, GRAD_ALIGN: tl.constexpr, L: tl.constexpr,
                          LEVELS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """grad_gates[l] = sum over channels of grad * levels[l]; parts[b, tile] = sum over the tile of grad * last gate."""
    position = tl.program_id(0) * BP + tl.arange(0, BP)
    image = tl.program_id(1).to(tl.int64)
    tiles = tl.num_programs(0)
    ok = position < H * W
    row = position // W
    column = position % W
    last = tl.load(gates + image * gb + row * gh + column * gw + L * gl, ok, other=0.0).to(tl.float32)
    grad += image * db * GRAD_ALIGN
    which = tl.arange(0, LEVELS)
    total = tl.zeros((BP, LEVELS), tl.float32)
    for start in range(0, C, BC):
        channel = start + tl.arange(0, BC)
        mask = ok[:, None] & (channel < C)[None, :]
        offset = (row * (dh * GRAD_ALIGN) + column * (dw * GRAD_ALIGN))[:, None] + channel[None, :]
        d = tl.load(grad + offset, mask, other=0.0).to(tl.float32)
        part = tl.sum(d * last[:, None], 0)
        tl.store(parts + (image * tiles + tl.program_id(0)) * C + channel, part, channel < C)
        pooled, _ = _gelu_and_slope(tl.load(mean + image * C + channel, channel < C, other=0.0), False, True)
        total += tl.where(which[None, :] == L, tl.sum(d * pooled[None, :], 1)[:, None], 0.0)
        offset = image * H * W * C + position[:, None] * C + channel[None, :]
        here = levels
        for level in tl.static_range(L):
            c = tl.load(here + offset, mask, other=0.0).to(tl.float32)
            total += tl.where(which[None, :] == level, tl.sum(d * c, 1)[:, None], 0.0)
            here += level_stride
    out = (image * H * W + position[:, None]) * (L + 1) + which[None, :]
    tl.store(grad_gates + out, total, ok[:, None] & (which <= L)[None, :])


@triton.jit(do_not_specialize=VARYING)
def weights_backward_kernel(grad, source, parts, total, H, W, C, strips, sb, sh, sw, chunk, groups,
                            ALIGN: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, TAPS: tl.constexpr,
                            COLUMNS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """parts[chunk, tap] = sum over the strips of a chunk of grad * source shifted by the tap; grad is dense.

    A program takes TAPS rows of the kernel, whose sums it keeps in registers while it walks through its chunk.
    """
    top = (tl.program_id(0) % groups) * TAPS
    which = tl.program_id(0) // groups
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    channel_ok = channel < C
    sums = ()
    for _ in tl.static_range(TAPS * KW):
        sums = sums + (tl.zeros((BP, BC), tl.float32),)
    for start in range(0, chunk, BP):
        step = start + tl.arange(0, BP)
        position = which * chunk + step
        ok = (step < chunk) & (position < total)
        strip = position // H
        row = position - strip * H
        image = strip // strips
        first = (strip - image * strips) * COLUMNS
        dense = grad + ((image.to(tl.int64) * H + row) * W * C)[:, None]
        image_source = source + (image.to(tl.int64) * (sb * ALIGN))[:, None]
        ds = ()
        for o in tl.static_range(COLUMNS):
            mask = (ok & (first + o < W))[:, None] & channel_ok[None, :]
            d = tl.load(dense + ((first + o) * C)[:, None] + channel[None, :], mask, other=0.0).to(tl.float32)
            ds = ds + (d,)
        for dy in tl.static_range(TAPS):
            source_row = row + (top + dy - KH // 2)
            row_ok = ok & (source_row >= 0) & (source_row < H)
            for j in tl.static_range(COLUMNS + KW - 1):
                column = first + (j - KW // 2)
                mask = (row_ok & (column >= 0) & (column < W))[:, None] & channel_ok[None, :]
                offset = (source_row * (sh * ALIGN) + column * (sw * ALIGN))[:, None] + channel[None, :]
                c = tl.load(image_source + offset, mask, other=0.0).to(tl.float32)
                new = ()
                for tap in tl.static_range(TAPS * KW):
                    product = sums[tap]
                    if tap // KW == dy and j >= tap % KW and j - tap % KW < COLUMNS:
                        product = tl.fma(ds[j - tap % KW], c, product)
                    new = new + (product,)
                sums = new
    for tap in tl.static_range(TAPS * KW):
        row_of_kernel = top + tap // KW
        kept = channel_ok & (row_of_kernel + tl.zeros_like(channel) < KH)
        target = parts + (which.to(tl.int64) * (KH * KW) + row_of_kernel * KW + tap % KW) * C + channel
        tl.store(target, tl.sum(sums[tap], 0), kept)
