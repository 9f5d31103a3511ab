"""Claim: eager FocalNet here is no slower than timm's, in inference and in a training step.

    python benchmarks/inference.py --models focalnet_tiny_srf focalnet_tiny_lrf focalnet_base_lrf --batch 4
    python benchmarks/inference.py --models focalnet_tiny_lrf --modes inference --batch 1 --size 800 1216 --windows 9

Every rival gets the same weights, and its output is compared with ours before any clock starts. Then all candidates
take turns in one process, one call each per round, in an order that rotates: a neighbour that steals the processor
for a second slows the whole round and not one side. Two figures come out of it:

    ratio   median(time of the rival) / median(our time)
    paired  median over the rounds of (time of the rival / our time in the same round)      more robust, the one to read

above 1 where we are faster. A training step is forward, cross entropy, backward and AdamW (fused: the plain one would
be a third of the step and hide the networks). `autocast` is bfloat16 autocast over float32 weights, `bfloat16` has
the weights themselves in it. Results are printed and appended as JSON lines with commit, device and versions.
"""

import argparse
import contextlib
import itertools
import json
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.bench.measure import commit, device_name, take_turns
from focalnet.bench.options import BenchOptions
from focalnet.bench.peers import same_network
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.variants import get_variant

RESULTS = Path(__file__).parent / "results" / "inference.jsonl"
PRECISIONS = ("float32", "autocast", "bfloat16")
TOLERANCE = {"float32": 1e-5, "autocast": 5e-2, "bfloat16": 5e-2}


def make_call(model: Any, mode: str, precision: str, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """One timed call: returns the logits, or the loss of a training step."""
    model.train(mode == "training")
    if precision == "bfloat16":
        model.bfloat16()
        images = images.bfloat16()
    device = images.device.type
    autocast = torch.autocast(device, torch.bfloat16) if precision == "autocast" else contextlib.nullcontext()

    def logits() -> Tensor:
        out = model(images)
        return out if isinstance(out, Tensor) else out.logits

    def inference() -> Tensor:
        with torch.inference_mode(), autocast:
            return logits()

    if mode == "inference":
        return inference
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def training() -> Tensor:
        with autocast:
            loss = F.cross_entropy(logits(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return training


def check_equal(name: str, ours: Tensor, theirs: Tensor, precision: str) -> float:
    error = ((ours - theirs).float().abs().max() / ours.float().abs().max()).item()
    assert error <= TOLERANCE[precision], f"{name} differs from ours by {error:.1e} relative in {precision}"
    return error


def measure(name: str, mode: str, precision: str, options: argparse.Namespace) -> list[dict]:
    """One row per rival."""
    torch.manual_seed(0)
    config = get_variant(name).replace(drop_path_rate=0.0)
    if options.windows is not None:
        config = config.replace(focal_windows=(options.windows,))
    ours = FocalNetClassifier(config)
    models: dict[str, nn.Module] = {"focalnet": ours}
    for library in options.against:
        models[library] = same_network(library, name, config, ours.state_dict())
    images = torch.randn(options.batch, 3, *options.size, device=options.device)
    labels = torch.randint(1000, (options.batch,), device=options.device)
    calls = {
        library: make_call(model.to(options.device), mode, precision, images, labels)
        for library, model in models.items()
    }
    outputs = {library: call() for library, call in calls.items()}  # also the warm-up
    errors = {
        library: check_equal(library, outputs["focalnet"], outputs[library], precision) for library in options.against
    }
    for call in calls.values():
        call()
    seconds = take_turns(calls, BenchOptions(repeats=options.repeats, device=options.device))
    rows = []
    for library in options.against:
        pairs = zip(seconds[library], seconds["focalnet"], strict=True)
        medians = {key: statistics.median(seconds[key]) for key in ("focalnet", library)}
        rows.append(
            {
                "model": name, "mode": mode, "precision": precision, "against": library,
                "ms": round(1000 * medians["focalnet"], 1), "ms_against": round(1000 * medians[library], 1),
                "ratio": round(medians[library] / medians["focalnet"], 3),
                "paired": round(statistics.median(theirs / mine for theirs, mine in pairs), 3),
                "error": float(f"{errors[library]:.1e}"),
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["focalnet_tiny_srf", "focalnet_tiny_lrf", "focalnet_base_lrf"])
    parser.add_argument("--against", nargs="+", default=["timm"], choices=["timm", "transformers"])
    parser.add_argument("--modes", nargs="+", default=["inference", "training"], choices=["inference", "training"])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), help="height and width")
    parser.add_argument("--windows", type=int, help="another kernel size for the first level, such as 9 for detection")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = {
        "commit": commit(), "time": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__,
        "device": device_name(options.device), "threads": options.threads, "batch": options.batch,
        "size": options.size, "windows": options.windows, "repeats": options.repeats,
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    header = ("model", "mode", "precision", "against", "ms", "ms_against", "ratio", "paired", "error")
    widths = (20, 10, 10, 13, 9, 11, 7, 7, 8)

    def show(row: dict) -> None:
        print("".join(f"{row[column]!s:<{width}}" for column, width in zip(header, widths, strict=True)), flush=True)

    show({column: column for column in header})
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name, mode, precision in itertools.product(options.models, options.modes, options.precisions):
        for row in measure(name, mode, precision, options):
            show(row)
            with options.output.open("a") as file:
                file.write(json.dumps(row | facts) + "\n")


if __name__ == "__main__":
    main()
