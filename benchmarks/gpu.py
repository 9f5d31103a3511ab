"""Everything about the Triton backend that needs a GPU, in one command: about 20 minutes on an H200.

    python benchmarks/gpu.py                  tests, then the claims of the operator, then the tuning table
    python benchmarks/gpu.py --rehearse       the same steps, tiny, on a CPU: is the script itself in order?

The package must be installed with its extra [dev]. Results go to benchmarks/results/gpu.jsonl, one object per row.
The claims, for B-LRF at batch 128, 224 pixels, bfloat16, in one run side by side:

    operator forward          4   times plain PyTorch          model forward                1.8 times timm
    operator with backward    3   times plain PyTorch          training step                1.6 times timm
    both compiled             1.2 times timm compiled          memory of a training step    at most 0.6 of timm's
    one picture, CUDA graph   at most 0.4 of eager             800 x 1216, windows 9 11 13  2   times timm
"""

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from focalnet.bench import BenchOptions, bench

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.jsonl"


def figure(rows: list[dict[str, Any]], column: str, **facts: Any) -> float:
    """One cell of a table that `bench` returned; nan where it is not measured on this device."""
    (row,) = [row for row in rows if all(row[key] == value for key, value in facts.items())]
    return float("nan") if row[column] is None else row[column]


def claims(options: BenchOptions, detection: BenchOptions, single: BenchOptions) -> None:
    rows = bench(options)
    operator = {"part": "operator", "candidate": "plain PyTorch"}
    found = [
        ("operator forward, x plain PyTorch", 4.0, figure(rows, "ratio", **operator, **{"pass": "forward"})),
        ("operator with backward, x plain PyTorch", 3.0, figure(rows, "ratio", **operator, **{"pass": "training"})),
    ]
    for direction, eager, words in (("forward", 1.8, "model forward"), ("training", 1.6, "training step")):
        model = {"part": "model", "pass": direction}
        found.append((f"{words}, x timm", eager, figure(rows, "ratio", **model, candidate="timm")))
        if options.compiled:
            ms = [figure(rows, "ms", **model, candidate=f"{library}, compiled") for library in ("timm", "focalnet")]
            found.append((f"{words}, both compiled, x timm", 1.2, ms[0] / ms[1]))
    training = {"part": "model", "pass": "training"}
    timm_memory = figure(rows, "mib", **training, candidate="timm")
    for candidate in ("focalnet", "focalnet, recompute context", "focalnet, recompute block"):
        share = figure(rows, "mib", **training, candidate=candidate) / timm_memory
        found.append((f"memory of a training step of {candidate}, of timm's (at most)", 0.6, share))
    rows = bench(detection)
    found.append(("detection size forward, x timm", 2.0, figure(rows, "ratio", candidate="timm")))
    rows = bench(single)
    if single.device == "cuda":
        ms = [figure(rows, "ms", candidate=candidate) for candidate in ("focalnet, CUDA graph", "focalnet")]
        found.append(("one picture, CUDA graph over eager (at most)", 0.4, ms[0] / ms[1]))
    print("\nclaim" + " " * 67 + "wanted   found")
    for words, wanted, value in found:
        print(f"{words:72}{wanted:6.2f}{value:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true")
    rehearse = parser.parse_args().rehearse
    if not rehearse and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; --rehearse runs the steps on the CPU")
    tests = ["tests/ops/test_fuse.py"] if rehearse else ["tests/ops", "tests/test_modulation.py", "-m", "not nothing"]
    subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=ROOT, check=True)
    shared: dict[str, Any] = {"against": ("timm",), "precisions": ("bfloat16",), "out": RESULTS}
    options = BenchOptions(
        models=("focalnet_base_lrf",), batch=128, compiled=True, recompute=True, repeats=15, **shared
    )
    forward: dict[str, Any] = {"parts": ("model",), "passes": ("forward",), **shared}
    detection = BenchOptions(models=("focalnet_tiny_lrf",), batch=4, size=(800, 1216), windows=9, **forward)
    single = BenchOptions(models=("focalnet_base_lrf",), batch=1, cuda_graph=True, repeats=30, **forward)
    if rehearse:
        tiny: dict[str, Any] = {
            "models": ("focalnet_tiny_srf",), "batch": 1, "size": (32, 32), "repeats": 2, "device": "cpu", "out": None,
            "precisions": ("float32",), "compiled": False,
        }  # fmt: skip
        options, detection, single = (dataclasses.replace(each, **tiny) for each in (options, detection, single))
    claims(options, detection, single)
    if not rehearse:
        subprocess.run([sys.executable, "benchmarks/focal_context.py", "--count", "--tune"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
