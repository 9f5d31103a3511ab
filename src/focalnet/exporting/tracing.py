"""From a network to a program of `torch.export` whose batch, and where the family allows it whose sizes, are free."""

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from focalnet.backbone import FocalNetBase
from focalnet.errors import UserError, first_line, unknown
from focalnet.models.base import Network, Program
from focalnet.models.registry import get_family
from focalnet.modulation import FocalModulation, ModulationParts, capture
from focalnet.weights.spec import ModelSpec

STRIDE = 32
"""Sides of files of one size are multiples of it."""
MOST = 4096
"""Largest batch, height and width of a program."""


class Raw(nn.Module):
    """A network whose outputs are a plain tuple of tensors, and whose second input, if any, is `sizes`.

    Args:
        network: the network.
        parts: after its outputs come those of `part_names`: of the last block of each stage the gates (B, L+1, h, w),
            the last ones of the global level, and the length of the modulator at each position, (B, h, w).
    """

    def __init__(self, network: nn.Module, *, parts: bool = False) -> None:
        super().__init__()
        self.network, self.parts = network, parts
        self.blocks = last_blocks(network) if parts else []

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        with capture(self.network) if self.parts else contextlib.nullcontext({}) as captured:
            found = self.network(inputs) if sizes is None else self.network(inputs, sizes)
        outputs = (found,) if isinstance(found, Tensor) else tuple(values for values in found if values is not None)
        return (*outputs, *(values for block in self.blocks for values in _maps(captured[block])))


def _maps(parts: ModulationParts) -> Iterator[Tensor]:
    yield parts.gates.movedim(-1, 1)
    yield parts.modulator.norm(dim=-1)


def last_blocks(network: nn.Module) -> list[str]:
    """Names of the focal modulations in the last block of each stage.

    Raises:
        UserError: the network has none.
    """
    blocks = []
    for name, module in network.named_modules():
        if isinstance(module, FocalNetBase) and not blocks:
            depths = enumerate(module.config.depths)
            blocks = [f"{name}.layers.{stage}.blocks.{depth - 1}.modulation".lstrip(".") for stage, depth in depths]
    if not blocks or not all(type(network.get_submodule(block)) is FocalModulation for block in blocks):
        raise UserError(f"{type(network).__name__} has no gates and modulators that could be exported.")
    return blocks


def part_names(network: nn.Module) -> tuple[str, ...]:
    """What `Raw` calls the gates and modulators of a network: by stage, counted from 1."""
    stages = range(1, len(last_blocks(network)) + 1)
    return tuple(f"{part}_{stage}" for stage in stages for part in ("gates", "modulator"))


@dataclass(frozen=True)
class Traced:
    """A program, and what is to be known of it: the fields of `ExportRecord`, and what its inputs are."""

    program: ExportedProgram
    spec: ModelSpec
    outputs: tuple[str, ...]
    shape: tuple[int, ...]
    free: tuple[int, ...]
    sizes: bool
    parts: tuple[str, ...]
    step: str | None = None
    inputs: tuple[str, ...] = ()


def example_of(network: Any, batch: int = 2, size: tuple[int, int] | None = None) -> Tensor:
    """Random inputs of a network, in the shape that it was made for."""
    how = network.spec.preprocessing
    weight = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    if how.kind == "audio":
        shape: tuple[int, ...] = (batch, round((how.seconds or 1.0) * how.sample_rate))
    elif how.kind == "video":
        shape = (batch, how.frames, 3, *(size or (how.input_size,) * 2))
    else:
        shape = (batch, how.channels, *(size or how.size))
    return torch.randn(shape, generator=generator).to(weight)


