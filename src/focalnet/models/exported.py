"""Networks that live in an exported file: ONNX, OpenVINO, ExecuTorch, or torch's own program.

Such a file computes the raw outputs of a network. What it is, how it wants its input and what becomes of its outputs
stands in an `ExportRecord` inside the file; `open_exported` builds the same network without weights around it, so that
predictions, metrics and pre- and post-processing are those of the library, by the same code.
"""

import json
import logging
import typing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.errors import UserError
from focalnet.machine import abilities
from focalnet.models.registry import build
from focalnet.models.runtimes import SUFFIXES, TITLES, Runner, open_file, reason
from focalnet.reading import parse_json
from focalnet.schemas import build as build_dataclass
from focalnet.weights.spec import ModelSpec

VERSION = 1
"""Of the record. A change that an older version of the library would misread raises it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What int8 cost.

    Attributes:
        method: how the file was quantized, see `exporting.int8`.
        calibrated: samples that gave the ranges of values.
        measured: held-out samples of the metrics.
        score: the metric that it was judged by.
        before: metrics of the file in float32.
        after: metrics in int8.
    """

    method: str
    calibrated: int
    measured: int
    score: str
    before: dict[str, float]
    after: dict[str, float]

    @property
    def loss(self) -> float:
        """Points of the score that are lost: hundredths, of a score above 1 or below 0 hundredths of its value."""
        before, after = self.before[self.score], self.after[self.score]
        return 100 * (before - after) / (1.0 if 0 <= before <= 1 else abs(before))

    def __str__(self) -> str:
        before, after = self.before[self.score], self.after[self.score]
        return (
            f"{self.score} {before:.4f} in float32 and {after:.4f} in int8 on {self.measured:,} held-out samples "
            f"({-self.loss:+.2f} points; {self.method}, calibrated on {self.calibrated:,})"
        )


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
        cpu: abilities of the processor that it was checked on (`machine.abilities`).
        int8: what quantization cost; None of a file in float32.
        program: the step of the network that the file is, if it is not the whole (`models.base.Program`).
        inputs: names of the inputs of a step.
    """

    version: int
    spec: dict[str, Any]
    outputs: tuple[str, ...]
    shape: tuple[int, ...]
    free: tuple[int, ...]
    sizes: bool
    library: str
    parts: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()
    int8: Quantization | None = None
    program: str | None = None
    inputs: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def is_exported(place: str | Path) -> bool:
    """Whether a place is called like an exported file."""
    return Path(place).suffix.lower() in SUFFIXES


def open_exported(path: str | Path, precision: str = "fp32") -> Any:
    """The network in an exported file, which computes on the CPU. It predicts as any other; it cannot be trained, and
    its parts not looked into.

    Args:
        path: an .onnx, .xml, .pt2 or .pte file that `focalnet.export` wrote.
        precision: "fp32" for the arithmetic of the file, or "bf16" of OpenVINO where the processor has it.

    Raises:
        UserError: no such file, a damaged one, one without a record, or a precision that is not to be had.
        MissingExtraError: what runs it is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is no file; check the path.")
    kind = SUFFIXES[path.suffix.lower()]
    if precision != "fp32" and (kind, precision) != ("openvino", "bf16"):
        raise UserError(
            f"--precision is {precision}, and {path} computes as it was exported: leave it out; of exported files only "
            f"those of OpenVINO (.xml) compute in bf16."
        )
    text, runner = open_file(path, precision)
    record = read_record(text, str(path))
    if told := elsewhere(record):
        log.warning("%s: %s", path, told)
    network = around(record, runner, path)
    network.precision = precision
    return network


def elsewhere(record: ExportRecord) -> str:
    """What to know of an int8 file whose answers were measured on a processor with other abilities; else nothing."""
    if record.int8 is None or not record.cpu or not abilities() or set(record.cpu) == set(abilities()):
        return ""
    return (
        f"int8 was measured on a processor with {', '.join(record.cpu)}, and this one has {', '.join(abilities())}: "
        f"answers may differ, which focalnet evaluate measures."
    )


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


def fit(record: ExportRecord, inputs: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """The inputs of a file: padded to its size where it takes `sizes`, which then come second."""
    if not record.sizes:
        return (inputs,)
    sides = inputs.shape[2:]
    whole = torch.tensor(sides, device=inputs.device).expand(inputs.shape[0], 2) if sizes is None else sizes
    missing = [max(most - side, 0) for most, side in zip(record.shape[2:], sides, strict=True)]
    return F.pad(inputs, (0, missing[1], 0, missing[0])), whole


def around(record: ExportRecord, runner: Runner, path: Path) -> Any:
    """The network that a record describes, computing by a file; its weights are gone. `exported` is the record, and
    `computed` gives all that the file computes by name, gates and modulators too."""
    spec = ModelSpec.from_dict(record.spec, f"the record in {path}")
    if record.program is not None:
        raise UserError(
            f"{path} is a step of a network, {record.program}, from {', '.join(record.inputs)} to "
            f"{', '.join(record.outputs)}: it runs in {TITLES[SUFFIXES[path.suffix.lower()]]} alone."
        )
    with torch.device("meta"):
        network: Any = build(spec).eval()
    kind: Any = typing.get_type_hints(type(network).forward).get("return", Tensor)
    fields = getattr(kind, "_fields", None)
    if fields is not None and not set(record.outputs) <= set(fields):
        raise UserError(
            f"the record in {path} does not fit it: {network.spec.head} has the outputs {', '.join(fields)}, the file "
            f"{', '.join(record.outputs)}; export it again."
        )

    def computed(inputs: Tensor, sizes: Tensor | None = None) -> dict[str, Tensor]:
        whole, *rest = fit(record, inputs, sizes) if inputs.ndim == len(record.shape) else (inputs,)
        if not _fits(tuple(whole.shape), record):
            raise UserError(f"{path} was exported for inputs of shape {_shape(record)}, got {tuple(inputs.shape)}.")
        arrays = [whole.detach().float().cpu().numpy(), *(one.cpu().numpy().astype(np.int64) for one in rest)]
        step = len(whole) if 0 in record.free else record.shape[0]
        try:
            turns = [runner([one[at : at + step] for one in arrays]) for at in range(0, len(whole), step)]
            joined = turns[0] if len(turns) == 1 else map(np.concatenate, zip(*turns, strict=True))
            outputs = [torch.from_numpy(np.array(values)).to(inputs.device) for values in joined]
        except Exception as error:  # what runs files has errors of its own
            raise UserError(f"{path} cannot be run ({reason(error)}): export it again.") from error
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

    def refuse(*inputs: Any, **options: Any) -> Any:
        raise UserError(f"{path} computes the network as a whole; look into the one that was exported.")

    nothing = nn.Parameter(torch.zeros(0), requires_grad=False)  # says where and in what type it computes
    for module in network.modules():  # what is in them was never there
        module._parameters.clear()
        module._buffers.clear()
        module.register_parameter("exported_weights", nothing)
        module.forward = refuse
    network.forward, network.computed = forward, computed
    network.exported = record
    return network


def _fits(shape: tuple[int, ...], record: ExportRecord) -> bool:
    """Whether a file computes inputs of this shape; a batch of another size than its own goes through it in parts."""
    pairs = zip(shape, record.shape, strict=False)
    return len(shape) == len(record.shape) and all(
        one == other or axis in record.free or (axis == 0 and one % other == 0)
        for axis, (one, other) in enumerate(pairs)
    )


def _shape(record: ExportRecord) -> str:
    return "(" + ", ".join("any" if axis in record.free else str(n) for axis, n in enumerate(record.shape)) + ")"
