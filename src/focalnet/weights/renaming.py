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
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from focalnet.errors import UserError, agreeing, counted

logger = logging.getLogger(__name__)

StateDict = Mapping[str, Tensor]

_FIELD = re.compile(r"\{(\w+)((?:\+\d+)?)\}")


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
        readers, writers = [], []
        for row in (Row(*row) for row in rows):
            parts, copies = _tuple(row.ours), _tuple(row.theirs)
            readers += [_Rule(row, name, (name,), parts, row.read) for name in copies]
            writers += [_Rule(row, name, parts, copies, row.write) for name in parts]
        self._read, self._write = _Direction(readers, ours), _Direction(writers, theirs)

    def read(self, weights: StateDict) -> dict[str, Tensor]:
        """Their names to ours.

        Raises:
            UserError: a name has no counterpart, two claim one place, or a row cannot change a tensor of such a shape.
        """
        return self._read(weights)

    def write(self, weights: StateDict) -> dict[str, Tensor]:
        """Our names to theirs.

        Raises:
            UserError: as in `read`, or a part of what is one tensor there is missing.
        """
        return self._write(weights)


class _Rule(NamedTuple):
    """What becomes of a name: all `sources` together, of which it is one, become the `targets`."""

    row: Row
    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    change: Callable[..., Tensor | Sequence[Tensor]] | None


class _Direction:
    """All rules of one direction, as one regular expression that is compiled when it is first needed."""

    def __init__(self, rules: Sequence[_Rule], where: str) -> None:
        self.rules, self.where = rules, where

    def __call__(self, weights: StateDict) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        origin: dict[str, tuple[str, Row]] = {}
        strange, left_out = [], []
        for name, tensor in weights.items():
            match = self.pattern.fullmatch(name)
            if match is None or match.lastindex is None:
                strange.append(name)
                continue
            rule, forms = self.groups[match.lastindex]
            fields = _Fields({form: match[group] for group, form in forms})
            if not rule.targets:
                left_out.append(name)
            tensors = [tensor] * len(rule.targets) if rule.change is None else self.changed(name, rule, fields, weights)
            if tensors is None:
                continue
            for target, value in zip(rule.targets, tensors, strict=True):
                place = fields.fill(target)
                if place in result:
                    other, row = origin[place]
                    if row is not rule.row or not torch.equal(result[place], value):
                        raise UserError(f"{other} and {name} are one weight of {self.where}; leave one of them out.")
                result[place], origin[place] = value, (name, rule.row)
        if strange:
            raise UserError(
                f"{len(strange)} of {counted(len(weights), 'names')} {agreeing(len(strange), 'have')} no counterpart "
                f"in {self.where}: {_few(strange)}; "
                "leave them out of the file, or read it as what it is."
            )
        if left_out:
            logger.info("left out what has no counterpart in %s: %s", self.where, ", ".join(left_out))
        return result

    def changed(self, name: str, rule: _Rule, fields: "_Fields", weights: StateDict) -> Sequence[Tensor] | None:
        """What goes to the targets of a rule; None for all but the first of parts that are joined."""
        assert rule.change is not None
        sources = [fields.fill(source) for source in rule.sources]
        missing = [source for source in sources if source not in weights]
        if missing:
            raise UserError(f"{name} is one weight of {self.where} together with {_few(missing)}, which is missing.")
        if name != sources[0]:
            return None
        try:
            value = rule.change(*(weights[source] for source in sources))
        except ValueError as error:
            raise UserError(f"{name} has the shape {tuple(weights[name].shape)}; {error}.") from None
        return [value] * len(rule.targets) if isinstance(value, Tensor) else value

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """One group per rule, and in it one per field and one for what follows the name."""
        return re.compile("|".join(f"({_pattern(rule.name)})" for rule in self.rules))

    @cached_property
    def groups(self) -> dict[int, tuple[_Rule, list[tuple[int, str]]]]:
        """Number of a rule's group -> the rule, and the numbers of the groups in it with what they hold."""
        result, group = {}, 1
        for rule in self.rules:
            forms = [*(field + shift for field, shift in _FIELD.findall(rule.name)), "leaf"]
            result[group] = rule, list(enumerate(forms, group + 1))
            group += len(forms) + 1
        return result


class _Fields(dict[str, str]):
    """Values of fields: what a name shows as `{i+1}` gives `{i}` too, and the other way round."""

    def __missing__(self, form: str) -> str:
        field, _, shift = form.partition("+")
        known = next(known for known in self if known.partition("+")[0] == field)
        self[form] = str(int(self[known]) - int(known.partition("+")[2] or 0) + int(shift or 0))
        return self[form]

    def fill(self, name: str) -> str:
        return name.format_map(self) + self["leaf"]


def _pattern(name: str) -> str:
    first, *others = _FIELD.split(name)
    pattern = re.escape(first)
    for field, shift, text in zip(others[::3], others[1::3], others[2::3], strict=True):
        pattern += f"({'.+' if field == 'rest' else _number(int(shift or 0))}){re.escape(text)}"
    return pattern + ("(.+)" if name.endswith(".") else r"((?:\.weight|\.bias)?)")


def _number(least: int) -> str:
    """A whole number as names have it, without leading zeros."""
    smaller = "".join(f"(?!{number}(?![0-9]))" for number in range(least))
    return f"{smaller}(?:0|[1-9][0-9]*)"


def _tuple(side: str | tuple[str, ...]) -> tuple[str, ...]:
    return (side,) if isinstance(side, str) else side


def _few(names: Sequence[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
