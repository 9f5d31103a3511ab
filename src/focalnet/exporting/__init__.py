"""Export: a trained network as one file that other programs run, which proves itself before it is kept.

    torch      a program of `torch.export`, .pt2
    onnx       opset 20, through torch's dynamo exporter, .onnx
    openvino   OpenVINO's intermediate representation, .xml and .bin
    executorch a program of ExecuTorch for phones, with XNNPACK, .pte: one input at a time, of one size

Raw outputs are exported; post-processing stays the library's (`models.exported`). The focal operator becomes depth-wise
convolutions, and no format needs an operator of ours. The file says what it is: classes, preprocessing, licence.

Before a file is kept, it is opened as users will open it and run beside the network, on batches of one, two and three
samples and, where sizes are free, on a second size: the largest difference is told, and whether the predictions agree.
Beyond the tolerance there is no file.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from focalnet._version import __version__
from focalnet.errors import UserError, unknown
from focalnet.exporting.check import Check, check, compare
from focalnet.exporting.formats import WRITERS
from focalnet.exporting.int8 import WRITERS as INT8_WRITERS
from focalnet.exporting.int8 import Method, quantize
from focalnet.exporting.samples import Samples, find_samples
from focalnet.exporting.tracing import Traced, steps_of, trace, trace_step
from focalnet.machine import abilities
from focalnet.models.create import load_model
from focalnet.models.exported import VERSION, ExportRecord
from focalnet.models.runtimes import SUFFIXES

Format = Literal["torch", "onnx", "openvino", "executorch"]
FIXED = ("executorch",)
"""Formats whose files take one input at a time, of one size."""
ENDINGS = {name: suffix for suffix, name in SUFFIXES.items()}

DIFFERENCE = 1e-4
"""From the network that a file may have, as a share of the largest output."""
POINTS = 0.5
"""Of a metric that int8 may lose."""

__all__ = ["ENDINGS", "Check", "Exported", "Format", "Method", "Samples", "export", "find_samples"]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        record: what it says of itself.
        check: how it compares with the network.
    """

    path: Path
    record: ExportRecord
    check: Check


def record_of(traced: Traced) -> ExportRecord:
    """What a file says of itself."""
    return ExportRecord(
        version=VERSION, spec=json.loads(traced.spec.to_json()), outputs=traced.outputs, shape=traced.shape,
        free=traced.free, sizes=traced.sizes, library=__version__, parts=traced.parts, cpu=abilities(),
        program=traced.step, inputs=traced.inputs,
    )  # fmt: skip


def export(
    model: str | os.PathLike[str] | nn.Module,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,  # noqa: A002 - the name of the option
    samples: Sequence[Any] = (),
    size: int | tuple[int, int] | None = None,
    parts: bool = False,
    step: str | None = None,
    tolerance: float | None = None,
    int8: str | os.PathLike[str] | Samples | None = None,
    int8_method: Method = "matmul",
) -> Exported:
    """Write a network as one file.

    Args:
        model: as for `Predictor`: a run folder, a model folder, a weight file, or a model of `create_model`.
        path: the file to write; its ending says the format: .pt2, .onnx, .xml or .pte.
        format: the format, where the ending is another.
        samples: sources that the file is checked with, as `Predictor` takes them; drawn at random without.
        size: side of the inputs, or height and width, for networks whose files have a fixed size.
        parts: gates and modulators are outputs too, see `tracing.Raw`.
        step: write not the whole, but this step of it: of a codec "encode" or "decode", of one for streams also
            "encode_first", "encode_next", "decode_first" and "decode_next".
        tolerance: largest difference from the network that is kept, as a share of the largest output (1e-4); in int8
            the points of the task's metric that may be lost (0.5).
        int8: compute products in 8 bits, calibrated with these samples: a folder, or "run" for those that the run was
            trained on. The task's metric is measured before and after; see `exporting.samples`.
        int8_method: which operators, see `exporting.int8`.

    Returns:
        what was written.

    Raises:
        UserError: the network cannot be exported, or the file gives other answers; nothing is written then.
        MissingExtraError: the packages of the format are not installed.
    """
    path = Path(path)
    kind = format or SUFFIXES.get(path.suffix.lower())
    if kind is None or kind not in WRITERS:
        raise unknown("format to export to", str(kind or path.suffix), [*WRITERS, *SUFFIXES])
    if path.suffix.lower() != ENDINGS[kind]:
        raise UserError(f"{path} is to be {kind}, whose files end in {ENDINGS[kind]}; call it so.")
    network: Any = model if isinstance(model, nn.Module) else load_model(os.fspath(model))
    if getattr(network, "exported", None):
        raise UserError("this network is in an exported file already; export the one that was trained.")
    if getattr(network, "spec", None) is None:
        raise UserError(f"{type(network).__name__} has no spec; make it with focalnet.create_model.")
    if step is None and (steps := steps_of(network)):
        raise UserError(f"{type(network).__name__} is written step by step: name one with --step ({', '.join(steps)}).")
    if int8 is not None and kind not in INT8_WRITERS:
        raise UserError(f"int8 is written as {' or '.join(ENDINGS[name] for name in INT8_WRITERS)}, {path} is {kind}.")
    if int8 is not None and not isinstance(int8, Samples):
        int8 = find_samples(model, network.spec, int8)
    if step is not None and (parts or size is not None or int8 is not None):
        raise UserError("a step is written in float32, without a size and parts.")
    training = network.training
    network.eval()
    try:
        fixed = kind in FIXED
        traced = trace_step(network, step, fixed=fixed) if step else trace(network, size, parts=parts, fixed=fixed)
        record = record_of(traced)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
            written = Path(folder) / path.name
            WRITERS[kind](traced.program, record, written)
            found = check(network, written, record, samples, DIFFERENCE if tolerance is None or int8 else tolerance)
            if int8 is not None:
                points = POINTS if tolerance is None else tolerance
                record = quantize(written, kind, record, int8, int8_method, points)
                found = replace(compare(network, written, record, samples), agree=None)  # the metrics say it
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):  # itself at last
                os.replace(file, path.parent / file.name)
    finally:
        network.train(training)
    return Exported(path, record, found)
