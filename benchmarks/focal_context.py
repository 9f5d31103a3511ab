"""The Triton kernels of the focal operator, one by one.

    python benchmarks/focal_context.py --count      bytes and FLOPs of every kernel, and the time they need at least
    python benchmarks/focal_context.py --compile    registers, spills and words of every kernel for sm_90, without a GPU
    python benchmarks/focal_context.py --tune       time the settings of the level kernel on this GPU

`--count` takes the roofline of one device (`--bandwidth` GB/s, `--flops` TFLOP/s, by default an H200: 4800 and 67) and
the network `--model` at `--batch` and `--size`. A map that a kernel reads once counts once: halos are served by caches.
Whole-operator and whole-model times, beside timm and transformers, are `focalnet bench`'s.
"""

import argparse
import itertools
import os
import re
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from focalnet.variants import get_variant


def count(model: str, batch: int, size: int, item: int) -> Iterator[tuple[str, float, float]]:
    """(kernel, bytes, FLOPs), summed over the blocks of a network; `item` bytes per element.

    GELU counts 20 FLOPs and its slope 10 more; one tap counts 2.
    """
    config = get_variant(model)
    total: dict[str, list[float]] = {}

    def add(kernel: str, depth: int, moved: float, flops: float) -> None:
        entry = total.setdefault(kernel, [0.0, 0.0])
        entry[0] += depth * moved * item
        entry[1] += depth * flops

    for stage, (channels, stride, depth) in enumerate(zip(config.channels, config.strides, config.depths, strict=True)):
        levels = config.focal_levels[stage]
        windows = [config.focal_windows[stage] + config.focal_factor * level for level in range(levels)]
        positions = batch * (size // stride) ** 2
        u, g = positions * channels, positions * (levels + 1)
        for k in windows:
            add(f"forward: level {k}x{k}", depth, 2 * u, u * (2 * k * k + 20))
        add("forward: aggregate", depth, (levels + 1) * u + g, u * 2 * (levels + 1))
        for k in windows:
            add(f"backward: level {k}x{k} again", depth, 3 * u, u * (2 * k * k + 30))
            add(f"backward: weights {k}x{k}", depth, 2 * u, u * 2 * k * k)
            add(f"backward: into level {k}x{k}", depth, 4 * u if k != windows[0] else 2 * u, u * (2 * k * k + 4))
        add("backward: gates", depth, (levels + 1) * u + 2 * g, u * 2 * (levels + 2))
        add("backward: last level", depth, 3 * u, u * 4)
    for kernel, (moved, flops) in total.items():
        yield kernel, moved, flops


def print_count(options: argparse.Namespace) -> None:
    print(f"{options.model}, batch {options.batch}, {options.size} pixels, bfloat16")
    print(f"{'kernel':32}{'GB':>8}{'GFLOP':>10}{'ms (bytes)':>12}{'ms (FLOPs)':>12}")
    sums: dict[str, float] = {}
    for kernel, moved, flops in count(options.model, options.batch, options.size, 2):
        by_bytes, by_flops = moved / options.bandwidth / 1e6, flops / options.flops / 1e9
        print(f"{kernel:32}{moved / 1e9:8.2f}{flops / 1e9:10.1f}{by_bytes:12.2f}{by_flops:12.2f}")
        direction = kernel.split(":")[0]
        sums[direction] = sums.get(direction, 0.0) + max(by_bytes, by_flops)
    for direction, milliseconds in sums.items():
        print(f"{direction}: at least {milliseconds:.1f} ms, each kernel at the nearer of its two roofs")


def compile_kernel(function: Any, arguments: dict[str, Any], warps: int = 4) -> dict[str, int]:
    """Compile for sm_90 without a GPU and read the machine code: registers, stack (spills), shared memory, loads."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, hints = {}, {}, {}
    for index, name in enumerate(function.arg_names):
        value = arguments[name]
        if isinstance(value, str):  # a pointer
            signature[name] = f"*{value}"
            hints[(index,)] = [["tt.divisibility", 16]]
        elif function.params[index].is_constexpr or value is None or value == 1:
            signature[name], constants[(index,)] = "constexpr", value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
            if value % 16 == 0:
                hints[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constexprs=constants, attrs=hints)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    seconds = time.perf_counter() - begin
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()

        def read(*command: str) -> str:
            return subprocess.run([*command, file.name], capture_output=True, text=True, check=True).stdout

        usage = read(str(tools / "cuobjdump"), "-res-usage")
        code = read(str(tools / "nvdisasm"), "-c")
    loads = re.findall(r"\bLDG\.E(\S*)", code)
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]), "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "shared": compiled.metadata.shared, "loads": len(loads), "loads of 16 bytes": sum("128" in x for x in loads),
        "seconds": round(seconds),
    }  # fmt: skip


def compiled(channels: int, side: int, dtype: str = "bf16") -> Iterator[tuple[str, dict[str, int]]]:
    """Every kernel as the operator launches it on a map of that shape."""
    import triton

    from focalnet.ops import kernels as k
    from focalnet.ops import triton as host

    item = 4 if dtype == "fp32" else 2
    word = 16 // item
    row = -(-(2 * channels + 4) // 8) * 8  # the outputs of f, if they are padded to words of 16 bytes
    dense = {"sb": side * side * channels // word, "sh": side * channels // word, "sw": channels // word}
    gates = {"gb": side * side * row, "gh": side * row, "gw": row}
    grads = {"db": dense["sb"], "dh": dense["sh"], "dw": dense["sw"]}
    shape = {"H": side, "W": side, "C": channels}
    block = host._block(channels)
    names = {k.FORWARD.value: "forward", k.BACKWARD.value: "backward", k.PLAIN.value: "plain"}
    for size, (mode, slope, mean) in itertools.product(
        (3, 5, 7, 9, 13), ((0, False, False), (0, False, True), (0, True, True), (1, False, False), (2, False, False))
    ):
        settings = host._settings(size, heavy=slope or mean)
        tile = host._tile(side, side, channels, settings)
        backward = mode == k.BACKWARD.value
        arguments = {
            "source": dtype, "weight": dtype, "out": None if backward else dtype,
            "slope": dtype if slope or backward else None, "parts": "fp32" if mean else None,
            "grad": dtype if backward else None, "gates": dtype if backward else None, "mean": None,
            "parts_of_mean_grad": None, "tiles_x": triton.cdiv(side, tile["WIDTH"]), "scale": 0.1, **shape, **dense,
            **gates, **grads, "ALIGN": word, "GRAD_ALIGN": word, "MODE": mode, "SLOPE": slope, "MEAN": mean, "KH": size,
            "KW": size, **tile,
        }  # fmt: skip
        extras = "".join(f" {name}" for name, on in (("slope", slope), ("mean", mean)) if on)
        yield f"level {size}x{size} {names[mode]}{extras}", compile_kernel(k.level_kernel, arguments, settings.warps)
    maps = {"levels": dtype, "gates": dtype, "mean": "fp32", **shape, "level_stride": 128 * side * side * channels}
    arguments = {**maps, **gates, "gl": 1, "out": dtype, "L": 3, "BP": max(16, 2048 // block), "BC": block}
    yield "aggregate", compile_kernel(k.aggregate_kernel, arguments)
    arguments = {**maps, **gates, **grads, "gl": 1, "grad": dtype, "grad_gates": dtype, "parts": "fp32",
                 "GRAD_ALIGN": word, "L": 3, "LEVELS": 4, "BP": 32, "BC": block}  # fmt: skip
    yield "gates backward", compile_kernel(k.gates_backward_kernel, arguments)
    for size in (3, 5, 7, 9, 13):
        taps = max(1, min(size, host.WEIGHT_SUMS // size))
        arguments = {"grad": dtype, "source": dtype, "parts": "fp32", "total": 128 * side * side, **shape, **dense,
                     "chunk": 4096, "groups": triton.cdiv(size, taps), "ALIGN": word, "KH": size, "KW": size,
                     "TAPS": taps, "BP": host.WEIGHT_ELEMENTS // block, "BC": block}  # fmt: skip
        yield f"weights {size}x{size}", compile_kernel(k.weights_backward_kernel, arguments)


def print_compiled(options: argparse.Namespace) -> None:
    for dtype, (channels, side) in itertools.product(("bf16", "fp32"), ((128, 56), (512, 14))):
        for name, facts in compiled(channels, side, dtype):
            figures = ", ".join(f"{key} {value}" for key, value in facts.items())
            print(f"{dtype} {channels:4} channels {side:3} wide  {name:28} {figures}", flush=True)


def tune(options: argparse.Namespace) -> None:
    """Median time of one level per kernel size, map and settings, forward; the fastest three of each."""
    from triton.testing import do_bench

    from focalnet.ops import kernels as k
    from focalnet.ops import triton as host

    candidates = [
        host.Settings(rows, elements, warps)
        for rows, elements, warps in itertools.product((1, 2, 4), (1024, 2048, 4096, 8192), (2, 4, 8))
    ]
    for (channels, side), size in itertools.product(((128, 56), (256, 28), (512, 14), (1024, 7)), (3, 5, 7, 9, 13)):
        x = torch.randn(options.batch, side, side, channels, device="cuda", dtype=torch.bfloat16)
        weight = torch.randn(channels, 1, size, size, device="cuda", dtype=torch.bfloat16)
        out = torch.empty_like(x)
        times = []
        for settings in candidates:
            host.SETTINGS = {host.KERNEL_LIMIT: (settings, settings)}
            took = do_bench(lambda x=x, w=weight, o=out: host._launch_level(x, w, k.FORWARD, out=o))
            times.append((took, settings))
        flops = 2 * x.numel() * size * size
        for took, settings in sorted(times, key=lambda pair: pair[0])[:3]:
            rate = f"{flops / took / 1e9:.1f} TFLOP/s, {2 * x.nbytes / took / 1e6:.0f} GB/s"
            print(
                f"{channels:5} channels {side:3} wide {size:3}x{size:<3} {took:.4f} ms  {rate}  {settings}", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--model", default="focalnet_base_lrf")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--bandwidth", type=float, default=4800.0)
    parser.add_argument("--flops", type=float, default=67.0)
    options = parser.parse_args()
    if options.count:
        print_count(options)
    if options.compile:
        assert os.environ.get("TRITON_INTERPRET") != "1"
        print_compiled(options)
    if options.tune:
        tune(options)


if __name__ == "__main__":
    main()
