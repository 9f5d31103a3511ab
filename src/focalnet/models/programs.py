"""Programs of `torch.export` in .pt2 files, opened without running what a stranger put in.

torch's reader unpickles what a file brings, loads its compiled libraries, and evaluates its text as Python. A program
that the library writes needs none of that: its tensors are bytes, its sizes are arithmetic, and its steps are operators
of tensors. A file that is anything else is refused before torch reads it.
"""

import ast
import io
import re
from pathlib import Path
from typing import Any

import torch

from focalnet.errors import UserError
from focalnet.reading import parse_json, shown

FILES = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|models/model\.json|extra/\w+\.json"
    r"|data/sample_inputs/model\.pt|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+)"
)
"""Parts of a file that are neither pickles nor libraries, but for the inputs that were traced."""
ARITHMETIC = frozenset(
    """Symbol Integer Rational Float Add Mul Pow Mod Max Min Abs floor ceiling FloorDiv CeilDiv CleanDiv PythonMod
    ModularIndexing PowByNatural IntTrueDiv FloatTrueDiv ToFloat TruncToInt RoundToInt FloorToInt CeilToInt Identity
    Where Eq Ne Equality Unequality Lt Le Gt Ge StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not
    BooleanTrue BooleanFalse""".split()  # noqa: SIM905
)
"""What the sizes of a program are made of, by names of sympy and torch."""
OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|higher_order)\.\w+(\.\w+)?|torch\.sym_\w+|math\.(ceil|floor|trunc|sqrt|pow)|_operator"
    r"\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|getitem)"
)
"""What a program may call."""
NAME = re.compile(r"[\w.]*")
PLAIN = re.compile(r"[\w.,:;+*/<>=()\[\]{} |\"'-]*")
"""Text that is a value: an equation of einsum, a mode, the structure of inputs and outputs."""
VALUES = frozenset(("as_string", "as_float", "in_spec", "out_spec", "type", "index", "torch_version"))
LARGEST_NUMBER = 2**66
"""In sizes: torch adds up bounds of 2^63."""


def load_program(path: Path, extra: str) -> tuple[Any, str | None]:
    """A program, as a module, and the text of an extra file in it.

    Args:
        path: a .pt2 file.
        extra: the name of the extra file.

    Raises:
        UserError: there is more in the file than a program.
        Exception: it is damaged; torch's errors share no base.
    """
    from torch.export.pt2_archive import PT2ArchiveReader
    from torch.export.pt2_archive._package import load_pt2

    reader: Any = PT2ArchiveReader(str(path))
    _check(reader, str(path))
    found = load_pt2(str(path))
    # the guards of a file are Python code; the shapes of inputs are checked by the record
    return found.exported_programs["model"].module(check_guards=False), found.extra_files.get(extra)


def _check(reader: Any, name: str) -> None:
    """Raises UserError where a file holds what runs, or could."""
    names = reader.get_file_names()
    if other := next((part for part in names if not FILES.fullmatch(part)), None):
        raise _more(name, f"a part {shown(other)}")
    for kind in ("weights", "constants"):
        text = reader.read_string(f"data/{kind}/model_{kind}_config.json")
        for row in parse_json(text, f"{name}: {kind}")["config"].values():
            if row["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", row["path_name"]):
                raise _more(name, f"a pickle among its {kind}")
    try:  # torch itself would go on without `weights_only`
        torch.load(io.BytesIO(reader.read_bytes("data/sample_inputs/model.pt")), weights_only=True)
    except Exception as error:
        raise _more(name, "a pickle in place of the inputs that were traced") from error
    program = parse_json(reader.read_string("models/model.json"), f"{name}: the program", largest=LARGEST_NUMBER)
    _check_program(program, name)


def _check_program(program: Any, name: str) -> None:
    """Text of a program becomes code, as names of variables, or is evaluated, as sizes: only what is harmless may."""
    waiting: list[tuple[str, Any]] = [("", program)]
    while waiting:
        field, value = waiting.pop()
        if isinstance(value, dict):
            for key, part in value.items():
                if not NAME.fullmatch(key):
                    raise _more(name, f"the name {shown(key)}")
                if key not in ("metadata", "guards_code"):  # neither is evaluated
                    waiting.append((key, part))
        elif isinstance(value, list):
            waiting += [(field, part) for part in value]
        elif isinstance(value, str):
            fits = _FITS.get(field, PLAIN.fullmatch if field in VALUES else NAME.fullmatch)
            if not fits(value):
                raise _more(name, f"{shown(value)} as {field}")


def _is_arithmetic(text: str) -> bool:
    """Whether an expression is made of numbers, symbols and arithmetic, and of no large powers."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_part(node) for node in ast.walk(tree))


def _is_part(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=function)):
            return function in ARITHMETIC and not (function.startswith("Pow") and _is_large_power(node))
        case ast.Name(id=word):
            return word in ARITHMETIC or re.fullmatch(r"[a-z]+\d+|true|false|oo|int_oo", word) is not None
        case ast.Constant(value=value):
            return (isinstance(value, str) and NAME.fullmatch(value) is not None) or (
                isinstance(value, int | float) and abs(value) < LARGEST_NUMBER
            )
        case ast.BinOp(op=ast.Pow() | ast.LShift()):
            return False
    return isinstance(
        node,
        ast.Expression | ast.keyword | ast.Load | ast.UnaryOp | ast.USub | ast.Tuple
        | ast.BinOp | ast.Add | ast.Sub | ast.Mult | ast.Div | ast.FloorDiv | ast.Mod,
    )  # fmt: skip


def _is_large_power(power: ast.Call) -> bool:
    match power.args:
        case [_, ast.Call(func=ast.Name(id="Integer"), args=[exponent])]:
            return ast.unparse(exponent) not in ("-1", "2", "3")
    return True


def _is_operator(text: str) -> bool:
    """Whether a step computes, and neither reads nor writes files."""
    if not OPERATORS.fullmatch(text):
        return False
    found: Any = torch
    for part in text.split(".")[1:] if text.startswith("torch.ops.aten.") else ():
        found = getattr(found, part, None)
    schema = getattr(found, "_schema", None)
    return schema is None or all(argument.name != "filename" for argument in schema.arguments)


_FITS = {"expr_str": _is_arithmetic, "target": _is_operator}
"""How the text of a field is checked where it is no name."""


def _more(name: str, what: str) -> UserError:
    return UserError(f"{name} has more in it than a program that focalnet writes ({what}), and is not opened.")