def trace(
    network: Any, size: int | tuple[int, int] | None = None, *, parts: bool = False, fixed: bool = False
) -> Traced:
    """The program of a network in evaluation mode.

    Args:
        network: what to trace.
        size: side of the inputs, or height and width, where they have a fixed size.
        parts: as for `Raw`.
        fixed: nothing is free: one input at a time, of one size.

    Raises:
        UserError: the family has no program, or torch cannot trace it.
    """
    family, spec = get_family(network.spec.head), network.spec
    sides = (size, size) if isinstance(size, int) else size
    if sides is not None and not all(1 <= side <= MOST for side in sides):
        raise UserError(f"the size is {size}; give a side in pixels, or height and width, 1 to {MOST}.")
    framed = family.export == "less" or (fixed and family.learns == "label_map")
    if framed:
        sides, spec = _framed(spec, sides)
    elif sides and (fixed or family.export == "none") and spec.preprocessing.kind != "audio":
        side = sides[0] if sides[0] == sides[1] else sides
        spec = spec.replace(preprocessing=dataclasses.replace(spec.preprocessing, input_size=side))
    example = example_of(network, 1 if fixed else 2, sides)
    arguments: tuple[Tensor, ...] = (example,)
    if framed:
        arguments += (torch.tensor([example.shape[2:]] * len(example)),)
    free: tuple[int, ...] = () if fixed else (0,)
    if family.export == "all" and not fixed:
        free += tuple(range(1 if spec.preprocessing.kind == "audio" else 2, example.ndim))
    batch = Dim("batch", min=1, max=MOST)
    shapes = {axis: Dim.AUTO if axis else batch for axis in free}
    dynamic = (shapes, {0: batch})[: len(arguments)] if free else None
    raw = Raw(network, parts=parts)
    with _tracing(network):
        found = network(*arguments)
        program = torch.export.export(raw, arguments, dynamic_shapes=dynamic)
    values = (found,) if isinstance(found, Tensor) else found
    names = getattr(found, "_fields", [f"map_{index}" for index in range(len(values))])
    outputs = tuple(name for name, value in zip(names, values, strict=True) if value is not None)
    named = part_names(network) if parts else ()
    return Traced(program, spec, outputs, tuple(example.shape), free, framed, named)


class Step(nn.Module):
    """A step of a network as a module.

    Args:
        network: whose weights it takes.
        program: one of its `programs()`.
    """

    def __init__(self, network: nn.Module, program: Program) -> None:
        super().__init__()
        self.network, self.call = network, program.call

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.call(*inputs)


def steps_of(network: Any) -> Mapping[str, Program]:
    """The steps of a network that are files of their own, by name; of most networks none."""
    return network.programs() if isinstance(network, Network) else {}


def program_of(network: Any, step: str) -> Program:
    """A step of a network by its name.

    Raises:
        UserError: it has none of this name, or none at all.
    """
    programs = steps_of(network)
    if not programs:
        raise UserError(f"{type(network).__name__} has no steps that could be files of their own; leave the step out.")
    if step not in programs:
        raise unknown(f"step of {type(network).__name__}", step, [*programs])
    return programs[step]


def trace_step(network: Any, step: str, *, fixed: bool = False) -> Traced:
    """A step of a network in evaluation mode, for any batch, and what else it leaves free.

    Args:
        network: what to trace.
        step: which of its steps.
        fixed: nothing is free: one input at a time, of one size.

    Raises:
        UserError: as of `program_of`, the step takes any length and nothing is to be free, or torch cannot trace it.
    """
    program = program_of(network, step)
    if fixed and any(axis for axes in program.free.values() for axis in axes):
        raise UserError(f"a .pte file takes inputs of one length, and {step} takes any: name .pt2, .onnx or .xml.")
    batch = Dim("batch", min=1, max=MOST)
    with _tracing(network):
        example = program.examples(example_of(network, 1 if fixed else 2))[0]
        free = {name: () if fixed else program.free.get(name, (0,)) for name in example}
        shapes = tuple({axis: Dim.AUTO if axis else batch for axis in axes} for axes in free.values())
        traced = torch.export.export(Step(network, program), tuple(example.values()), dynamic_shapes=(shapes,))
    first = next(iter(example))
    return Traced(
        traced, network.spec, program.outputs, tuple(example[first].shape), free[first], sizes=False, parts=(),
        step=step, inputs=tuple(example),
    )  # fmt: skip


@contextlib.contextmanager
def _tracing(network: nn.Module) -> Iterator[None]:
    """Let torch trace in silence, and say in one sentence what it cannot."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:  # torch's own errors have many classes
        logging.getLogger(__name__).debug("tracing failed", exc_info=True)
        raise UserError(f"{type(network).__name__} cannot be traced by torch ({first_line(error)}).") from error


def _framed(spec: ModelSpec, sides: tuple[int, int] | None) -> tuple[tuple[int, int], ModelSpec]:
    """The size of the inputs of a file of one size, multiples of 32, and the spec whose images fit into it."""
    how = spec.preprocessing
    wished = sides or (min(how.size), how.long_side or max(how.size))
    height, width = (-(-side // STRIDE) * STRIDE for side in wished)
    square = height == width
    fitting = dataclasses.replace(
        how, input_size=height if square else (height, width), long_side=height if square else max(height, width)
    )
    return (height, width), spec.replace(preprocessing=fitting)
