"""The steps of `gpu.py`, each run by it in a process of its own: `gpu_steps.py STEP ROWS [--rehearse]`.

A step takes a `Scale` and `emit`, which appends one row to the file ROWS and flushes it.
"""

import argparse
import concurrent.futures
import functools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focalnet.bench import measure as bench
from focalnet.bench.measure import DTYPES
from focalnet.bench.options import BenchOptions
from focalnet.ops import reference
from focalnet.variants import FocalNetConfig, get_variant

Emit = Callable[..., None]
Call = Callable[[], Any]
ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}
"""Of a tensor's norm; Triton's interpreter cuts where hardware rounds to bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """The focal operator of one stage: `depth` blocks on maps of `size`."""

    stage: str
    depth: int
    config: FocalNetConfig
    size: tuple[int, int]


def maps(config: FocalNetConfig, stage: str, size: tuple[int, int]) -> list[Map]:
    """One per stage; its `config` is a network of that stage alone, without a stem that reduces."""
    found = []
    for index, (channels, stride, depth) in enumerate(zip(config.channels, config.strides, config.depths, strict=True)):
        alone = FocalNetConfig(
            embed_dim=channels, depths=(1,), patch_size=1, focal_levels=(config.focal_levels[index],),
            focal_windows=(config.focal_windows[index],),
        )  # fmt: skip
        found.append(
            Map(stage=f"{stage} {index + 1}", depth=depth, config=alone, size=(size[0] // stride, size[1] // stride))
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the steps are."""

    device: str = "cuda"
    precision: Any = "bfloat16"
    main: str = "focalnet_base_lrf"
    """The network of the claims and of the rule."""
    odd: str = "focalnet_tiny_srf"
    """Two levels: f has an odd number of outputs."""
    dense: str = "focalnet_tiny_lrf"
    batch: int = 128
    small: int = 8
    size: tuple[int, int] = (224, 224)
    detection: tuple[int, int] = (800, 1216)
    detection_batch: int = 4
    repeats: int = 12
    workers: int = 12
    backends: tuple[str, ...] = ("cuda", "triton")
    """Beside plain PyTorch, the best first; whole networks of a rehearsal have no other."""
    operators: FocalNetConfig | None = None
    """Shapes of the operator alone, where they are not those of the networks."""

    def operator_backends(self) -> tuple[str, ...]:
        """Of the operator alone."""
        return ("triton",) if self.device == "cpu" else self.backends

    def options(self, **changes: Any) -> BenchOptions:
        return BenchOptions(
            **{"device": self.device, "precisions": (self.precision,), "against": ("timm",), "batch": self.batch,
               "size": self.size, "repeats": self.repeats, **changes}
        )  # fmt: skip

    def maps(self) -> list[Map]:
        """Of the main network."""
        return maps(self.operators or get_variant(self.main), "stage", self.size)

    def other_maps(self) -> list[Map]:
        """Rows of odd length, and detection."""
        if self.operators is not None:
            return []
        odd = maps(get_variant(self.odd), "odd", self.size)
        return [*odd, *maps(get_variant(self.dense).replace(focal_windows=(9,)), "detection", self.detection)]


FULL = Scale()
TINY = Scale(
    device="cpu", precision="float32", main="focalnet_tiny_srf", dense="focalnet_tiny_srf", batch=2, small=1,
    size=(32, 32), detection=(32, 64), detection_batch=1, repeats=1, workers=1, backends=("reference",),
    operators=FocalNetConfig(embed_dim=4, depths=(1,), focal_levels=(1,), patch_size=8),
)  # fmt: skip


def using(backend: str, call: Call) -> Call:
    def run() -> Any:
        os.environ["FOCALNET_BACKEND"] = backend
        return call()

    return run


def operator(where: Map, direction: str, batch: int, scale: Scale) -> Call:
    """`focal_context` of one block; the inputs are slices of one tensor, as in the network."""
    options = scale.options(batch=batch, size=where.size)
    return next(bench.operators("", where.config, direction, scale.precision, options))[1]


def milliseconds(call: Call, scale: Scale, seconds: float = 0.05) -> float:
    """Median of a call whose data are not in the caches yet."""
    if scale.device == "cuda":
        from triton.testing import do_bench

        return float(do_bench(call, warmup=10, rep=int(1000 * seconds), return_mode="median"))
    call()
    begin = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - begin)


