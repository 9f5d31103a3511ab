"""Whether an exported file computes what its network does."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focalnet.errors import UserError
from focalnet.exporting.tracing import STRIDE, Raw, example_of
from focalnet.models.exported import ExportRecord, open_exported
from focalnet.tasks import task_of

BATCHES = (1, 2, 3)
CLOSE = 1e-3
"""Numbers of predictions that differ by less are the same."""


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
        samples: sources to predict on.
        tolerance: largest difference that passes.

    Raises:
        UserError: it is larger, or the predictions differ.
    """
    other = open_exported(path)
    sides = record.shape[-2], record.shape[-1]
    examples = [example_of(network, batch, sides) for batch in BATCHES]
    if len(record.free) > 1:
        height, width = sides
        examples.append(example_of(network, 1, (height + STRIDE, width + 2 * STRIDE)))
    ours: Any = Raw(network, parts=True) if record.parts else network
    theirs = (lambda example: tuple(other.computed(example).values())) if record.parts else other
    found = [_difference(ours, theirs, example) for example in examples]
    difference = math.nan if any(map(math.isnan, found)) else max(found)
    shapes = tuple(tuple(example.shape) for example in examples)
    if not difference <= tolerance:
        raise UserError(
            f"the exported file differs by {difference:.1e} of the largest output, more than {tolerance:.0e}: nothing "
            f"was written. Another format may do better, or --tolerance."
        )
    agree = _agreement(network, other, samples)
    if agree is not None and agree[0] < agree[1]:
        raise UserError(f"the exported file gives another answer for {agree[1] - agree[0]} of {agree[1]} samples: "
                        f"nothing was written.")  # fmt: skip
    return Check(difference, shapes, agree)


@torch.no_grad()
def _difference(network: Any, other: Any, example: Tensor) -> float:
    ours, theirs = network(example), other(example)
    if isinstance(ours, Tensor):
        ours, theirs = (ours,), (theirs,)
    worst = 0.0
    for one, two in zip(ours, theirs, strict=True):
        if one is None:
            continue
        if one.shape != two.shape:
            return math.inf
        if one.numel():
            scale = max(float(one.double().abs().max()), 1e-12)
            apart = float((one.double() - two.double()).abs().max()) / scale
            worst = apart if math.isnan(apart) else max(worst, apart)
    return worst


def _agreement(network: Any, other: Any, samples: Sequence[Any]) -> tuple[int, int] | None:
    """How many predictions of samples are the same, and of how many."""
    if not samples:
        return None
    try:
        task: Any = task_of(network.spec)()
    except UserError:
        return None
    how, own = other.spec.preprocessing, network.spec
    signals = [how.read(sample) for sample in samples]
    theirs = task.predict(other, signals)
    network.spec = other.spec  # sees the samples in the same size
    try:
        pairs = zip(task.predict(network, signals), theirs, strict=True)
    finally:
        network.spec = own
    same = [_same(one.to_dict(), two.to_dict()) for one, two in pairs]
    return sum(same), len(same)


def _same(one: Any, two: Any) -> bool:
    """Whether two predictions say the same: the same words, and numbers that are close."""
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, float):
        return abs(one - two) <= CLOSE * max(1.0, abs(one))
    return one == two
