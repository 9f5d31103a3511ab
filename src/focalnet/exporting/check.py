"""Whether an exported file computes what its network does."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet.errors import MissingExtraError, UserError
from focalnet.exporting.tracing import STRIDE, Raw, example_of, program_of
from focalnet.models.exported import ExportRecord, fit, open_exported
from focalnet.models.registry import get_family
from focalnet.models.runtimes import SUFFIXES, TITLES, open_file, reason
from focalnet.structures import read_counts
from focalnet.tasks import task_of
from focalnet.weights.spec import ModelSpec

BATCHES = (1, 2, 3)
CLOSE = 1e-3
"""Numbers of predictions that differ by less are the same; so are maps of which a smaller share of the pixels does."""
ROUNDED = 0.02
"""The same for the sides of boxes, in pixels."""
OVERLAP = 0.98
"""Masks of one object overlap by more."""


@dataclass(frozen=True)
class Check:
    """How a file compares with its network.

    Attributes:
        difference: the largest of the outputs, as a share of the largest output.
        shapes: of the inputs that were compared.
        agree: predictions that are the same, and how many were compared; None where no task makes any.
    """

    difference: float
    shapes: tuple[tuple[int, ...], ...]
    agree: tuple[int, int] | None

    def __str__(self) -> str:
        said = f"largest difference {self.difference:.1e} of the largest output, {len(self.shapes)} shapes"
        return said if self.agree is None else f"{said}; {self.agree[0]} of {self.agree[1]} predictions agree"


def check(network: Any, path: Path, record: ExportRecord, samples: Sequence[Any], tolerance: float) -> Check:
    """Compare a file with its network.

    Args:
        network: in evaluation mode.
        path: the file.
        record: what it says.
        samples: sources to compare on; without any, inputs are drawn at random.
        tolerance: largest difference that passes.

    Raises:
        UserError: it is larger, the predictions differ, or the runtime of the format cannot compute the network.
    """
    try:
        found = (compare_step if record.program else compare)(network, path, record, samples)
    except MissingExtraError:
        raise
    except UserError as error:
        kind, family = SUFFIXES[path.suffix.lower()], get_family(record.spec["head"])
        raise UserError(
            f"{TITLES[kind]} cannot run {family.title or family.name} ({reason(error.__cause__ or error)}): "
            f"nothing was written{'' if kind == 'torch' else '; a .pt2 file holds it'}."
        ) from error
    if not found.difference <= tolerance:
        raise UserError(
            f"the exported file differs by {found.difference:.1e} of the largest output, more than {tolerance:.0e}: "
            f"nothing was written. Another format may do better, or --tolerance."
        )
    if found.agree is not None and (others := found.agree[1] - found.agree[0]):
        raise UserError(f"the exported file gives another answer for {others} of {found.agree[1]} samples: "
                        f"nothing was written.")  # fmt: skip
    return found


def compare(network: Any, path: Path, record: ExportRecord, samples: Sequence[Any]) -> Check:
    """How a file compares with its network, see `check`; a difference that is not finite is one of shapes or no number.

    Raises:
        UserError: the runtime of the format cannot compute the network.
    """
    other = open_exported(path)
    signals = [other.spec.preprocessing.read(sample) for sample in samples]
    ours: Any = Raw(network, parts=True) if record.parts else network
    theirs = (lambda *inputs: tuple(other.computed(*inputs).values())) if record.parts else other
    with _given(network, record, other.spec):
        examples = list(_examples(network, record, [other.spec.preprocessing(signal) for signal in signals]))
        found = [_difference(ours, theirs, *example) for example in examples]
        difference = math.nan if any(map(math.isnan, found)) else max(found)
        agree = _agreement(network, other, signals) if math.isfinite(difference) else None
    return Check(difference, tuple(tuple(inputs.shape) for inputs, *_ in examples), agree)


@torch.no_grad()
def compare_step(network: Any, path: Path, record: ExportRecord, samples: Sequence[Any]) -> Check:
    """How the file of a step compares with it, call by call; whole numbers that it gives are what agrees or does not.

    Raises:
        UserError: the runtime of the format cannot compute the step.
    """
    assert record.program is not None
    program, how = program_of(network, record.program), network.spec.preprocessing
    _, run = open_file(path)
    worst, shapes, same = 0.0, [], []
    for (inputs,) in _examples(network, record, [how(how.read(sample)) for sample in samples]):
        for example in program.examples(inputs):
            try:
                arrays = run([values.numpy() for values in example.values()])
            except Exception as error:  # what runs files has errors of its own
                raise UserError(f"{path} cannot be run ({reason(error)}).") from error
            pairs = [*zip(program.call(*example.values()), map(torch.from_numpy, arrays), strict=True)]
            shapes.append(tuple(next(iter(example.values())).shape))
            worst = _worst([pair for pair in pairs if pair[0].is_floating_point()], worst)
            whole = [pair for pair in pairs if not pair[0].is_floating_point()]
            same += [equal for one, two in whole for equal in (one == two).flatten().tolist()]
    return Check(worst, tuple(shapes), (sum(same), len(same)) if same else None)


@contextlib.contextmanager
def _given(network: Any, record: ExportRecord, spec: ModelSpec) -> Iterator[None]:
    """Let a network see what a file sees: samples prepared by the spec inside, and padded to its size."""
    own = network.spec
    hook = network.register_forward_pre_hook(lambda _, inputs: fit(record, *inputs))
    network.spec = spec
    try:
        yield
    finally:
        network.spec = own
        hook.remove()


def _examples(network: Any, record: ExportRecord, tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """What goes into both: batches of samples, or of random numbers, and one of another size where that is free."""
    weight = next(network.parameters())
    alone = record.program is not None and not record.free
    for batch in BATCHES[:1] if alone else BATCHES:
        if not tensors:
            example = (example_of(network, batch, (record.shape[-2], record.shape[-1])),)
        else:
            chosen = [tensors[(batch * (batch - 1) // 2 + place) % len(tensors)] for place in range(batch)]
            example = _stack(chosen, record, weight)
        yield example
    if len(record.free) > 1:
        one = example[0][:1]  # a larger one, of what was seen and of nothing
        yield (F.pad(one, (0, 2 * STRIDE, 0, STRIDE) if one.ndim > 3 else (0, 10 * STRIDE)),)


def _stack(tensors: Sequence[Tensor], record: ExportRecord, like: Tensor) -> tuple[Tensor, ...]:
    """Samples as one batch, the smaller ones padded, and where a file takes them their `sizes`."""
    most = [max(sides) for sides in zip(*(tensor.shape for tensor in tensors), strict=True)]
    batch = like.new_zeros(len(tensors), *most)
    for row, tensor in zip(batch, tensors, strict=True):
        row[tuple(slice(side) for side in tensor.shape)] = tensor.to(like)
    return (batch, torch.tensor([tensor.shape[1:] for tensor in tensors])) if record.sizes else (batch,)


@torch.no_grad()
def _difference(network: Any, other: Any, *example: Tensor) -> float:
    ours, theirs = network(*example), other(*example)
    if isinstance(ours, Tensor):
        ours, theirs = (ours,), (theirs,)
    return _worst([pair for pair in zip(ours, theirs, strict=True) if pair[0] is not None])


def _worst(pairs: Sequence[tuple[Tensor, Tensor]], worst: float = 0.0) -> float:
    """The largest difference in pairs of tensors, each as a share of its largest number."""
    for one, two in pairs:
        if one.shape != two.shape:
            return math.inf
        if one.numel():
            scale = max(float(one.double().abs().max()), 1e-12)
            apart = float((one.double() - two.double()).abs().max()) / scale
            worst = apart if math.isnan(apart) else max(worst, apart)
    return worst


def _agreement(network: Any, other: Any, signals: Sequence[Any]) -> tuple[int, int] | None:
    """How many predictions of samples are the same, and of how many."""
    if not signals:
        return None
    try:
        task: Any = task_of(network.spec)()
    except UserError:
        return None
    pairs = zip(task.predict(network, signals), task.predict(other, signals), strict=True)
    same = [_same(one, two) for one, two in pairs]
    return sum(same), len(same)


def _same(one: Any, two: Any) -> bool:
    """Whether two predictions say the same: where they are maps, of nearly all pixels; else see `_alike`."""
    maps, others = one.maps(), two.maps()
    if not maps:
        return _alike(one.to_dict(), two.to_dict())
    return maps.keys() == others.keys() and all(
        (np.asarray(maps[name]) != np.asarray(others[name])).mean() <= CLOSE for name in maps
    )


def _alike(one: Any, two: Any) -> bool:
    """Whether the same words stand in both, masks that overlap, and numbers that are close."""
    if isinstance(one, dict):
        if not isinstance(two, dict) or one.keys() != two.keys():
            return False
        if one.keys() == {"size", "counts"}:
            first, second = (_pixels(rle["counts"]) for rle in (one, two))
            return len(first) == len(second) and (first & second).sum() >= OVERLAP * (first | second).sum()
        return all(_alike(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):  # of numbers a box, in pixels and rounded
        return isinstance(two, list | tuple) and len(one) == len(two) and all(
            abs(a - b) <= max(ROUNDED, CLOSE * abs(a)) if isinstance(a, float) else _alike(a, b)
            for a, b in zip(one, two, strict=True)
        )  # fmt: skip
    if isinstance(one, float):
        return abs(one - two) <= CLOSE * max(1.0, abs(one))
    return one == two


def _pixels(counts: str) -> np.ndarray:
    """The pixels of an encoded mask, column by column, bool."""
    runs = read_counts(counts)
    assert runs is not None
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)
