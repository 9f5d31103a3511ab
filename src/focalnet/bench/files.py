"""Exported files beside the network that they were exported from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from focalnet.models.exported import open_exported
from focalnet.models.registry import build
from focalnet.weights.spec import ModelSpec


def file_calls(path: Path, batch: int, size: tuple[int, int]) -> tuple[str, dict[str, Callable[[], Any]]]:
    """The precision of a file, and calls of its network, with random weights, and of the file itself.

    Args:
        path: an exported file.
        batch: inputs per call; the file's own number, where it has one.
        size: height and width, where those of the file are free.

    Raises:
        UserError: no such file, or none that can be opened.
    """
    network = open_exported(path)
    record = network.exported
    shape = [batch if 0 in record.free else record.shape[0], *record.shape[1:]]
    for axis, side in zip((len(shape) - 2, len(shape) - 1), size, strict=True):
        if axis in record.free:
            shape[axis] = side
    ours: Any = build(ModelSpec.from_dict(record.spec, f"the record in {path}")).eval()
    inputs = torch.randn(shape)

    def call(model: Any) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return model(inputs)

        return run

    return "int8" if record.int8 else "float32", {"focalnet": call(ours), path.name: call(network)}
