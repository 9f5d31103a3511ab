"""From a network to a program of `torch.export` whose batch, and where the family allows it whose sizes, are free."""

import dataclasses
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from focalnet.errors import UserError, first_line
from focalnet.models.registry import get_family
from focalnet.weights.spec import ModelSpec

STRIDE = 32
"""Sides of files of one size are multiples of it."""
MOST = 4096
"""Largest batch, height and width of a program."""


class Raw(nn.Module):
    """A network whose outputs are a plain tuple of tensors, and whose second input, if any, is `sizes`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        found = self.network(inputs) if sizes is None else self.network(inputs, sizes)
        return (found,) if isinstance(found, Tensor) else tuple(values for values in found if values is not None)


@dataclass(frozen=True)
class Traced:
    """A program, and what is to be known of it: the fields of `ExportRecord`, and what its inputs are."""

    program: ExportedProgram
    spec: ModelSpec
    outputs: tuple[str, ...]
    shape: tuple[int, ...]
    free: tuple[int, ...]
    sizes: bool


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


def trace(network: Any, size: int | tuple[int, int] | None = None) -> Traced:
    """The program of a network in evaluation mode.

    Raises:
        UserError: the family has no program, or torch cannot trace it.
    """
    free_axes = get_family(network.spec.head).export
    sides = (size, size) if isinstance(size, int) else size
    spec = network.spec
    if free_axes == "less":
        sides, spec = _framed(spec, sides)
    example = example_of(network, size=sides)
    batch, free = Dim("batch", min=1, max=MOST), (0,)
    shapes: dict[int, Any] = {0: batch}
    if free_axes == "all":
        rows, columns = example.ndim - 2, example.ndim - 1
        shapes |= {rows: Dim.AUTO, columns: Dim.AUTO}
        free = (0, rows, columns)
    arguments: tuple[Tensor, ...] = (example,)
    dynamic: tuple[Any, ...] = (shapes,)
    if free_axes == "less":
        arguments += (torch.tensor([example.shape[2:]] * len(example)),)
        dynamic += ({0: batch},)
    raw = Raw(network)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = network(*arguments)
            program = torch.export.export(raw, arguments, dynamic_shapes=dynamic)
    except UserError:
        raise
    except Exception as error:  # torch's own errors have many classes
        logging.getLogger(__name__).debug("tracing failed", exc_info=True)
        raise UserError(f"{type(network).__name__} cannot be traced by torch ({first_line(error)}).") from error
    values = (found,) if isinstance(found, Tensor) else found
    names = getattr(found, "_fields", [f"map_{index}" for index in range(len(values))])
    outputs = tuple(name for name, value in zip(names, values, strict=True) if value is not None)
    return Traced(program, spec, outputs, tuple(example.shape), free, free_axes == "less")


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
