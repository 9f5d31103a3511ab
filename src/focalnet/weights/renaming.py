"""One table gives both directions between our names of a network's tensors and those of a published layout.

A row holds a name of ours and its counterpart, `Row(ours, theirs)` or the plain pair. The first row that fits a name is
taken.

    "head"                  the parameter `head`, or `head.weight` and `head.bias`
    "backbone."             everything whose name begins so
    "{i}", "{rest}"         a number; anything. The same value stands in the counterpart
    "{i+1}"                 the number after it: `("layers.{i}.down", "layers.{i+1}.down")`
    ("q", "k", "v")         ours: parts that are one tensor in the file; `read` splits it, `write` joins them.
                            No part at all, `()`: left out, with a line in the log
    ("a", "b")              theirs: copies that the file holds of one tensor; one is enough to read

Nothing is lost in silence: a name without a counterpart is refused, and so are two names that claim one place, unless
they are copies with the same numbers. Tensors are shared where no row changes them, and the order of the file stays.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from focalnet.errors import UserError

logger = logging.getLogger(__name__)

StateDict = Mapping[str, Tensor]

_FIELD = re.compile(r"\{(\w+)(?:\+(\d+))?\}")


class Row(NamedTuple):
    """One module, parameter or prefix in both layouts; the module's text has the signs.

    Attributes:
        ours: our name, or our parts.
        theirs: its counterpart, or its copies.
        read: from a tensor of the file to ours, or to one tensor per part. A ValueError says what is wrong with its
            shape, in words that end the sentence which the user reads.
        write: from ours, or from all parts, to the tensor of the file.
    """

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    read: Callable[[Tensor], Tensor | Sequence[Tensor]] | None = None
    write: Callable[..., Tensor] | None = None


class Renaming:
    """A table of rows.

    Args:
        rows: pairs (ours, theirs) or `Row`s.
        ours, theirs: what the two sides are called in an error, for example "DINO" and "the detrex layout".
    """

    def __init__(self, rows: Iterable[tuple[Any, ...]], *, ours: str, theirs: str) -> None:
        self.ours, self.theirs = ours, theirs
        self._readers: list[_Rule] = []
        self._writers: list[_Rule] = []
        for row in (Row(*row) for row in rows):
            parts, copies = _names(row.ours), _names(row.theirs)
            self._readers += [_Rule(name, (name,), parts, row.read, row) for name in copies]
            self._writers += [_Rule(name, parts, copies, row.write, row) for name in parts]

    def read(self, weights: StateDict) -> dict[str, Tensor]:
        """Their names to ours.

        Raises:
            UserError: a name has no counterpart, two claim one place, or a tensor has a shape that a row cannot change.
        """
        return _rename(weights, self._readers, self.ours)

    def write(self, weights: StateDict) -> dict[str, Tensor]:
        """Our names to theirs.

        Raises:
            UserError: as in `read`, or a part of what is one tensor there is missing.
        """
        return _rename(weights, self._writers, self.theirs)


class _Rule:
    """A name of one side, and the names of the other to which it leads."""

    def __init__(
        self,
        name: str,
        sources: tuple[str, ...],
        targets: tuple[str, ...],
        change: Callable[..., Tensor | Sequence[Tensor]] | None,
        row: Row,
    ) -> None:
        self.sources, self.targets, self.row = sources, targets, row
        self.change = change or (lambda tensor: tensor)
        first, *others = _FIELD.split(name)
        pattern, fields = re.escape(first), list(zip(others[::3], others[1::3], others[2::3], strict=True))
        for field, _, text in fields:
            pattern += f"(?P<{field}>{'.+' if field == 'rest' else '0|[1-9][0-9]*'})" + re.escape(text)
        self.pattern = re.compile(pattern + ("(?P<leaf>.+)" if name.endswith(".") else r"(?P<leaf>(\.weight|\.bias)?)"))
        self.shifts = [(field, int(shift)) for field, shift, _ in fields if shift]

    def match(self, name: str) -> dict[str, str] | None:
        match = self.pattern.fullmatch(name)
        if match is None:
            return None
        fields = match.groupdict()
        for field, shift in self.shifts:
            place = int(fields[field]) - shift
            if place < 0:
                return None
            fields[field] = str(place)
        return fields


def _rename(weights: StateDict, rules: Sequence[_Rule], where: str) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    origin: dict[str, tuple[str, Row]] = {}
    strange, left_out = [], []
    for name, tensor in weights.items():
        rule, fields = next(((rule, seen) for rule in rules if (seen := rule.match(name)) is not None), (None, {}))
        if rule is None:
            strange.append(name)
            continue
        if not rule.targets:
            left_out.append(name)
        parts = [name] if len(rule.sources) == 1 else [_fill(source, fields) for source in rule.sources]
        missing = [part for part in parts if part not in weights]
        if missing:
            raise UserError(f"{name} is one weight with {_few(missing)} in {where}; the latter are missing.")
        if name != parts[0]:
            continue  # joined where the first part stands
        try:
            changed = rule.change(*(weights[part] for part in parts))
        except ValueError as error:
            raise UserError(f"{name} has the shape {tuple(tensor.shape)}; {error}.") from None
        values = [changed] * len(rule.targets) if isinstance(changed, Tensor) else changed
        for target, value in zip(rule.targets, values, strict=True):
            place = _fill(target, fields)
            other, row = origin.setdefault(place, (name, rule.row))
            if other != name and not (row is rule.row and torch.equal(result[place], value)):
                raise UserError(f"{other} and {name} are one weight of {where}; leave one of them out.")
            result[place] = value
    if strange:
        raise UserError(
            f"{len(strange)} of {len(weights)} names have no counterpart in {where}: {_few(strange)}; "
            "leave them out of the file, or read it as what it is."
        )
    if left_out:
        logger.info("left out what has no counterpart in %s: %s", where, ", ".join(left_out))
    return result


def _fill(template: str, fields: Mapping[str, str]) -> str:
    def value(field: re.Match[str]) -> str:
        return str(int(fields[field[1]]) + int(field[2])) if field[2] else fields[field[1]]

    return _FIELD.sub(value, template) + fields["leaf"]


def _names(side: str | tuple[str, ...]) -> tuple[str, ...]:
    return (side,) if isinstance(side, str) else side


def _few(names: Sequence[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
