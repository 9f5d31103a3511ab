"""Side-by-side speed and memory: this library, timm, transformers, the official code, and other networks.

Every candidate gets the same weights, and its output is compared with ours before a clock starts. Then all take turns
in one process, one call each per round, in an order that rotates: what disturbs the machine disturbs every side.
`ratio` is the median over the rounds of (time of the candidate / our time in the same round): above 1 we are faster.

An exported file takes turns with the network that it was exported from, whose weights are random here.

Two parts: `operator` is `focal_context` alone, once per block of the network, beside plain PyTorch (what timm and
transformers do between `f` and `h`); `model` is the network with its head. Two passes: `forward`, and `training`:
forward, backward and, for a model, AdamW. Detection size is `--size 800 1216 --windows 9`.

The roofline is measured, not quoted: bytes per second of a copy, and FLOP per second of a matrix product.
"""

import contextlib
import copy
import dataclasses
import itertools
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.bench.files import file_calls
from focalnet.bench.options import BenchOptions
from focalnet.bench.peers import official_network, other_networks, same_network
from focalnet.errors import UserError
from focalnet.machine import abilities
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.exported import is_exported
from focalnet.ops import BACKENDS, focal_context
from focalnet.ops.linear import ROW
from focalnet.variants import FocalNetConfig, get_variant

Call = Callable[[], Tensor]
Value = TypeVar("Value")
OURS = "focalnet"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = {"float32": 1e-4, "bfloat16": 6e-2, "float16": 2e-2}


