"""`focalnet export`."""

from pathlib import Path
from typing import Any, Literal

import tyro


def export(
    model: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    weights: str | None = None,
    format: Literal["torch", "onnx", "openvino", "executorch"] | None = None,  # noqa: A002
    image_size: int | tuple[int, int] | None = None,
    tolerance: float = 1e-4,
    parts: bool = False,
) -> None:
    """Write a network as one file that other programs run, and `focalnet predict` and `evaluate` too.

    Before it is kept, the file is run beside the network, also on some of the images that the run was not trained on:
    the largest difference is told, and a file that gives other answers is not written.

    Args:
        model: A run folder, a model folder or a weight file, or the name of a network with --weights.
        out: The file to write: .onnx, .xml (OpenVINO), .pt2 (torch.export) or .pte (ExecuTorch).
        weights: "official", "timm", "transformers", a file or a hub id.
        format: The format, if the ending of the file does not say it.
        image_size: Side of the inputs, or height and width, of detectors, whose files have one size.
        tolerance: Largest difference from the network that is kept, as a share of the largest output.
        parts: Gates and modulators of the last block of each stage are outputs too.
    """
    from focalnet.exporting import export
    from focalnet.models.create import load_model
    from focalnet.predict import held_out

    network: Any = load_model(model, weights)
    run = (Path(model) / "metrics.jsonl").exists()
    signals = [signal for _, signal in held_out(model, 8, network.spec.preprocessing.read)] if run else []
    written = export(network, out, format=format, samples=signals, size=image_size, tolerance=tolerance, parts=parts)
    print(f"{written.path}: {written.check}")
