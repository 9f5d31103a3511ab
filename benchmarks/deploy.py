"""What a file buys: FocalNet by every way there is to run it on a CPU, beside timm.

    python benchmarks/deploy.py --models focalnet_tiny_lrf --batches 8 --threads 1
    python benchmarks/deploy.py --candidates timm focalnet onnxruntime "onnxruntime int8"

All candidates have the same weights. Those in float32 must give timm's logits to 1e-4, and no clock starts before. Then
they take turns in one process, one call each per round, in an order that rotates, so that a neighbour on the machine
slows a round and not one side. Two clocks: the processor time of the process, over all of its threads, which does not
count what neighbours take, and the wall.

    ratio    median(time of timm, eager) / median(time of the candidate), processor time
    paired   median over the rounds of (time of timm / time of the candidate in the same round)    the one to read
    wall     `paired` by the wall

int8 is what `focalnet export --int8` writes by default: products with weights. What it costs in accuracy is measured
there, on trained networks; weights here are random. bfloat16 runs where OpenVINO says that the processor has it. Rows
are printed, and appended as JSON lines with commit, versions, and what the processor can do.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import focalnet
from focalnet.bench.measure import commit, device_name, in_turns
from focalnet.bench.peers import same_network
from focalnet.errors import UserError
from focalnet.exporting import int8
from focalnet.machine import abilities
from focalnet.models.exported import open_exported
from focalnet.variants import get_variant

RESULTS = Path(__file__).parent / "results" / "deploy.jsonl"
BASE = "timm"
TOLERANCE = 1e-4
CALIBRATION = 4
Call = Callable[[], Tensor]


def with_backend(network: nn.Module, backend: str) -> Callable[[Tensor], Tensor]:
    """The network, computing the focal operator by this backend."""

    def run(images: Tensor) -> Tensor:
        os.environ["FOCALNET_BACKEND"] = backend
        try:
            return network(images)
        finally:
            del os.environ["FOCALNET_BACKEND"]

    return run


def candidates(name: str, folder: Path) -> Iterator[tuple[str, Callable[[], Callable[[Tensor], Tensor]]]]:
    """What is measured, and what makes it."""
    torch.manual_seed(0)
    ours = focalnet.create_model(name, drop_path_rate=0.0).eval()
    config = get_variant(name).replace(drop_path_rate=0.0)
    timm = same_network("timm", name, config, ours.state_dict()).eval()
    files = {".onnx": folder / f"{name}.onnx", ".xml": folder / f"{name}.xml"}

    def plain(ending: str) -> Path:
        if not files[ending].exists():
            focalnet.export(ours, files[ending])
        return files[ending]

    def quantized(ending: str) -> Path:
        path = folder / f"{name}-int8{ending}"
        if not path.exists():
            write, stamp = int8.WRITERS[{".onnx": "onnx", ".xml": "openvino"}[ending]]
            feeds = [[torch.randn(1, 3, 224, 224).numpy()] for _ in range(CALIBRATION)]
            write(plain(ending), path, lambda: iter(feeds), "matmul")
            stamp(path, open_exported(plain(ending)).exported)
        return path

    yield BASE, lambda: timm
    yield "timm, compiled", lambda: torch.compile(timm, dynamic=False)
    yield "focalnet", lambda: with_backend(ours, "reference")
    yield "focalnet, numba", lambda: with_backend(ours, "numba")
    yield "focalnet, compiled", lambda: torch.compile(ours, dynamic=False)
    yield "onnxruntime", lambda: open_exported(plain(".onnx"))
    yield "onnxruntime int8", lambda: open_exported(quantized(".onnx"))
    yield "openvino", lambda: open_exported(plain(".xml"))
    yield "openvino bf16", lambda: open_exported(plain(".xml"), "bf16")
    yield "openvino int8", lambda: open_exported(quantized(".xml"))


NAMES = [
    BASE, "timm, compiled", "focalnet", "focalnet, numba", "focalnet, compiled", "onnxruntime", "onnxruntime int8",
    "openvino", "openvino bf16", "openvino int8",
]  # fmt: skip


def clocked(run: Call) -> tuple[float, float]:
    """Seconds of the processor and of the wall."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def call(network: Callable[[Tensor], Tensor], images: Tensor) -> Call:
    def run() -> Tensor:
        with torch.inference_mode():
            return network(images)

    return run


def measure(name: str, batch: int, networks: dict[str, Callable[[Tensor], Tensor]], rounds: int) -> list[dict]:
    """One row per candidate."""
    torch.manual_seed(1)
    images = torch.randn(batch, 3, 224, 224)
    calls = {candidate: call(network, images) for candidate, network in networks.items()}
    logits = {candidate: run() for candidate, run in calls.items()}  # also the warm-up
    expected, errors = logits[BASE], {}
    for candidate, found in logits.items():
        errors[candidate] = float((found - expected).abs().max() / expected.abs().max())
        exact = not candidate.endswith(("int8", "bf16"))
        assert not exact or errors[candidate] <= TOLERANCE, f"{candidate} differs by {errors[candidate]:.1e}"
    seconds = in_turns({candidate: partial(clocked, run) for candidate, run in calls.items()}, rounds)

    def paired(candidate: str, clock: int) -> float:
        pairs = zip(seconds[BASE], seconds[candidate], strict=True)
        return round(statistics.median(theirs[clock] / ours[clock] for theirs, ours in pairs), 3)

    def median(candidate: str, clock: int) -> float:
        return statistics.median(row[clock] for row in seconds[candidate])

    return [
        {
            "model": name, "batch": batch, "candidate": candidate,
            "cpu_ms": round(1000 * median(candidate, 0), 1), "wall_ms": round(1000 * median(candidate, 1), 1),
            "ratio": round(median(BASE, 0) / median(candidate, 0), 3), "paired": paired(candidate, 0),
            "wall": paired(candidate, 1), "error": float(f"{errors[candidate]:.1e}"),
        }
        for candidate in calls
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["focalnet_tiny_lrf", "focalnet_base_lrf"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--candidates", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = {
        "commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "device": device_name("cpu"),
        "abilities": list(abilities()), "threads": options.threads, "rounds": options.rounds,
        **{package: importlib.metadata.version(package) for package in ("torch", "timm", "onnxruntime", "openvino")},
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    header = {"model": 20, "batch": 7, "candidate": 20, "cpu_ms": 10, "wall_ms": 10, "ratio": 8, "paired": 8,
              "wall": 8, "error": 8}  # fmt: skip
    print("".join(f"{column:<{width}}" for column, width in header.items()), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            networks = {}
            for candidate, make in candidates(name, Path(folder)):
                if candidate == BASE or candidate in options.candidates:
                    try:
                        networks[candidate] = make()
                    except UserError as error:  # bfloat16, where there is none
                        print(f"{candidate}: {error}")
            for batch in options.batches:
                for row in measure(name, batch, networks, options.rounds):
                    print("".join(f"{row[column]!s:<{width}}" for column, width in header.items()), flush=True)
                    with options.output.open("a") as file:
                        file.write(json.dumps(row | facts | {"load": round(os.getloadavg()[0], 1)}) + "\n")


if __name__ == "__main__":
    main()
