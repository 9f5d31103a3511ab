"""What computes exported files: ONNX Runtime, OpenVINO, ExecuTorch, torch itself.

Each opens a file of its format and gives the text of the record inside, if there is one, and a function from the inputs
in their order to the outputs in theirs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from focalnet.errors import MissingExtraError, UserError, first_line
from focalnet.machine import abilities
from focalnet.models.programs import load_program

KEY = "focalnet"
"""Under which a file keeps its record."""
SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch", ".pte": "executorch"}
"""Endings of exported files, and their formats."""
TITLES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "torch": "torch", "executorch": "ExecuTorch"}
"""Formats, and what runs them."""

Runner = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Inputs in their order -> outputs in theirs."""


def open_file(path: Path, precision: str = "fp32") -> tuple[str | None, Runner]:
    """The record of a file, None where it has none, and what computes it.

    Args:
        path: the file.
        precision: "fp32" for the arithmetic of the file, or "bf16" of OpenVINO.

    Raises:
        UserError: the file is damaged, its runtime cannot compute it, or the processor has no bf16.
        MissingExtraError: what runs it is not installed.
    """
    try:
        return _open_openvino(path, "bf16") if precision == "bf16" else _OPEN[SUFFIXES[path.suffix.lower()]](path)
    except UserError:
        raise
    except Exception as error:  # the runtimes' errors share no base, and a zip file of other content fails in many ways
        raise UserError(f"{path} cannot be opened ({reason(error)}): export it again.") from error


def reason(error: BaseException) -> str:
    """The line of a runtime's error that says what went wrong: of OpenVINO's, which begin with places, the last."""
    first = first_line(error)
    return str(error).strip().rpartition("\n")[2] if first.startswith("Exception from ") else first


def _open_onnx(path: Path) -> tuple[str | None, Runner]:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("Running ONNX files", "export") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    text = session.get_modelmeta().custom_metadata_map.get(KEY)

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        outputs: Any = session.run(None, dict(zip(names, arrays, strict=True)))
        return outputs

    return text, run


def _open_openvino(path: Path, hint: str = "f32") -> tuple[str | None, Runner]:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("Running OpenVINO files", "export") from None
    core = openvino.Core()
    if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError(
            f"--precision bf16 is nothing that this processor has ({', '.join(abilities())}), and OpenVINO would "
            f"compute in float32 without a word: leave it out."
        )
    model = core.read_model(str(path))
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    )
    text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    request = compiled.create_infer_request()

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        found = request.infer(arrays)
        return [np.array(found[port]) for port in compiled.outputs]

    return text, run


def _open_executorch(path: Path) -> tuple[str | None, Runner]:
    try:
        from executorch.runtime import Runtime, Verification  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError("Running ExecuTorch files", "mobile") from None
    program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
    text = None
    if KEY in program.method_names:
        (letters,) = program.load_method(KEY).execute([])
        text = bytes(letters.tolist()).decode()
    method = program.load_method("forward")

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        return [values.numpy().copy() for values in method.execute([torch.from_numpy(array) for array in arrays])]

    return text, run


def _open_torch(path: Path) -> tuple[str | None, Runner]:
    import torchvision.ops  # noqa: F401  # its operators may be part of the program

    program, text = load_program(path, f"{KEY}.json")

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs: Any = program(*map(torch.from_numpy, arrays))
        return [values.numpy() for values in outputs]

    return text, run


_OPEN: Mapping[str, Callable[[Path], tuple[str | None, Runner]]] = {
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "executorch": _open_executorch,
    "torch": _open_torch,
}
