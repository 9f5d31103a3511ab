"""int8: products of 8 bits instead of 32, calibrated with the user's samples, and measured before a file is kept.

Static quantization after training, by ONNX Runtime (.onnx) and NNCF (.xml). Weights get a range per output channel,
inputs one range, of the samples. `Method` says which operators compute so, and with how many bits of the weights:

    matmul         products with weights (linear layers), weights of 7 bits
    matmul_8bit    the same, weights of 8 bits
    all            every operator that the library can, weights of 7 bits
    all_8bit       the same, weights of 8 bits: the defaults of the libraries

A processor without VNNI adds two products of 8 bits in 16, which saturate: 7 bits of the weights make room. Depth-wise
convolutions, gates and modulators gain little and lose much. So "matmul" is what holds everywhere; any other is worth a
try, since the task's metric on held-out samples decides: a file that loses more than the tolerance is not kept.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from focalnet.engine.devices import build_accelerator
from focalnet.engine.evaluation import evaluate_batches
from focalnet.engine.loader import build_eval_loader
from focalnet.errors import MissingExtraError, UserError
from focalnet.exporting.formats import quiet, stamp_onnx, stamp_openvino
from focalnet.exporting.noise import noisiest
from focalnet.exporting.samples import CALIBRATION, Samples
from focalnet.models.exported import ExportRecord, Quantization, around, open_exported

Method = Literal["matmul", "matmul_8bit", "all", "all_8bit"]
Feeds = Callable[[], Iterator[list[np.ndarray]]]
"""The inputs of a file for each of the samples to calibrate with."""

BATCH = 16
LOOKED_AT = 4
"""Samples whose values tell which layers lose most."""


def quantize(path: Path, kind: str, record: ExportRecord, samples: Samples, method: Method, points: float) -> Any:
    """Put a file in int8 in the place of one in float32.

    Args:
        path: the file.
        kind: its format.
        record: what it says.
        samples: to calibrate with, and to measure on.
        method: see the module.
        points: of the task's metric that may be lost.

    Returns:
        the record of the new file, with what it cost.

    Raises:
        UserError: it costs more; the message names the layers that lose most. What lies in `path` is then of no use.
        MissingExtraError: the packages that quantize are not installed.
    """
    write, stamp = WRITERS[kind]
    plain = path.with_name(f"float32-{path.name}")
    for file in list(path.parent.glob(f"{path.stem}.*")):
        file.rename(file.with_name(f"float32-{file.name}"))

    def feeds() -> Iterator[list[np.ndarray]]:
        return feeds_of(plain, record, samples)

    write(plain, path, feeds, method)
    stamp(path, record)
    before, after = (metrics_of(file, samples) for file in (plain, path))
    cost = Quantization(
        method=method, calibrated=samples.count, measured=len(samples.held_out), score=samples.task.score,
        before=before, after=after,
    )  # fmt: skip
    if not cost.loss <= points:
        names = ", ".join(
            f"{name} ({share:.0%} noise)" for name, share in noisiest(plain, path, kind, feeds, LOOKED_AT)
        )
        raise UserError(
            f"int8 costs too much: {cost}. At most {points:g} points may be lost, by --tolerance: nothing was written. "
            f"The layers that lose most: {names or 'none stands out'}."
        )
    for file in plain.parent.glob(f"{plain.stem}.*"):
        file.unlink()
    made = replace(record, int8=cost)
    stamp(path, made)
    return made


def metrics_of(path: Path, samples: Samples) -> dict[str, float]:
    """The metrics of a file on held-out samples."""
    network = open_exported(path)
    accelerator = build_accelerator(device="cpu")
    loader = build_eval_loader(samples.task, network.spec, samples.held_out, BATCH, accelerator, workers=0)
    metrics, _ = evaluate_batches(samples.task, network, loader, network.spec, accelerator)
    return {name: float(value) for name, value in metrics.items() if name != "val_samples_per_second"}


class _Fed(BaseException):  # no error, which callers would catch: it ends a prediction when its inputs are known
    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays


def feeds_of(path: Path, record: ExportRecord, samples: Samples) -> Iterator[list[np.ndarray]]:
    """What `Task.predict` feeds a file with, sample by sample."""

    def stop(arrays: list[np.ndarray]) -> list[np.ndarray]:
        raise _Fed(arrays)

    network = around(record, stop, path)
    for signal in samples.signals():
        try:
            samples.task.predict(network, [signal])
        except _Fed as fed:
            yield fed.arrays


def write_onnx(plain: Path, path: Path, feeds: Feeds, method: Method) -> None:
    """An .onnx file in int8 of one in float32, by ONNX Runtime.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    except ImportError:
        raise MissingExtraError("Quantizing ONNX files", "export") from None
    session = onnxruntime.InferenceSession(str(plain), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    left = feeds()

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            arrays = next(left, None)
            return None if arrays is None else dict(zip(names, arrays, strict=True))

    with quiet():
        quantize_static(
            str(plain), str(path), Reader(), per_channel=True, reduce_range=not method.endswith("8bit"),
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"] if method.startswith("matmul") else None,
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip


def write_openvino(plain: Path, path: Path, feeds: Feeds, method: Method) -> None:
    """An .xml file in int8 of one in float32, by NNCF.

    Raises:
        MissingExtraError: nncf is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # it tells its makers of every call otherwise
    try:
        import nncf
        import openvino
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    except ImportError:
        raise MissingExtraError("Quantizing OpenVINO files", "int8") from None
    model = openvino.Core().read_model(str(plain))

    class Inputs:  # read anew each time: those of all samples may be too much
        def __iter__(self) -> Iterator[Any]:
            return (arrays if len(arrays) > 1 else arrays[0] for arrays in feeds())

    others = {node.get_type_name() for node in model.get_ops()} - {"MatMul"}
    fix = OverflowFix.DISABLE if method.endswith("8bit") else OverflowFix.ENABLE
    with quiet():
        made = nncf.quantize(
            model, nncf.Dataset(Inputs()), subset_size=CALIBRATION,
            ignored_scope=nncf.IgnoredScope(types=sorted(others), validate=False) if method.startswith("mat") else None,
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=fix),
        )  # fmt: skip
    openvino.save_model(made, str(path), compress_to_fp16=False)


WRITERS: Mapping[str, Any] = {"onnx": (write_onnx, stamp_onnx), "openvino": (write_openvino, stamp_openvino)}
"""Format -> what writes int8, and what puts a record into the file."""
