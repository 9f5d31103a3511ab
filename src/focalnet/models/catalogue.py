"""The table of networks: sizes counted on the spot, published figures, and where the weights are."""

import fnmatch
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.create import create_model
from focalnet.models.registry import PUBLISHED
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


BOX_MASK_AP = {
    "tiny_srf": ("45.9 / 41.3", "47.6 / 42.6"), "tiny_lrf": ("46.1 / 41.5", "48.0 / 42.9"),
    "small_srf": ("48.0 / 42.7", "48.9 / 43.6"), "small_lrf": ("48.3 / 43.1", "49.3 / 43.8"),
    "base_srf": ("48.8 / 43.3", "49.6 / 44.1"), "base_lrf": ("49.0 / 43.5", "49.8 / 44.1"),
}  # fmt: skip
"""Box / mask AP of Mask R-CNN on COCO, 1x and 3x (the paper's Table 6)."""
MIOU = {
    "tiny_srf": "46.5 / 47.2", "tiny_lrf": "46.8 / 47.8", "small_srf": "49.3 / 50.1", "small_lrf": "49.1 / 50.1",
    "base_srf": "50.2 / 51.1", "base_lrf": "50.5 / 51.4",
}  # fmt: skip
"""mIoU of UPerNet on ADE20K, single / multi-scale (the paper's Table 8)."""
PUBLISHED_METRICS = {
    **{f"mask_rcnn_focalnet_{size}": f"box / mask AP {ap[0]} (1x), {ap[1]} (3x)" for size, ap in BOX_MASK_AP.items()},
    **{f"upernet_focalnet_{size}": f"mIoU {miou}" for size, miou in MIOU.items()},
    "dino_focalnet_large_fl3_4scale": "box AP 57.5 (12 epochs, detrex)",
    "dino_focalnet_large_fl4_5scale": "box AP 63.5 (Objects365 first)",
    "dino_focalnet_huge_fl4_5scale": "box AP 64.2 / 64.4 (Objects365 first, val / test-dev)",
    "mask2former_focalnet_large_fl3": "mIoU 57.3 / 58.5 on ADE20K, with kernels from 3",
    "mask2former_focalnet_large_fl4": "PQ 57.9 on COCO",
}
"""What the paper and, for DINO, the code's authors published."""


def describe_dense(pattern: str = "*") -> list[dict[str, Any]]:
    """One row per published detector or segmenter that matches a shell pattern.

    Returns:
        `model`, `classes`, `parameters` in millions with them, `published` (figures, or None) and `weights` (files that
        can be downloaded).

    Raises:
        MissingExtraError: a head comes from a package that is not installed.
    """
    rows = []
    for name in fnmatch.filter(PUBLISHED, pattern):
        with torch.device("meta"):
            model = create_model(name)
        spec = model.spec
        fitting = (row for row in ENTRIES.values() if (row.variant, row.head) == (spec.variant, spec.head))
        rows.append({
            "model": name,
            "classes": spec.num_classes,
            "parameters": round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1),
            "published": PUBLISHED_METRICS.get(name),
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
