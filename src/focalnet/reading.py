"""Files that describe something, in JSON, YAML or lines of text: read within bounds, refused in one sentence.

Nothing here trusts a file. It is a regular one, not a pipe or a device; it is as large as its kind may be; its text is
UTF-8, with or without a byte-order mark; no number is infinite, undefined or longer than 64 bits; nothing is nested
deeper than `DEEPEST`. `schemas.build` then makes a dataclass of what was read.

    regular(path)                      a file, and no pipe, device or folder
    read_text, read_lines, each_line   text
    read_table, read_header            the rows of a CSV file
    read_json, parse_json              what JSON holds; `read_object` wants an object with named fields
    read_yaml                          the same for YAML
    write_json(value)                  JSON that every reader takes: an undefined number becomes null
"""

import csv
import io
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from focalnet.errors import MissingExtraError, UserError

DESCRIPTION = 64 * 2**20
"""Most bytes of a file that describes a model, a run or one sample."""
DATA = 8 * 2**30
"""Most bytes of a file that describes all samples of a data set."""
TABLE = 2**29
"""Most bytes of a CSV file."""
LONGEST_HEADER = 2**20
YAML = 8 * 2**20
DEEPEST = 64
"""Most lists and objects inside each other."""
LARGEST = 2**63
"""Whole numbers are smaller."""
LONGEST_SCALAR = 4096
"""Most characters of a YAML value: reading a number of a million digits takes minutes."""


def regular(path: str | Path, mend: str = "check the path") -> os.stat_result:
    """What the system says of a file.

    Args:
        path: the file.
        mend: how to mend it, the end of the sentence.

    Raises:
        UserError: it is missing, out of reach, or no regular file: a pipe or a device may never end.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; {mend}.") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{shown(path)} cannot be read ({_reason(error)}); {mend}.") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise UserError(f"{path} is {kind}, no file; {mend}.")
    return found


def read_text(path: str | Path, *, most: int = DESCRIPTION, mend: str = "check the file") -> str:
    """The text of a file.

    Args:
        path: a regular file in UTF-8, with or without a byte-order mark.
        most: bytes that it may have.
        mend: how to mend it, the end of the sentence.

    Raises:
        UserError: it is something else.
    """
    size = regular(path, mend).st_size
    if size > most:
        raise UserError(f"{path} has {size:,} bytes, more than the {most:,} that such a file may have; {mend}.")
    try:
        with open(path, "rb") as file:
            if b"\0" in file.peek():  # before gigabytes of nothing are read
                raise UserError(f"{path} is no text in UTF-8; {mend}.")
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 (byte {error.start}); {mend}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({_reason(error)}); {mend}.") from error


def read_lines(path: str | Path, *, most: int = DESCRIPTION, mend: str = "check the file") -> list[str]:
    """The lines of a text file, without the blanks around them; arguments and errors as in `read_text`."""
    text = read_text(path, most=most, mend=mend).replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def each_line(path: str | Path, *, most: int = DESCRIPTION, mend: str = "check the file") -> Iterator[str]:
    """The lines of a text file one by one, with their ends; `most` is of a line, the rest as in `read_text`.

    Bytes that are no text become surrogates, as in names of files.
    """
    regular(path, mend)
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        number = 0
        while line := file.readline(most):
            number += 1
            if len(line) == most:
                raise UserError(f"line {number} of {path} has more than {most:,} characters; {mend}.")
            yield line


def read_table(path: str | Path, *, most: int = TABLE, mend: str = "check the file") -> list[list[str]]:
    """The rows of a CSV file, without empty ones and without the blanks around the cells.

    Cells are separated by commas, semicolons or tabs: by what the first row has most of. Arguments and errors as in
    `read_text`.
    """
    return _cells(read_text(path, most=most, mend=mend), path, mend)


def read_header(path: str | Path) -> list[str]:
    """The first row of a CSV file, for a cheap look; empty where it is none."""
    try:
        regular(path)
        with open(path, "rb") as file:
            line = file.readline(LONGEST_HEADER).decode("utf-8-sig", "replace")
        return next(iter(_cells(line, path, "check the file")), [])
    except (UserError, OSError):
        return []


def _cells(text: str, path: str | Path, mend: str) -> list[list[str]]:
    separator = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        return [[cell.strip() for cell in row] for row in rows if any(map(str.strip, row))]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as CSV ({_reason(error)}); {mend}.") from error


def read_json(path: str | Path, *, most: int = DESCRIPTION, mend: str = "copy or download it again") -> Any:
    """What a JSON file holds; arguments and errors as in `read_text`."""
    return parse_json(read_text(path, most=most, mend=mend), path, mend=mend)


def read_object(
    path: str | Path, *, most: int = DESCRIPTION, mend: str = "copy or download it again"
) -> dict[str, Any]:
    """The fields of a JSON file; arguments and errors as in `read_text`."""
    content = read_json(path, most=most, mend=mend)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {shown(content)}, no object with named fields; {mend}.")
    return content


def parse_json(
    text: str,
    where: Any,
    *,
    undefined: bool = False,
    mend: str = "copy or download it again",
    largest: int = LARGEST,
) -> Any:
    """What a JSON text holds.

    Args:
        text: the text.
        where: what to call it.
        undefined: whether NaN and Infinity, which JSON does not have but Python writes, are taken as NaN.
        mend: how to mend it, the end of the sentence.
        largest: above every whole number.

    Raises:
        UserError: it is no JSON, too deep, or has a number that is infinite or too large.
    """
    try:
        content = json.loads(
            text,
            parse_int=partial(_whole, largest=largest),
            parse_float=_finite,
            parse_constant=(lambda _: math.nan) if undefined else _no_number,
        )
    except RecursionError:
        raise UserError(f"{where} nests deeper than {DEEPEST} levels; {mend}.") from None
    except ValueError as error:
        raise UserError(f"{where} is damaged: it is no JSON that can be read ({_reason(error)}); {mend}.") from error
    _check(content, where, mend, scalars=r"\u" in text)
    return content


def read_yaml(path: str | Path, *, most: int = YAML, mend: str = "check the file") -> Any:
    """What a YAML file holds: lists, objects, text, numbers; arguments and errors as in `read_text`.

    Aliases are refused: ten of them inside each other stand for gigabytes.

    Raises:
        MissingExtraError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise MissingExtraError("a YAML file", "dense") from None
    text, depth = read_text(path, most=most, mend=mend), 0
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(text, Loader=loader):  # flat, before anything is built
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise UserError(f"{path} nests deeper than {DEEPEST} levels; {mend}.")
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{path} has the alias *{event.anchor}; write what it stands for.")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST_SCALAR:
                raise UserError(f"{path} has a value of {len(event.value):,} characters; {mend}.")
        content = yaml.load(text, Loader=loader)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:  # a date of no calendar
        raise UserError(f"{path} cannot be read as YAML ({_reason(error)}); {mend}.") from error
    _check(content, path, mend, scalars=True)
    return content


