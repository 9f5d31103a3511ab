"""The table of networks: sizes, published figures, and where the weights are.

Sizes were counted once and stand in `sizes.json`, name -> millions of parameters and GFLOPs, so that the table needs
no torch; those of a network from outside are counted on the spot.
"""

import fnmatch
import json
from functools import cache
from pathlib import Path
from typing import Any

from focalnet.models.registry import build, get_family, parse_name, published
from focalnet.variants import get_variant, list_models
from focalnet.weights.hub import ENTRIES, default_preprocessing


def describe_dense(pattern: str = "*") -> list[dict[str, Any]]:
    """One row per published detector or segmenter that matches a shell pattern.

    Returns:
        `model`, `classes`, `parameters` in millions with them, `published` (figures, or None) and `weights` (files that
        can be downloaded).
    """
    rows = []
    figures = published()
    for name in fnmatch.filter(figures, pattern):
        spec = parse_name(name)
        parameters, _ = _counted().get(name) or count(name)
        fitting = (row for row in ENTRIES.values() if (row.variant, row.head) == (spec.variant, spec.head))
        rows.append({
            "model": name,
            "classes": spec.num_classes,
            "parameters": parameters,
            "published": figures[name],
            "weights": [row.name for row in fitting if row.unreachable is None],
        })  # fmt: skip
    return rows


def describe_models(pattern: str = "*") -> list[dict[str, Any]]:
    """One row per variant that matches a shell pattern.

    Returns:
        `model`; `parameters` in millions and `gflops` (multiply-adds, 10^9, of one image of `pixels` x `pixels`),
        both with the classes of the released file, or 1000; `top1`, the paper's ImageNet-1K accuracy in percent or
        None; `licence` and `weights` (the sources that have a reachable file).
    """
    rows, classifier = [], get_family("classifier")
    for name in list_models(pattern):
        files = [entry for entry in ENTRIES.values() if entry.variant == name and entry.head == classifier.name]
        reachable = [entry for entry in files if entry.unreachable is None]
        pixels = min(default_preprocessing(name).size)
        parameters, gflops = _counted().get(name) or count(name)
        rows.append({
            "model": name,
            "parameters": parameters,
            "gflops": gflops,
            "pixels": pixels,
            "top1": classifier.published.get(name),
            "licence": files[0].licence if files else None,
            "weights": [entry.source for entry in reachable],
        })  # fmt: skip
    return rows


@cache
def _counted() -> dict[str, tuple[float, float | None]]:
    return json.loads(Path(__file__).with_name("sizes.json").read_text(encoding="utf-8"))


def count(name: str) -> tuple[float, float | None]:
    """The row of `sizes.json` for a network, counted on the meta device.

    Raises:
        MissingExtraError: its head comes from a package that is not installed.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    spec, gflops = parse_name(name), None
    with torch.device("meta"):
        if spec.head == "classifier":
            files = [entry for entry in ENTRIES.values() if entry.variant == name and entry.head == spec.head]
            classes = files[0].num_classes if files else spec.num_classes
            pixels = min(default_preprocessing(name).size)
            model = get_family(spec.head).cls(get_variant(name), num_classes=classes).eval()
            with FlopCounterMode(display=False) as counter:
                model(torch.empty(1, 3, pixels, pixels))
            gflops = round(counter.get_total_flops() / 2e9, 1 if pixels >= 224 else 3)
        else:
            model = build(spec)
    return round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1), gflops


def markdown_table() -> str:
    """All variants as the table of the README."""
    head = ["model", "parameters", "GFLOPs", "pixels", "top-1", "licence", "weights"]
    lines = [head, ["---", "---:", "---:", "---:", "---:", "---", "---"]]
    for row in describe_models():
        top1 = f"{row['top1']:.1f}" if row["top1"] else ""
        numbers = [f"{row['parameters']:.1f} M", str(row["gflops"]), str(row["pixels"]), top1]
        lines.append([f"`{row['model']}`", *numbers, (row["licence"] or "").upper(), ", ".join(row["weights"])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
