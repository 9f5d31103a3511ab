"""The table of networks: sizes counted on the spot, published accuracy, and where the weights are."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from focalnet.models.classifier import FocalNetClassifier
from focalnet.variants import get_variant, list_models
from focalnet.weights.hub import ENTRIES, default_preprocessing

PUBLISHED_TOP1 = {
    "focalnet_tiny_srf": 82.1, "focalnet_tiny_lrf": 82.3, "focalnet_small_srf": 83.4, "focalnet_small_lrf": 83.5,
    "focalnet_base_srf": 83.7, "focalnet_base_lrf": 83.9,
    "focalnet_tiny_iso": 74.1, "focalnet_small_iso": 80.9, "focalnet_base_iso": 82.4,
    "focalnet_tiny_srf_overlap": 82.4, "focalnet_small_srf_overlap": 83.4, "focalnet_base_srf_overlap": 84.0,
    "focalnet_tiny_srf_deeper": 82.7, "focalnet_small_srf_deeper": 83.5, "focalnet_base_srf_deeper": 84.1,
}  # fmt: skip
"""ImageNet-1K top-1 in percent, at 224 from random weights: the paper's Tables 1, 2, 3 and 16. None was published for
the large, xlarge and huge nets that were released."""


def describe_models(pattern: str = "*") -> list[dict[str, Any]]:
    """One row per variant that matches a shell pattern.

    Returns:
        `model`; `parameters` in millions and `gflops` (multiply-adds, 10^9, of one picture of `pixels` x `pixels`),
        both with the classes of the released file, or 1000; `top1`, the paper's ImageNet-1K accuracy in percent or
        None; `licence` and `weights` (the sources that have a reachable file).
    """
    rows = []
    for name in list_models(pattern):
        files = [entry for entry in ENTRIES.values() if entry.variant == name and entry.head == "classifier"]
        reachable = [entry for entry in files if entry.unreachable is None]
        pixels = default_preprocessing(name).input_size
        with torch.device("meta"):
            model = FocalNetClassifier(get_variant(name), num_classes=files[0].num_classes if files else 1000).eval()
            with FlopCounterMode(display=False) as counter:
                model(torch.empty(1, 3, pixels, pixels))
        rows.append({
            "model": name,
            "parameters": round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1),
            "gflops": round(counter.get_total_flops() / 2e9, 1 if pixels >= 224 else 3),
            "pixels": pixels,
            "top1": PUBLISHED_TOP1.get(name),
            "licence": files[0].licence if files else None,
            "weights": [entry.source for entry in reachable],
        })  # fmt: skip
    return rows


def markdown_table() -> str:
    """All variants as the table of the README."""
    head = ["model", "parameters", "GFLOPs", "pixels", "top-1", "licence", "weights"]
    lines = [head, ["---", "---:", "---:", "---:", "---:", "---", "---"]]
    for row in describe_models():
        top1 = f"{row['top1']:.1f}" if row["top1"] else ""
        numbers = [f"{row['parameters']:.1f} M", str(row["gflops"]), str(row["pixels"]), top1]
        lines.append([f"`{row['model']}`", *numbers, (row["licence"] or "").upper(), ", ".join(row["weights"])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
