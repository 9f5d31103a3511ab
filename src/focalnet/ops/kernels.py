"""Triton kernels of the focal operator, forward and backward; `focalnet.ops.triton` launches them.

A map is (B, H, W, C), channels last. A program of `level_kernel` owns GROUPS x WIDTH positions times BC channels; each
position stands for ROWS rows of one column, so that one loaded value serves up to ROWS outputs. All sums are float32.

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
# ruff: noqa: N803, RUF005 (names of sizes as in the paper; the compiler knows `+` on tuples only)

import triton
import triton.language as tl

FORWARD = tl.constexpr(0)
BACKWARD = tl.constexpr(1)
PLAIN = tl.constexpr(2)


@triton.jit
def _normal_below(a):
    return 0.5 + 0.5 * tl.erf(a * 0.7071067811865476)


@triton.jit
def _normal_density(a):
    return tl.exp(-0.5 * a * a) * 0.3989422804014327


@triton.jit
def _gelu(a):
    return a * _normal_below(a)


@triton.jit
def _taps(sums, source, weight, i, row, column, channel, channel_ok, H, W, C, sh, sw,
          KH: tl.constexpr, KW: tl.constexpr, ROWS: tl.constexpr, FLIP: tl.constexpr):  # fmt: skip
    """Add the products of one row of the source, `i` rows below the first that the tile needs."""
    source_row = row + i - KH // 2
    row_ok = (source_row >= 0) & (source_row < H)
    for dx in tl.static_range(KW):
        source_column = column + dx - KW // 2
        ok = row_ok & (source_column >= 0) & (source_column < W)
        offset = (source_row * sh + source_column * sw)[:, None] + channel[None, :]
        value = tl.load(source + offset, ok[:, None] & channel_ok[None, :], other=0.0).to(tl.float32)
        new = ()
        for r in tl.static_range(ROWS):
            total = sums[r]
            dy = i - r  # the row of the kernel that joins this source row and output row r
            tap = (KH - 1 - dy) * KW + KW - 1 - dx if FLIP else dy * KW + dx
            inside = dy + tl.zeros_like(channel)  # a tensor: the interpreter cannot mix a scalar into a mask
            w_ok = channel_ok & (inside >= 0) & (inside < KH)
            w = tl.load(weight + tap * C + channel, w_ok, other=0.0).to(tl.float32)
            total = tl.fma(value, tl.broadcast_to(w[None, :], value.shape), total)
            new = new + (total,)
        sums = new
    return sums


@triton.jit
def level_kernel(source, weight, out, slope, parts, grad, gates, mean, parts_of_mean_grad,
                 H, W, C, tiles_x, scale, sb, sh, sw, gb, gh, gw, db, dh, dw,
                 ALIGN: tl.constexpr, GRAD_ALIGN: tl.constexpr, MODE: tl.constexpr, SLOPE: tl.constexpr,
                 MEAN: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, ROWS: tl.constexpr, GROUPS: tl.constexpr,
                 WIDTH: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """One level: a depth-wise convolution of `source` and what follows it.

    FORWARD:  out = GELU(a); with SLOPE slope = GELU'(a); with MEAN parts[b, tile] = sum of out over the tile.
    BACKWARD: slope = (gates * grad + a + [MEAN] scale * parts_of_mean_grad * GELU'(mean)) * slope, in place; the
              convolution is the transposed one; KH = 0 leaves it out.
    PLAIN:    out = a, transposed.
    """
    tile = tl.program_id(0)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    image = tl.program_id(2).to(tl.int64)
    channel_ok = channel < C
    position = tl.arange(0, GROUPS * WIDTH)
    column = (tile % tiles_x) * WIDTH + position % WIDTH
    row = ((tile // tiles_x) * GROUPS + position // WIDTH) * ROWS
    source += image * sb * ALIGN
    dense = image * H * W * C
    sh = sh * ALIGN
    sw = sw * ALIGN

    sums = ()
    for _ in tl.static_range(ROWS):
        sums = sums + (tl.zeros((GROUPS * WIDTH, BC), tl.float32),)
    if KH > 0:
        for i in range(KH + ROWS - 1):
            sums = _taps(sums, source, weight, i, row, column, channel, channel_ok, H, W, C, sh, sw,
                         KH, KW, ROWS, MODE != FORWARD)  # fmt: skip

    part = tl.zeros((BC,), tl.float32)
    for r in tl.static_range(ROWS):
        a = sums[r]
        ok = (row + r < H) & (column < W)
        mask = ok[:, None] & channel_ok[None, :]
        offset = ((row + r) * W + column)[:, None] * C + channel[None, :]
        if MODE == FORWARD:
            below = _normal_below(a)
            c = a * below
            tl.store(out + dense + offset, c, mask)
            if SLOPE:
                tl.store(slope + dense + offset, below + a * _normal_density(a), mask)
            if MEAN:
                part += tl.sum(tl.where(mask, c, 0.0), 0)
        elif MODE == BACKWARD:
            gate = tl.load(gates + image * gb + (row + r) * gh + column * gw, ok, other=0.0).to(tl.float32)
            grad_offset = ((row + r) * (dh * GRAD_ALIGN) + column * (dw * GRAD_ALIGN))[:, None] + channel[None, :]
            d = tl.load(grad + image * db * GRAD_ALIGN + grad_offset, mask, other=0.0).to(tl.float32)
            d = tl.fma(tl.broadcast_to(gate[:, None], d.shape), d, a)
            if MEAN:
                m = tl.load(mean + image * C + channel, channel_ok, other=0.0)
                dp = tl.load(parts_of_mean_grad + image * C + channel, channel_ok, other=0.0)
                d += (scale * dp * (_normal_below(m) + m * _normal_density(m)))[None, :]
            d *= tl.load(slope + dense + offset, mask, other=0.0).to(tl.float32)
            tl.store(slope + dense + offset, d, mask)
        else:
            tl.store(out + dense + offset, a, mask)
    if MODE == FORWARD and MEAN:
        tiles = tl.num_programs(0)
        tl.store(parts + (image * tiles + tile) * C + channel, part, channel_ok)


@triton.jit
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


@triton.jit
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
    pooled = _gelu(tl.load(mean + image * C + channel, channel < C, other=0.0))
    gate = tl.load(gates + L * gl, ok, other=0.0).to(tl.float32)
    total = gate[:, None] * pooled[None, :]
    for level in tl.static_range(L):
        gate = tl.load(gates + level * gl, ok, other=0.0).to(tl.float32)
        c = tl.load(levels + offset, mask, other=0.0).to(tl.float32)
        total = tl.fma(tl.broadcast_to(gate[:, None], c.shape), c, total)
        levels += level_stride
    tl.store(out + offset, total, mask)


@triton.jit
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
        pooled = _gelu(tl.load(mean + image * C + channel, channel < C, other=0.0))
        total += tl.where(which[None, :] == L, tl.sum(d * pooled[None, :], 1)[:, None], 0.0)
        offset = image * H * W * C + position[:, None] * C + channel[None, :]
        here = levels
        for level in tl.static_range(L):
            c = tl.load(here + offset, mask, other=0.0).to(tl.float32)
            total += tl.where(which[None, :] == level, tl.sum(d * c, 1)[:, None], 0.0)
            here += level_stride
    out = (image * H * W + position[:, None]) * (L + 1) + which[None, :]
    tl.store(grad_gates + out, total, ok[:, None] & (which <= L)[None, :])


@triton.jit
def weights_backward_kernel(grad, source, parts, total, H, W, C, sb, sh, sw, chunk, groups,
                            ALIGN: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, TAPS: tl.constexpr,
                            BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """parts[chunk, tap] = sum over the positions of a chunk of grad * source shifted by the tap.

    A program takes TAPS rows of the kernel, whose sums it keeps in registers while it walks through its chunk.
    """
    first = (tl.program_id(0) % groups) * TAPS
    which = tl.program_id(0) // groups
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    channel_ok = channel < C
    sums = ()
    for _ in tl.static_range(TAPS * KW):
        sums = sums + (tl.zeros((BP, BC), tl.float32),)
    for start in range(0, chunk, BP):
        step = start + tl.arange(0, BP)
        position = which.to(tl.int64) * chunk + step
        ok = (step < chunk) & (position < total)
        image = position // (H * W)
        inside = (position - image * (H * W)).to(tl.int32)
        row = inside // W
        column = inside % W
        mask = ok[:, None] & channel_ok[None, :]
        d = tl.load(grad + (position * C)[:, None] + channel[None, :], mask, other=0.0).to(tl.float32)
        base = source + (image * (sb * ALIGN))[:, None] + channel[None, :]
        new = ()
        for dy in tl.static_range(TAPS):
            source_row = row + first + dy - KH // 2
            row_ok = ok & (source_row >= 0) & (source_row < H)
            for dx in tl.static_range(KW):
                source_column = column + dx - KW // 2
                inside_ok = row_ok & (source_column >= 0) & (source_column < W)
                offset = source_row * (sh * ALIGN) + source_column * (sw * ALIGN)
                c = tl.load(base + offset[:, None], inside_ok[:, None] & channel_ok[None, :], other=0.0).to(tl.float32)
                new = new + (tl.fma(d, c, sums[dy * KW + dx]),)
        sums = new
    for dy in tl.static_range(TAPS):
        for dx in tl.static_range(KW):
            tap = (first + dy) * KW + dx
            kept = channel_ok & (first + dy + tl.zeros_like(channel) < KH)
            target = parts + (which.to(tl.int64) * (KH * KW) + tap) * C + channel
            tl.store(target, tl.sum(sums[dy * KW + dx], 0), kept)