def write_json(value: Any, indent: int | None = None) -> str:
    """JSON of a value; numbers that are infinite or undefined, which JSON does not have, become null."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_defined(value), indent=indent, allow_nan=False)


def defined(value: Any) -> bool:
    """Whether every number inside a value for JSON is one."""
    if isinstance(value, Mapping | list | tuple):
        return all(map(defined, value.values() if isinstance(value, Mapping) else value))
    return not isinstance(value, float) or math.isfinite(value)


def shown(value: Any, most: int = 60) -> str:
    """A value for a sentence: short, in one line, printable everywhere."""
    if isinstance(value, list | tuple | Mapping):
        return f"{'an object' if isinstance(value, Mapping) else 'a list'} of {len(value)}"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return brief(text, most)


def brief(text: str, most: int) -> str:
    """A text of at most so many characters; the middle of a longer one is left out."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-(most // 2 - 3) :]}"


def _defined(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _defined(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check(content: Any, where: Any, mend: str, *, scalars: bool) -> None:
    """Refuse what is nested too deep, or, with `scalars`, has text or numbers that are none."""
    level: list[Any] = [[content]]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for part in level:
            values = [*part, *part.values()] if isinstance(part, dict) else part
            if scalars:
                for value in values:
                    _check_scalar(value, where, mend)
            if not _CONTAINERS.isdisjoint(map(type, values)):  # millions of numbers are passed quickly
                below += [value for value in values if type(value) in _CONTAINERS]
        if not below:
            return
        level = below
    raise UserError(f"{where} nests deeper than {DEEPEST} levels; {mend}.")


_CONTAINERS = frozenset({dict, list})


def _check_scalar(value: Any, where: Any, mend: str) -> None:
    if isinstance(value, str):
        try:
            os.fsencode(value)  # names of files that are not UTF-8 may stand in a file
        except UnicodeEncodeError as error:
            raise UserError(f"{where} has text that is none ({shown(value)}); {mend}.") from error
    elif isinstance(value, int | float) and not abs(value) < (LARGEST if isinstance(value, int) else math.inf):
        raise UserError(f"{where} has the number {shown(value)}; {mend}.")


def _whole(digits: str, largest: int) -> int:
    value = int(digits) if len(digits) <= 20 else largest
    if abs(value) >= largest:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if value - value != 0:
        raise ValueError(f"the number {digits[:20]}")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"the number {name}")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "") or type(error).__name__