def machine(scale: Scale, emit: Emit) -> None:
    """Versions, the card, and its two ceilings."""
    versions: dict[str, Any] = {"python": sys.version.split()[0], "torch": torch.__version__}
    for name in ("triton", "timm", "pytest"):
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            versions[name] = None
    if scale.device == "cuda":
        command = [
            "nvidia-smi",
            "--query-gpu=name,clocks.sm,clocks.max.sm,power.limit,driver_version",
            "--format=csv,noheader",
        ]
        versions["smi"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    emit(**versions)
    emit(**versions, **bench.roofline(scale.options()))


def launch(what: str, backend: str, direction: str, scale: Scale, batch: int) -> tuple[str, float]:
    """Compile what one map needs; runs in a worker."""
    begin = time.perf_counter()
    where = next(each for each in (*scale.maps(), *scale.other_maps()) if each.stage == what)
    options = scale.options(batch=batch, size=where.size)
    call = next(bench.operators("", where.config, direction, scale.precision, options))[1]
    using(backend, call)()
    if scale.device == "cuda":
        torch.cuda.synchronize()
    return f"{what} {backend} {direction} batch {batch}", time.perf_counter() - begin


def in_parallel(
    function: Callable[..., tuple[str, float]], jobs: list[tuple[Any, ...]], scale: Scale, emit: Emit
) -> None:
    """Run the jobs in processes; a row each, also for one that fails."""
    if scale.workers == 1:
        for job in jobs:
            what, seconds = function(*job)
            emit(what=what, seconds=round(seconds, 2))
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(scale.workers, mp_context=context) as pool:
        futures = {pool.submit(function, *job): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            try:
                what, seconds = future.result()
                emit(what=what, seconds=round(seconds, 2))
            except Exception as error:
                emit(what=str(futures[future][:3]), error=f"{type(error).__name__}: {error}"[:500])


def warm(scale: Scale, emit: Emit) -> None:
    """Fill the caches from many processes at once: what later steps would compile one after the other."""
    jobs: list[tuple[Any, ...]] = []
    for backend in scale.operator_backends():
        for where in (*scale.maps(), *scale.other_maps()):
            found = where.stage.startswith("detection")
            if backend == "cuda" and found and where.size[1] > 56:
                continue  # does not fit into shared memory
            jobs.append((where.stage, backend, "forward" if found else "training", scale, scale.small))
    in_parallel(launch, jobs, scale, emit)


def right(scale: Scale, emit: Emit) -> None:
    """Output and every gradient against plain PyTorch in float64, and two runs against each other."""
    from focalnet.ops import cuda, triton

    functions = {"cuda": cuda.focal_context, "triton": triton.focal_context}
    for where in (*scale.maps(), *scale.other_maps()[3::2]):
        torch.manual_seed(0)
        channels, levels = where.config.channels[0], where.config.focal_levels[0]
        sizes = [where.config.focal_windows[0] + 2 * level for level in range(levels)]
        make: dict[str, Any] = {"device": scale.device, "dtype": DTYPES[scale.precision]}
        batch = 1 if where.stage.startswith("detection") or scale.workers == 1 else 9
        spare = -(2 * channels + levels + 1) % 8
        whole = torch.randn(batch, *where.size, 2 * channels + levels + 1 + spare, **make)
        kernels = [torch.randn(channels, 1, size, size, **make) / size for size in sizes]
        cotangent = torch.randn(batch, *where.size, channels, **make)

        def everything(function: Callable[..., Tensor], whole: Tensor, kernels: list[Tensor], cotangent: Tensor):
            leaves = [tensor.detach().clone().requires_grad_() for tensor in (whole, *kernels)]
            channels, levels = kernels[0].shape[0], len(kernels) + 1
            _, context, gates, _ = leaves[0].split(
                (channels, channels, levels, leaves[0].shape[-1] - 2 * channels - levels), dim=-1
            )
            out = function(context, gates, leaves[1:])
            return [out.detach(), *torch.autograd.grad(out, leaves, cotangent)]

        doubles = [each.double() for each in (whole, *kernels, cotangent)]
        exact = everything(reference.focal_context, doubles[0], doubles[1:-1], doubles[-1])
        for backend in scale.operator_backends():
            arguments = functions[backend], whole, kernels, cotangent
            if backend == "cuda" and not cuda.can_run(whole[..., :channels], whole[..., :1], kernels)[0]:
                continue
            ours, again = everything(*arguments), everything(*arguments)
            errors = [
                ((got.double() - wanted).norm() / wanted.norm()).item() for got, wanted in zip(ours, exact, strict=True)
            ]
            same = all(torch.equal(*pair) for pair in zip(ours, again, strict=True))
            worst = max(errors, key=lambda error: float("inf") if error != error else error)
            emit(what=f"{where.stage} {backend}", ok=worst <= TOLERANCE[scale.precision] and same,
                 error=float(f"{worst:.1e}"), errors=[float(f"{error:.1e}") for error in errors],
                 same_bits=same)  # fmt: skip


def kernel_times(call: Call) -> Iterator[tuple[str, float]]:
    """(name, median microseconds) of every kernel of a call, in the order of launches."""
    repeats = 5
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
    events = sorted(
        (event.time_range.start, event.name, event.time_range.elapsed_us())
        for event in profile.events() or ()
        if "CUDA" in str(event.device_type)
    )
    count = len(events) // repeats
    for place in range(count):
        one = events[place::count] if len(events) == count * repeats else events[place : place + 1]
        yield one[0][1], statistics.median(event[2] for event in one)


def kernels(scale: Scale, emit: Emit) -> None:
    """The operator per stage and backend, then every kernel of it; a depth-wise convolution beside."""
    for direction in ("forward", "training"):
        total = dict.fromkeys((*scale.operator_backends(), "reference"), 0.0)
        for where, backend in ((where, backend) for where in scale.maps() for backend in total):
            ms = milliseconds(using(backend, operator(where, direction, scale.batch, scale)), scale)
            total[backend] += where.depth * ms
            emit(part="operator", stage=where.stage, candidate=backend, ms=round(ms, 4), **{"pass": direction})
        for backend, ms in total.items():
            emit(part="operator", stage="all", candidate=backend, ms=round(ms, 3), **{"pass": direction})
    if scale.device != "cuda":
        return
    for where, backend in ((where, backend) for where in scale.maps() for backend in scale.backends):
        call = using(backend, operator(where, "training", scale.batch, scale))
        call()
        numbers = scale.batch * where.size[0] * where.size[1] * where.config.channels[0]
        for place, (name, us) in enumerate(kernel_times(call)):
            emit(part="kernel", stage=where.stage, candidate=backend, place=place, kernel=name[:60], us=round(us, 1),
                 map_gb_s=round(2e-3 * numbers / us, 1))  # fmt: skip


def measure_networks(name: str, options: BenchOptions, direction: str, scale: Scale, emit: Emit, **facts: Any) -> None:
    """Ours on every backend and with rows that are not padded, and timm, taking turns; ratios are over our best."""
    from focalnet.ops import linear

    module = sys.modules[linear.__module__]
    found = dict(
        bench.networks_of(
            name, get_variant(name).replace(drop_path_rate=0.0), direction, options.precisions[0], options
        )
    )
    best = scale.backends[0]

    def without_spare() -> Any:
        before, module.ROW = module.ROW, 1
        try:
            return using(best, found["focalnet"])()
        finally:
            module.ROW = before

    calls = {backend: using(backend, found["focalnet"]) for backend in dict.fromkeys((*scale.backends, "reference"))}
    calls |= {"timm": found["timm"], f"{best}, rows not padded": without_spare}
    outputs = {candidate: call().float() for candidate, call in calls.items()}
    for call in calls.values():
        call()
    seconds = bench.take_turns(calls, options)
    for candidate, times in seconds.items():
        error = (outputs[candidate] - outputs[best]).abs().max() / outputs[best].abs().max()
        ratio = statistics.median(theirs / ours for theirs, ours in zip(times, seconds[best], strict=True))
        mib, launches = bench.cuda_costs(calls[candidate], options)
        emit(candidate=candidate, ms=round(1000 * statistics.median(times), 2), ratio=round(ratio, 3),
             mib=mib, launches=launches, error=float(f"{error.item():.0e}"), model=name,
             batch=options.batch, **{"pass": direction}, **facts)  # fmt: skip


def models(scale: Scale, emit: Emit) -> None:
    """Whole networks, eager: what the rule for the order of backends reads comes first."""
    for batch, direction in (
        (batch, direction) for batch in (scale.batch, scale.small) for direction in ("forward", "training")
    ):
        measure_networks(
            scale.main, scale.options(batch=batch), direction, scale, emit, decides=True, large=batch == scale.batch
        )
    for direction in ("forward", "training") if scale.device == "cuda" else ():
        measure_networks(scale.odd, scale.options(), direction, scale, emit)


CUTS = (
    (8, 1, 2), (8, 1, 3), (8, 1, 4), (8, 1, 5), (8, 2, 1), (8, 2, 2), (8, 4, 1),
    (4, 2, 2), (4, 4, 1), (4, 4, 2), (4, 8, 1), (16, 1, 1), (16, 1, 2), (16, 1, 3), (16, 2, 1), (32, 1, 1),
)  # fmt: skip
"""Channels of a block, warps of a channel, blocks on a multiprocessor."""


def cut_of(where: Map, backward: bool, cut: tuple[int, int, int], scale: Scale) -> Any:
    """How the kernels for tensor cores would cut a map."""
    from focalnet.ops import plan

    config, device = where.config, torch.device(scale.device, 0)
    sizes = tuple(config.focal_windows[0] + 2 * level for level in range(config.focal_levels[0]))
    dtype = DTYPES[scale.precision]
    facts = plan.Maps(sizes, scale.batch, *where.size, config.channels[0], dtype, dtype, device)
    found = plan.Plan(facts, cut[0], backward)
    found.__dict__["warps"], found.__dict__["blocks"] = cut[1:]
    return found


def compile_cut(stage: str, backward: bool, cut: tuple[int, int, int], scale: Scale) -> tuple[str, float]:
    """Compile one cut; runs in a worker."""
    begin = time.perf_counter()
    _ = cut_of(next(where for where in scale.maps() if where.stage == stage), backward, cut, scale).program
    return f"{stage} {'backward' if backward else 'forward'} {cut}", time.perf_counter() - begin


def cuts(scale: Scale, emit: Emit) -> None:
    """What other cuts of the maps would bring: the constants of `ops.plan` are the best of these."""
    if scale.device != "cuda":
        emit(cuts=len(CUTS))
        return
    from focalnet.ops import cuda, plan

    most = torch.cuda.get_device_properties(0).shared_memory_per_block_optin
    fitting = [
        (where, backward, cut)
        for where in scale.maps() for backward in (False, True) for cut in CUTS
        if cut_of(where, backward, cut, scale).shared * cut[2] <= most
        and where.config.channels[0] % cut[0] == 0 and (cut[1] == 1 or where.size[0] > 16)
    ]  # fmt: skip
    jobs: list[tuple[Any, ...]] = [(where.stage, backward, cut, scale) for where, backward, cut in fitting]
    in_parallel(compile_cut, jobs, scale, emit)
    for where, backward, cut in fitting:
        channels, levels = where.config.channels[0], where.config.focal_levels[0]
        make: dict[str, Any] = {"device": scale.device, "dtype": DTYPES[scale.precision]}
        whole = torch.randn(scale.batch, *where.size, 2 * channels + 8, **make)
        context, gates = whole[..., channels : 2 * channels], whole[..., 2 * channels : 2 * channels + levels + 1]
        sizes = [where.config.focal_windows[0] + 2 * level for level in range(levels)]
        kernels = [torch.randn(channels, 1, size, size, **make) / size for size in sizes]
        known, name = plan.maps(context, kernels), "backward" if backward else "forward"
        known.__dict__[name] = chosen = cut_of(where, backward, cut, scale)
        run = functools.partial(cuda._backward, context.contiguous()) if backward else cuda._forward
        ms = milliseconds(functools.partial(run, context, gates, kernels), scale, 0.02)
        del known.__dict__[name]
        emit(stage=where.stage, channels=cut[0], warps=cut[1], blocks=cut[2], images=chosen.images, ms=round(ms, 4),
             **{"pass": name})  # fmt: skip


def single(scale: Scale, emit: Emit) -> None:
    """One image, with and without a CUDA graph; and forward passes of detection size beside timm."""
    options = scale.options(batch=1, cuda_graph=scale.device == "cuda", repeats=3 * scale.repeats)
    os.environ["FOCALNET_BACKEND"] = scale.backends[0]
    calls = dict(bench.networks_of(scale.main, get_variant(scale.main), "forward", scale.precision, options))
    for call in calls.values():
        call()
    for candidate, times in bench.take_turns(calls, options).items():
        emit(
            what="one image",
            candidate=candidate.replace("focalnet", scale.backends[0]),
            ms=round(1000 * statistics.median(times), 3),
        )
    options = scale.options(batch=scale.detection_batch, size=scale.detection)
    config = get_variant(scale.dense).replace(drop_path_rate=0.0, focal_windows=(9,))
    found = dict(bench.networks_of(scale.dense, config, "forward", scale.precision, options))
    backends = dict.fromkeys((scale.backends[-1], "reference"))  # maps that do not fit into shared memory
    calls = {backend: using(backend, found["focalnet"]) for backend in backends} | {"timm": found["timm"]}
    for call in calls.values():
        call()
    seconds = bench.take_turns(calls, options)
    for candidate, times in seconds.items():
        ratio = statistics.median(
            theirs / ours for theirs, ours in zip(times, seconds[scale.backends[-1]], strict=True)
        )
        emit(what="detection", candidate=candidate, ms=round(1000 * statistics.median(times), 2), ratio=round(ratio, 3))


def compiled(direction: str, scale: Scale, emit: Emit) -> None:
    """Ours and timm under torch.compile, measured and kept one after the other."""
    config = get_variant(scale.main).replace(drop_path_rate=0.0)
    options = scale.options(compiled=True)
    os.environ["FOCALNET_BACKEND"] = scale.backends[0]
    calls = bench.networks_of(scale.main, config, direction, scale.precision, options)
    for candidate, call in calls:
        if "compiled" not in candidate:
            continue
        begin = time.perf_counter()
        call()
        compile_s = round(time.perf_counter() - begin, 1)
        call()
        emit(candidate=candidate.replace("focalnet", scale.backends[0]), compile_s=compile_s,
             ms=round(milliseconds(call, scale, 0.5), 3))  # fmt: skip


def tests(scale: Scale, emit: Emit) -> None:
    """The tests of the kernels, but those that compile hundreds of them or need no GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
    command += ["-p", "no:typeguard", "-p", "no:hypothesispytest"]  # plugins of packages that may be hidden
    if scale.device == "cuda":
        command += ["tests/ops/test_cuda.py", "tests/ops/test_triton.py", "-m", "slow or not slow", "-n", "12"]
        command += ["--dist", "worksteal", "-k", "not any_shape and not no_kernel_spills"]
    else:
        command += ["tests/ops/test_triton.py", "-k", "dense_and_permuted"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, flush=True)
    lines = done.stdout.strip().splitlines()
    broken = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    emit(code=done.returncode, words=lines[-1] if lines else "", broken=broken[:20])


RUN: dict[str, Callable[[Scale, Emit], None]] = {
    "machine": machine, "warm": warm, "right": right, "kernels": kernels, "models": models, "cuts": cuts,
    "single": single, "compiled_forward": functools.partial(compiled, "forward"),
    "compiled_training": functools.partial(compiled, "training"), "tests": tests,
}  # fmt: skip


def run(step: str, path: Path, *, rehearse: bool, commit: str = "") -> None:
    """Run one step; its rows are appended to the file `path`."""
    scale = TINY if rehearse else FULL
    facts = {"step": step, "commit": commit or bench.commit(), "device": bench.device_name(scale.device)}

    def emit(**row: Any) -> None:
        with path.open("a") as file:
            file.write(json.dumps(facts | row) + "\n")
        print(step, row, flush=True)

    RUN[step](scale, emit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=RUN)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--commit", default="")
    options = parser.parse_args()
    run(options.step, options.rows, rehearse=options.rehearse, commit=options.commit)


if __name__ == "__main__":
    main()
