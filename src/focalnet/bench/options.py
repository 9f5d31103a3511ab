"""The options of `focalnet bench`, which a command line reads without importing torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure."""

    models: tuple[str, ...] = ("focalnet_tiny_lrf",)
    """Networks by name, or exported files (.onnx, .xml, .pt2)."""
    parts: tuple[Literal["operator", "model"], ...] = ("operator", "model")
    passes: tuple[Literal["forward", "training"], ...] = ("forward", "training")
    precisions: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16")
    against: tuple[Literal["timm", "transformers"], ...] = ("timm", "transformers")
    official: Path | None = None
    """The official `classification/focalnet.py`, to measure it too."""
    alternatives: bool = False
    """Also Swin, ConvNeXt and ViT of the same size, from timm."""
    compiled: bool = False
    """Also every candidate under `torch.compile`."""
    recompute: bool = False
    """Also our training step with `recompute="context"` and `"block"`."""
    cuda_graph: bool = False
    """Also our forward pass as a CUDA graph."""
    batch: int = 8
    size: tuple[int, int] = (224, 224)
    """Height and width of the images."""
    windows: int | None = None
    """Another kernel size for the first level, such as 9 for detection."""
    repeats: int = 9
    device: str | None = None
    """Where to measure; without it, on the GPU if there is one."""
    out: Path | None = None
    """A file to append the results to, one JSON object per line."""
