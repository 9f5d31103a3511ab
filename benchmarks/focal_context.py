"""The Triton kernels of the focal operator, one by one.

    python benchmarks/focal_context.py --count      bytes and FLOPs of every kernel, and the time they need at least
    python benchmarks/focal_context.py --compile    machine code of every kernel for sm_90, without a GPU, counted

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
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
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


def specialize(function: Any, arguments: dict[str, Any]) -> tuple[dict[str, str], dict[Any, Any], dict[Any, Any]]:
    """What Triton compiles a launch for: types, constants, and which numbers are multiples of 16."""
    types = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
    signature, constants, hints = {}, {}, {}
    for index, name in enumerate(function.arg_names):
        value, parameter = arguments[name], function.params[index]
        special = not parameter.do_not_specialize
        if isinstance(value, torch.Tensor):
            signature[name] = f"*{types[value.dtype]}"
            if value.data_ptr() % 16 == 0:
                hints[(index,)] = [["tt.divisibility", 16]]
        elif parameter.is_constexpr or value is None or (value == 1 and special):
            signature[name], constants[(index,)] = "constexpr", value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
            if value % 16 == 0 and special:
                hints[(index,)] = [["tt.divisibility", 16]]
    return signature, constants, hints


def compile_kernel(function: Any, arguments: dict[str, Any], warps: int) -> tuple[str, dict[str, int]]:
    """Compile a launch for sm_90, which needs no GPU; its machine code, registers, stack (spills), shared memory.

    Args:
        function: the kernel.
        arguments: as the launch has them; a tensor may be on any device.
        warps: of a program.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, hints = specialize(function, arguments)
    source = ASTSource(function, signature, constexprs=constants, attrs=hints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()

        def read(*command: str) -> str:
            return subprocess.run([*command, file.name], capture_output=True, text=True, check=True).stdout

        usage = read(str(tools / "cuobjdump"), "-res-usage")
        code = read(str(tools / "nvdisasm"), "-c")
    facts = {name.lower(): int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK")}
    return code, facts | {"shared": compiled.metadata.shared}


def count_instructions(code: str) -> tuple[list[str], int]:
    """The instructions of a kernel, and how many of them are in its longest loop."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    longest = 0
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif (found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line)) and not found[1].startswith("NOP"):
            instructions.append(found[1])
            back = re.search(r"\bBRA\b.*?(\.L_x_\d+)", found[1])
            if back and labels.get(back[1], len(instructions)) < len(instructions) - 1:
                longest = max(longest, len(instructions) - labels[back[1]])
    return instructions, longest


def launches(
    channels: int, size: tuple[int, int], windows: Sequence[int], dtype: torch.dtype, *, backward: bool
) -> list[Any]:
    """(kernel, its arguments, warps) of every launch of the operator on a map, in order; nothing runs."""
    from focalnet.ops import kernels, triton

    found: list[Any] = []

    class Recorder:
        def __init__(self, function: Any) -> None:
            self.function = function

        def __getitem__(self, grid: Any) -> Callable[..., None]:
            def record(*values: Any, num_warps: int = 4, **named: Any) -> None:
                arguments = dict(zip(self.function.arg_names, values, strict=False)) | named
                arguments |= {name: getattr(value, "value", value) for name, value in arguments.items()}
                found.append((self.function, arguments, num_warps))

            return record

    recorders = {name: Recorder(value) for name, value in vars(kernels).items() if name.endswith("_kernel")}
    before = triton.k
    triton.k = SimpleNamespace(**{**vars(kernels), **recorders})
    try:
        row = -(-(2 * channels + len(windows) + 1) // 8) * 8
        whole = torch.empty(1, *size, row, dtype=dtype)
        _, context, gates, _ = whole.split(
            (channels, channels, len(windows) + 1, row - 2 * channels - len(windows) - 1), dim=-1
        )
        weights = [torch.empty(channels, 1, size, size, dtype=dtype) for size in windows]
        if backward:
            triton._backward(torch.empty_like(context.contiguous()), context, gates, weights, True)
        else:
            triton.focal_context(context, gates, weights)
    finally:
        triton.k = before
    return found


def compiled(
    channels: int,
    side: int,
    dtype: torch.dtype,
    *,
    windows: Sequence[int] = (3, 5, 7),
    backward: bool = False,
    only: str = "",
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every kernel of the operator on a map whose name begins with `only`: what its machine code needs.

    `per output` counts the instructions for one number of the map and one level; a warp issues them for 32 at once.
    """
    from focalnet.ops import kernels as k

    names = dict(zip((k.FORWARD.value, k.BACKWARD.value, k.PLAIN.value), ("forward", "backward", "plain"), strict=True))
    for function, arguments, warps in launches(channels, (side, side), windows, dtype, backward=backward):
        if not function.__name__.startswith(only):
            continue
        code, facts = compile_kernel(function, arguments, warps)
        instructions, loop = count_instructions(code)
        loads = [each for each in instructions if "LDG" in each]
        facts |= {"instructions": len(instructions), "loads": len(loads)}
        facts["loads of 16 bytes"] = sum("128" in each for each in loads)
        name, size = function.__name__.removesuffix("_kernel"), arguments.get("KH", 0)
        if name in ("level", "weights_backward"):
            outputs = arguments["BP"] * arguments["BC"] * arguments["COLUMNS"] / (32 * warps)
            work = len(instructions) + (size - 1) * loop if name == "level" else arguments["groups"] * loop
            facts["per output"] = round(work / outputs, 1)
            name += f" {size}x{size}"
        if function is k.level_kernel:
            extras = [word for word in ("SLOPE", "MEAN") if arguments[word]]
            name = " ".join([name, names[arguments["MODE"]], *map(str.lower, extras)])
        yield name, facts


def print_compiled(options: argparse.Namespace) -> None:
    for dtype, (channels, side) in itertools.product((torch.bfloat16, torch.float32), ((128, 56), (512, 14))):
        for backward, windows in itertools.product((False, True), ((3, 5, 7), (9, 11, 13))):
            for name, facts in compiled(channels, side, dtype, windows=windows, backward=backward):
                figures = ", ".join(f"{key} {value}" for key, value in facts.items())
                print(f"{str(dtype)[6:]:9}{channels:4} channels {side:3} wide  {name:28} {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--compile", action="store_true")
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


if __name__ == "__main__":
    main()
