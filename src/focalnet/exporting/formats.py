"""How a program becomes a file of each format, with its record inside."""

import contextlib
import io
import logging
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from focalnet.errors import MissingExtraError, UserError, first_line
from focalnet.models.exported import ExportRecord
from focalnet.models.registry import get_family
from focalnet.models.runtimes import KEY
from focalnet.reading import LARGEST

OPSET = 20
"""The first opset that has Gelu."""


def write_torch(program: ExportedProgram, record: ExportRecord, path: Path) -> None:
    """A .pt2 file."""
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # lines of code and paths of this machine
    torch.export.save(program, str(path), extra_files={f"{KEY}.json": record.to_json()})


def write_onnx(program: ExportedProgram, record: ExportRecord, path: Path) -> None:
    """An .onnx file; its weights lie beside it where they pass two gigabytes.

    Raises:
        MissingExtraError: onnx and onnxscript are not installed.
        UserError: torch's exporter cannot write the network.
    """
    _onnx(program, record).save(str(path))


def write_openvino(program: ExportedProgram, record: ExportRecord, path: Path) -> None:
    """An .xml file, and a .bin file with the weights.

    Raises:
        MissingExtraError: openvino, onnx or onnxscript are not installed.
    """
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("Exporting to OpenVINO", "export") from None
    between = path.with_suffix(".onnx")
    write_onnx(program, record, between)
    model = openvino.Core().read_model(str(between))  # convert_model would tell its makers
    model.set_rt_info(record.to_json(), [KEY])
    openvino.save_model(model, str(path), compress_to_fp16=False)
    for file in path.parent.glob(f"{between.name}*"):
        file.unlink()


def write_executorch(program: ExportedProgram, record: ExportRecord, path: Path) -> None:
    """A .pte file, whose method "focalnet" gives the letters of the record.

    Raises:
        MissingExtraError: executorch is not installed.
        UserError: it cannot write the network.
    """
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # pyright: ignore[reportMissingImports]
        from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError("Exporting to ExecuTorch", "mobile") from None
    letters = torch.tensor(list(record.to_json().encode()), dtype=torch.uint8)
    with _writing("ExecuTorch", record):
        lowered = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods={KEY: letters}
        )  # fmt: skip
        path.write_bytes(lowered.to_executorch().buffer)


def stamp_onnx(path: Path, record: ExportRecord) -> None:
    """Put a record into an .onnx file, in the place of its own."""
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {KEY: record.to_json()})
    onnx.save(model, str(path))


def stamp_openvino(path: Path, record: ExportRecord) -> None:
    """Put a record into an .xml file, in the place of its own."""
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the file that is read is written
    model = core.read_model(str(path))
    model.set_rt_info(record.to_json(), [KEY])
    openvino.save_model(model, str(path), compress_to_fp16=False)


def _onnx(program: ExportedProgram, record: ExportRecord) -> Any:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    except ImportError:
        raise MissingExtraError("Exporting to ONNX", "export") from None
    names = record.inputs or ["inputs", "sizes"][: 1 + record.sizes]
    with _writing("ONNX", record):
        made: Any = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=[*names], verbose=False,
            output_names=[*record.outputs, *record.parts], external_data=False,
            custom_translation_table={operator.le: _at_most},
        )  # fmt: skip
    ClearMetadataAndDocStringPass()(made.model)  # lines of code and paths of this machine, beside every node
    made.model.metadata_props[KEY] = record.to_json()
    return made


def _at_most(rows: Any, bound: Any) -> Any:
    """An assertion on a number of rows, whose bound, added up of several, may pass what ONNX holds."""
    from onnxscript import opset20

    held: Any = min(bound, LARGEST - 1) if isinstance(bound, int) else bound
    return opset20.LessOrEqual(rows, held)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What writes and quantizes files says much, by every way there is."""
    loggers = [logging.getLogger(), logging.getLogger("nncf")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _writing(name: str, record: ExportRecord) -> Iterator[None]:
    """Silence a writer, and let it say in one sentence what it cannot write."""
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # the writers' errors have many classes
            family = get_family(record.spec["head"])
            raise UserError(
                f"torch cannot write {family.title or family.name} as {name} "
                f"({first_line(error.__cause__ or error)}); a .pt2 file holds it."
            ) from error


WRITERS: Mapping[str, Callable[[ExportedProgram, ExportRecord, Path], None]] = {
    "torch": write_torch,
    "onnx": write_onnx,
    "openvino": write_openvino,
    "executorch": write_executorch,
}