def bench(options: BenchOptions) -> list[dict[str, Any]]:
    """Measure, print a table, and return its rows.

    Raises:
        UserError: an unknown model, an exported file and a GPU, or a rival whose package or file is missing.
    """
    if options.device is None:
        options = dataclasses.replace(options, device="cuda" if torch.cuda.is_available() else "cpu")
    files = [name for name in options.models if is_exported(name)]
    if files and options.device != "cpu":
        raise UserError(f"{files[0]} computes on the CPU, and --device is {options.device}; give --device cpu.")
    facts = {
        "commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__,
        "device": device_name(options.device), "threads": torch.get_num_threads(), **roofline(options),
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    rows = []
    _show({name: name for name in COLUMNS})
    names = [name for name in options.models if name not in files]
    work = [partial(_measure_file, Path(name), options) for name in files]
    for what in itertools.product(names, options.parts, options.passes, options.precisions):
        work.append(partial(_measure, *what, options))
    for measure in work:
        for row in measure():
            rows.append(row | {"batch": options.batch, "size": options.size, "windows": options.windows})
            _show(row)
            if options.out is not None:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                with options.out.open("a") as file:
                    file.write(json.dumps(rows[-1] | facts) + "\n")
    return rows


COLUMNS = {"model": 20, "part": 10, "pass": 10, "precision": 10, "candidate": 32, "ms": 10, "ratio": 8, "mib": 9,
           "launches": 9, "error": 8}  # fmt: skip


def _show(row: dict[str, Any]) -> None:
    print(
        "".join(f"{'' if row[name] is None else row[name]!s:<{width}}" for name, width in COLUMNS.items()), flush=True
    )


def _measure(name: str, part: str, direction: str, precision: str, options: BenchOptions) -> list[dict[str, Any]]:
    config = get_variant(name).replace(drop_path_rate=0.0)
    if options.windows is not None:
        config = config.replace(focal_windows=(options.windows,))
    torch.manual_seed(0)
    build = operators if part == "operator" else networks_of
    calls, outputs = {}, {}
    for candidate, call in build(name, config, direction, precision, options):
        outputs[candidate] = call().float()  # also the warm-up
        calls[candidate] = call
    errors = {
        candidate: ((out - outputs[OURS]).abs().max() / outputs[OURS].abs().max()).item()
        for candidate, out in outputs.items()
        if out.shape == outputs[OURS].shape and not candidate.endswith("*")
    }
    for candidate, error in errors.items():
        if not error <= TOLERANCE[precision]:
            raise AssertionError(f"{candidate} differs from ours by {error:.1e} relative in {precision} ({part})")
    for call in calls.values():
        call()
    facts = {"model": name, "part": part, "pass": direction, "precision": precision}
    return _rows(facts, calls, errors, options)


def _measure_file(path: Path, options: BenchOptions) -> list[dict[str, Any]]:
    precision, calls = file_calls(path, options.batch, options.size)
    for call in calls.values():
        call()
    facts = {"model": path.stem, "part": "model", "pass": "forward", "precision": precision}
    return _rows(facts, calls, {}, options)


def _rows(
    facts: dict[str, Any], calls: Mapping[str, Callable[[], Any]], errors: Mapping[str, float], options: BenchOptions
) -> list[dict[str, Any]]:
    seconds = take_turns(calls, options)
    rows = []
    for candidate, times in seconds.items():
        memory, launches = cuda_costs(calls[candidate], options)
        ratio = statistics.median(theirs / ours for theirs, ours in zip(times, seconds[OURS], strict=True))
        rows.append({**facts, "candidate": candidate,
                     "ms": round(1000 * statistics.median(times), 2), "ratio": round(ratio, 3), "mib": memory,
                     "launches": launches,
                     "error": float(f"{errors[candidate]:.0e}") if candidate in errors else None})  # fmt: skip
    return rows


def operators(
    _: str, config: FocalNetConfig, direction: str, precision: str, options: BenchOptions
) -> Iterator[tuple[str, Call]]:
    """`focal_context` on the shapes of every block; the inputs are slices of one tensor, as in the network."""
    problems = []
    for stage, (channels, stride, depth) in enumerate(zip(config.channels, config.strides, config.depths, strict=True)):
        levels = config.focal_levels[stage]
        height, width = (max(side // stride, 1) for side in options.size)
        spare = -(2 * channels + levels + 1) % ROW if options.device == "cuda" else 0
        make = {"device": options.device, "dtype": DTYPES[precision]}
        whole = torch.randn(options.batch, height, width, 2 * channels + levels + 1 + spare, **make)
        sizes = [config.focal_windows[stage] + config.focal_factor * level for level in range(levels)]
        kernels = [torch.randn(channels, 1, size, size, **make) / size for size in sizes]
        leaves = [tensor.requires_grad_(direction == "training") for tensor in (whole, *kernels)]
        problems.append((depth, channels, levels, leaves))

    def call_with(function: Callable[..., Tensor]) -> Call:
        def run() -> Tensor:
            out = torch.empty(0)
            for depth, channels, levels, (whole, *kernels) in problems:
                for _ in range(depth):
                    _, context, gates, _ = whole.split(
                        (channels, channels, levels + 1, whole.shape[-1] - 2 * channels - levels - 1), dim=-1
                    )
                    out = function(context, gates, kernels)
                    if direction == "training":
                        out = torch.autograd.grad(out, [whole, *kernels], out)[0]
            return out.detach()

        return run

    plain = next(backend.run for backend in BACKENDS if backend.name == "reference")
    yield OURS, call_with(focal_context)
    yield "plain PyTorch", call_with(plain)
    if options.compiled:
        yield "plain PyTorch, compiled", call_with(torch.compile(plain))


def networks_of(
    name: str, config: FocalNetConfig, direction: str, precision: str, options: BenchOptions
) -> Iterator[tuple[str, Call]]:
    ours = FocalNetClassifier(config)
    networks: dict[str, nn.Module] = {OURS: ours}
    weights = ours.state_dict()
    for library in options.against:
        networks[library] = same_network(library, name, config, weights)
    if options.official is not None:
        networks["official"] = official_network(options.official, config, weights)
    if options.alternatives:
        networks |= other_networks(name, options.size)
    images = torch.randn(options.batch, 3, *options.size, device=options.device, dtype=DTYPES[precision])
    labels = torch.randint(1000, (options.batch,), device=options.device)
    for candidate, network in networks.items():
        network = network.to(options.device, DTYPES[precision]).train(direction == "training")
        yield candidate, _call(network, images, labels, direction)
        if options.compiled:
            yield f"{candidate}, compiled", _call(torch.compile(network), images, labels, direction)
        if options.recompute and candidate == OURS and direction == "training":
            for policy in ("context", "block"):
                other = copy.deepcopy(ours)
                other.set_recompute(policy)
                yield f"{candidate}, recompute {policy}", _call(other, images, labels, direction)
        if options.cuda_graph and candidate == OURS and direction == "forward" and options.device == "cuda":
            yield f"{candidate}, CUDA graph", _graphed(_call(network, images, labels, direction))


def _call(network: Any, images: Tensor, labels: Tensor, direction: str) -> Call:
    def logits() -> Tensor:
        out = network(images)
        return out if isinstance(out, Tensor) else out.logits

    def forward() -> Tensor:
        with torch.inference_mode():
            return logits()

    if direction == "forward":
        return forward
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, fused=True)  # the weights stay equal on every side

    def training() -> Tensor:
        loss = F.cross_entropy(logits().float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return training


def _graphed(call: Call) -> Call:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def _seconds(call: Callable[[], Any], options: BenchOptions) -> float:
    synchronize = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    synchronize()
    begin = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - begin


def in_turns(calls: Mapping[str, Callable[[], Value]], rounds: int) -> dict[str, list[Value]]:
    """What each call gives, one entry per round; the order rotates from round to round."""
    found: dict[str, list[Value]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            found[name].append(calls[name]())
    return found


def take_turns(calls: Mapping[str, Callable[[], Any]], options: BenchOptions) -> dict[str, list[float]]:
    """Seconds per candidate, one entry per round, in turns."""
    return in_turns({name: partial(_seconds, call, options) for name, call in calls.items()}, options.repeats)


def cuda_costs(call: Call, options: BenchOptions) -> tuple[float | None, int | None]:
    """Peak memory of one call above what lies there anyway, in MiB, and the number of kernels it launches."""
    if options.device != "cuda":
        return None, None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    kernels = sum("CUDA" in str(event.device_type) for event in profile.events() or ())
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1), kernels


def roofline(options: BenchOptions) -> dict[str, float]:
    """GB/s of a copy (read and write) and TFLOP/s of a matrix product in each precision, the best of ten."""
    on_gpu = options.device == "cuda"
    source = torch.empty((512 if on_gpu else 64) * 2**18, device=options.device)
    target = torch.empty_like(source)

    def best(call: Callable[[], Any]) -> float:
        call()
        return min(min(take_turns({"it": call}, options)["it"]) for _ in range(2))

    found = {"copy_gb_s": round(2 * source.nbytes / best(lambda: target.copy_(source)) / 1e9, 1)}
    side = 8192 if on_gpu else 1024
    for precision in options.precisions:
        with contextlib.suppress(RuntimeError):  # a precision that the device cannot multiply
            a = torch.randn(side, side, device=options.device, dtype=DTYPES[precision])
            found[f"gemm_{precision}_tflop_s"] = round(2 * side**3 / best(lambda a=a: a @ a) / 1e12, 3)
    return found


def device_name(device: str | None) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    amx = " AMX" if "AMX bf16" in abilities() else ""
    return f"{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}{amx}"


def commit() -> str:
    def git(*command: str) -> str:
        here = Path(__file__).parent
        try:
            done = subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, check=False)
        except OSError:  # there is no git
            return ""
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+changes" if git("status", "--porcelain") else "")
