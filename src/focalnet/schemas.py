"""Values of a file as dataclasses: known fields, none missing, each of the type that the dataclass says.

JSON and YAML know text, numbers, lists and objects; the annotations of a dataclass say what may stand where. So the
dataclass that the program uses is the schema of the file, and its own `__post_init__` says what is out of range.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union

from focalnet.errors import UserError, unknown
from focalnet.reading import LARGEST, shown

Class = TypeVar("Class")


def build(cls: type[Class], fields: Any, where: Any, mend: str = "mend the file or take another copy") -> Class:
    """A dataclass from the fields of a file.

    Args:
        cls: a dataclass. Its types say what may stand where: numbers, text, `Literal`, unions, tuples (lists in a
            file), mappings, other dataclasses.
        fields: what a file has, by name.
        where: what to call the file.
        mend: how to mend it, the end of the sentence.

    Raises:
        UserError: no fields, unknown ones, missing ones, or one of another type or out of range.
    """
    if not isinstance(fields, Mapping):
        raise UserError(f"{where} holds {shown(fields)}, no object with named fields; {mend}.")
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}  # pyright: ignore[reportArgumentType]
    for name in fields:
        if name not in known:
            raise unknown(f"field of {where}", str(name), known)
    for name, field in known.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in fields:
            raise UserError(f"{where} lacks {name}; {mend}.")
    hints = _hints(cls)
    values = {name: as_type(value, hints[name], f"{where}: {name}", mend) for name, value in fields.items()}
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def check_numbers(options: Any) -> None:
    """Refuse a dataclass of options that has a number which is none.

    Raises:
        UserError: a float, alone or in a tuple or mapping, is infinite or not a number; the message names its flag.
    """
    for field in dataclasses.fields(options):
        if bad := [number for number in _floats(getattr(options, field.name)) if not math.isfinite(number)]:
            raise UserError(f"--{field.name.replace('_', '-')} is {bad[0]}; give a finite number.")


def _floats(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for part in value for number in _floats(part)]
    return [value] if isinstance(value, float) else []


def as_type(value: Any, hint: Any, where: Any, mend: str = "mend the file or take another copy") -> Any:
    """A value of a file as a type of Python; lists become tuples.

    Args:
        value: what JSON or YAML gave.
        hint: the type, as in the annotation of a dataclass.
        where, mend: as in `build`.

    Raises:
        UserError: it is of another type.
    """
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (Union, types.UnionType):
        fitting = [part for part in inner if _fits(value, part)]
        if fitting:
            return as_type(value, fitting[0], where, mend)
    elif _fits(value, hint):
        if kind in (tuple, Sequence) and inner:
            parts = inner[:1] * len(value) if kind is Sequence or inner[1:] == (...,) else inner
            return tuple(
                as_type(v, part, f"{where}[{i}]", mend) for i, (v, part) in enumerate(zip(value, parts, strict=True))
            )
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return value if isinstance(value, kind) else build(kind, value, where, mend)
        if isinstance(value, Mapping) and len(inner) == 2:
            return {name: as_type(v, inner[1], f"{where}: {name}", mend) for name, v in value.items()}
        return value
    raise UserError(f"{where} is {shown(value)}, wanted is {_words(hint)}; {mend}.")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, as far as one look shows; the parts of tuples and mappings are looked at later."""
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_fits(value, part) for part in inner)
    if kind is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if kind in (None, type(None)):
        return value is None
    if kind is int:
        return type(value) is int and abs(value) < LARGEST
    if kind is float:
        return type(value) in (int, float) and abs(value) < math.inf
    if kind is bool:
        return type(value) is bool
    if kind is str:
        return isinstance(value, str)
    if kind is tuple:
        return isinstance(value, list | tuple) and (inner[1:] == (...,) or not inner or len(value) == len(inner))
    if kind in (Mapping, dict):
        return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
    if kind in (Sequence, list):
        return isinstance(value, list | tuple)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return isinstance(value, Mapping | kind)
    return True


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _words(hint: Any) -> str:
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return " or ".join(map(_words, inner))
    if kind is Literal:
        return " or ".join(map(repr, inner))
    if kind is tuple and inner:
        return f"a list of {_words(inner[0])}" if inner[1:] == (...,) else f"a list of {len(inner)}"
    if kind in _WORDS:
        return _WORDS[kind]
    return "an object with named fields" if kind in (Mapping, dict) or dataclasses.is_dataclass(kind) else "a list"


_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", None: "null", type(None): "null",
}  # fmt: skip
