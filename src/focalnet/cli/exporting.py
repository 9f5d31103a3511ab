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
    parts: bool = False,
    step: str | None = None,
    tolerance: float | None = None,
    int8: str | None = None,
    int8_method: Literal["matmul", "matmul_8bit", "all", "all_8bit"] = "matmul",
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
        parts: Gates and modulators of the last block of each stage are outputs too.
        step: Write one step of a speech codec: encode or decode, of one for streams also encode_first, encode_next,
            decode_first and decode_next, whose state is inputs and outputs.
        tolerance: Largest difference from the network that is kept, as a share of the largest output (1e-4); with
            --int8, the points of the task's metric that may be lost (0.5).
        int8: Compute products in 8 bits: a folder of samples to calibrate with, or "run" for those that the run was
            trained on. The task's metric is measured before and after, on the run's held-out samples, else on the
            folder's.
        int8_method: What computes in 8 bits: products of weights, which 7 bits have (matmul), or all that can (all);
            with _8bit, weights have 8 bits, which needs a processor with VNNI.
    """
    from focalnet.engine.run import is_run
    from focalnet.exporting import export, find_samples
    from focalnet.models.create import load_model
    from focalnet.predict import held_out

    network: Any = load_model(model, weights)
    shown = held_out(model, 8, network.spec.preprocessing.read) if is_run(model) else []
    signals = [signal for _, signal in shown]
    written = export(
        network, out, format=format, samples=signals, size=image_size, tolerance=tolerance, parts=parts, step=step,
        int8_method=int8_method, int8=None if int8 is None else find_samples(model, network.spec, int8),
    )  # fmt: skip
    print(f"{written.path}: {written.check}")
    if cost := written.record.int8:
        for name in sorted(cost.before, key=lambda name: name != cost.score):
            print(f"{name}  {cost.before[name]:.4f} in float32, {cost.after[name]:.4f} in int8")
        print(f"{cost}")
