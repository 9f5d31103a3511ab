"""Networks that live in an exported file: ONNX, OpenVINO, or torch's own program.

Such a file computes the raw outputs of a network. What it is, how it wants its input and what becomes of its outputs
stands in an `ExportRecord` inside the file; `open_exported` builds the same network without weights around it, so that
predictions, metrics and pre- and post-processing are those of the library, by the same code.
"""

import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.errors import MissingExtraError, UserError, first_line
from focalnet.models.programs import load_program
from focalnet.models.registry import build
from focalnet.reading import parse_json
from focalnet.schemas import build as build_dataclass
from focalnet.weights.spec import ModelSpec

SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}
"""Endings of exported files, and their formats."""
KEY = "focalnet"
"""Under which a file keeps its record."""
VERSION = 1
"""Of the record. A change that an older version of the library would misread raises it."""

Runner = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Inputs in their order -> outputs in theirs."""


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """What stands in an exported file.

    Attributes:
        version: of the record.
        spec: of the network, as in `config.json`.
        outputs: names of the outputs, in order.
        shape: of the first input when it was traced.
        free: axes of the first input that may have other lengths.
        sizes: whether the second input is `sizes`.
        library: version of focalnet that wrote it.
        parts: names of further outputs, which no prediction needs: gates and modulators.
    """

    version: int
    spec: dict[str, Any]
    outputs: tuple[str, ...]
    shape: tuple[int, ...]
    free: tuple[int, ...]
    sizes: bool
    library: str
    parts: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def is_exported(place: str | Path) -> bool:
    """Whether a place is called like an exported file."""
    return Path(place).suffix.lower() in SUFFIXES


def open_exported(path: str | Path) -> Any:
    """The network in an exported file, which computes on the CPU. It predicts as any other; it cannot be trained, and
    its parts not looked into.

    Args:
        path: an .onnx, .xml or .pt2 file that `focalnet.export` wrote.

    Raises:
        UserError: no such file, a damaged one, or one without a record.
        MissingExtraError: what runs it is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is no file; check the path.")
    text, runner = _OPEN[SUFFIXES[path.suffix.lower()]](path)
    record = read_record(text, str(path))
    spec = ModelSpec.from_dict(record.spec, f"the record in {path}")
    with torch.device("meta"):
        network = build(spec)
    return _around(network.eval(), record, runner, path)


def read_record(text: str | None, name: str) -> ExportRecord:
    """The record of a file.

    Raises:
        UserError: there is none, it is damaged, or a newer version of the library wrote it.
    """
    if text is None:
        raise UserError(f"{name} was not exported by focalnet: it does not say what network it is. Export it again.")
    record = build_dataclass(ExportRecord, parse_json(text, f"the record in {name}"), f"the record in {name}")
    if record.version > VERSION:
        raise UserError(f"{name} was written by focalnet {record.library}, a newer version: pip install -U focalnet.")
    return record


def _around(network: Any, record: ExportRecord, runner: Runner, path: Path) -> Any:
    """The network, computing by the file; its weights are gone. `exported` is the record, and `computed` gives all that
    the file computes by name, gates and modulators too."""
    kind: Any = typing.get_type_hints(type(network).forward).get("return", Tensor)
    fields = getattr(kind, "_fields", None)
    if fields is not None and not set(record.outputs) <= set(fields):
        raise UserError(
            f"the record in {path} does not fit it: {network.spec.head} has the outputs {', '.join(fields)}, the file "
            f"{', '.join(record.outputs)}; export it again."
        )

    def computed(inputs: Tensor, sizes: Tensor | None = None) -> dict[str, Tensor]:
        shape = tuple(inputs.shape)
        whole = torch.tensor(shape[2:]).expand(shape[0], 2) if sizes is None else sizes
        if record.sizes and all(side <= most for side, most in zip(shape[2:], record.shape[2:], strict=False)):
            rows, columns = (most - side for side, most in zip(shape[2:], record.shape[2:], strict=True))
            inputs = F.pad(inputs, (0, columns, 0, rows))
        if not _fits(tuple(inputs.shape), record):
            raise UserError(f"{path} was exported for inputs of shape {_shape(record)}, got {shape}.")
        arrays = [inputs.detach().float().cpu().numpy()]
        if record.sizes:
            arrays.append(whole.cpu().numpy().astype(np.int64))
        try:
            outputs = [torch.from_numpy(np.array(values)).to(inputs.device) for values in runner(arrays)]
        except Exception as error:  # what runs files has errors of its own
            raise UserError(f"{path} cannot be run ({first_line(error)}): export it again.") from error
        names = (*record.outputs, *record.parts)
        if len(outputs) != len(names):
            raise UserError(f"{path} gives {len(outputs)} outputs, and its record {len(names)}: export it again.")
        return dict(zip(names, outputs, strict=True))

    def forward(inputs: Tensor, sizes: Tensor | None = None) -> Any:
        found = computed(inputs, sizes)
        outputs = [found[name] for name in record.outputs]
        if fields is None:
            return outputs[0] if kind is Tensor else outputs
        return kind(**dict.fromkeys(fields) | dict(zip(record.outputs, outputs, strict=True)))

    for module in network.modules():  # they were never there
        module._parameters.clear()
        module._buffers.clear()
    network.register_parameter("exported_weights", nn.Parameter(torch.zeros(0), requires_grad=False))
    network.forward, network.computed = forward, computed
    network.exported = record
    return network


def _fits(shape: tuple[int, ...], record: ExportRecord) -> bool:
    pairs = zip(shape, record.shape, strict=False)
    return len(shape) == len(record.shape) and all(
        one == other or axis in record.free for axis, (one, other) in enumerate(pairs)
    )


def _shape(record: ExportRecord) -> str:
    return "(" + ", ".join("any" if axis in record.free else str(n) for axis, n in enumerate(record.shape)) + ")"


def _open_onnx(path: Path) -> tuple[str | None, Runner]:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("Running ONNX files", "export") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base
        raise _damaged(path, error) from error
    names = [node.name for node in session.get_inputs()]
    text = session.get_modelmeta().custom_metadata_map.get(KEY)

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        outputs: Any = session.run(None, dict(zip(names, arrays, strict=True)))
        return outputs

    return text, run


def _open_openvino(path: Path) -> tuple[str | None, Runner]:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("Running OpenVINO files", "export") from None
    core = openvino.Core()
    try:
        model = core.read_model(str(path))
        compiled = core.compile_model(
            model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        )
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    except (RuntimeError, UnicodeDecodeError) as error:
        raise _damaged(path, error, str(error).strip().rpartition("\n")[2]) from error
    request = compiled.create_infer_request()

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        found = request.infer(arrays)
        return [np.array(found[port]) for port in compiled.outputs]

    return text, run


def _open_torch(path: Path) -> tuple[str | None, Runner]:
    import torchvision.ops  # noqa: F401  # its operators may be part of the program

    try:
        program, text = load_program(path, f"{KEY}.json")
    except UserError:
        raise
    except Exception as error:  # a zip file of other content fails in many ways
        raise _damaged(path, error) from error

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs: Sequence[Tensor] = program(*map(torch.from_numpy, arrays))
        return [values.numpy() for values in outputs]

    return text, run


def _damaged(path: Path, error: Exception, reason: str = "") -> UserError:
    return UserError(f"{path} cannot be opened ({reason or first_line(error)}): export it again.")


_OPEN: Mapping[str, Callable[[Path], tuple[str | None, Runner]]] = {
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "torch": _open_torch,
}
