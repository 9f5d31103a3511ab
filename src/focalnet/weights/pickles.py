"""Pickles of strangers: tensors and arrays out of them, and no code of theirs.

A pickle is a program. The reader here runs only the part of it that builds containers, and every class or function that
it names is answered with a stand-in from here: nothing is imported, and what an object held is thrown away or becomes a
plain dictionary that nobody looks at. `load_arrays` reads plain pickles, which detectron2 publishes; `torch_files` has
those inside the files of torch.

Arrays of numpy are rebuilt from three things that are checked first: a shape, the name of a number type, and as many
bytes as these two ask for. numpy's own `__setstate__` is never called: it believes what a file says about memory.

Dictionary keys are text and numbers, and no number is longer than the file: a key of tuples inside tuples would
overflow the C stack when it is hashed, and a memo of four billion places would take the machine's memory.
"""

import io
import math
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NoReturn

import numpy as np

KINDS = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
"""Number types of arrays, as numpy writes them into a pickle; torch has no other ones."""
MOST_AXES = 32


class InertMapping:
    """Stands in for a class of a checkpoint; it makes a dictionary, which a pickle may fill."""

    def __new__(cls, *args: Any) -> Any:
        return OrderedDict()


class InertObject:
    """Stands in for numpy's scalars, whose state is a tuple."""

    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class NumberType:
    """Stands in for `numpy.dtype`.

    Attributes:
        dtype: one of `KINDS` in a byte order; None of anything else, such as text, which no weights are.
    """

    def __init__(self, kind: Any = None, align: Any = False, copy: Any = False) -> None:
        self.dtype = np.dtype(f"<{kind}") if isinstance(kind, str) and kind in KINDS else None

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) >= 2 else None
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an array of a strange byte order")
        if order == ">" and self.dtype is not None:
            self.dtype = self.dtype.newbyteorder(">")


class Array:
    """Stands in for `numpy.ndarray` between its making and its state.

    Attributes:
        values: the numbers, a writable array of this process; None until they are known, or where they are none.
    """

    values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        """Take in (version, shape, number type, whether Fortran's order, bytes)."""
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise pickle.UnpicklingError("an array of a strange state")
        shape, kind, fortran, content = state[-4:]
        if isinstance(content, str):  # Python 2's bytes, read as latin1
            content = content.encode("latin1")
        self.values = array_of(content, kind, shape, "F" if fortran is True or fortran == 1 else "C")


def array_of(content: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray | None:
    """An array in memory of its own; None where its type is no number's.

    Args:
        content: the bytes of its numbers.
        kind: a `NumberType`.
        shape: sizes, at least 0.
        order: "C" or "F".

    Raises:
        pickle.UnpicklingError: one of them is something else, or they do not fit each other.
    """
    if isinstance(kind, NumberType) and kind.dtype is None:
        return None
    if not isinstance(content, bytes | bytearray) or not isinstance(kind, NumberType) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array of strange parts")
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if len(sizes) > MOST_AXES or not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise pickle.UnpicklingError("an array of a strange shape")
    assert kind.dtype is not None
    if math.prod(sizes) * kind.dtype.itemsize != len(content):
        raise pickle.UnpicklingError(f"an array of {sizes} with {len(content)} bytes")
    values = np.frombuffer(bytes(content), kind.dtype).reshape(sizes, order=order)
    return np.array(values, kind.dtype.newbyteorder("="), order="C")


def _reconstruct(*args: Any) -> Array:
    """Stands in for numpy's function of this name, which makes an empty array for its state to fill."""
    return Array()


def _from_buffer(content: Any = None, kind: Any = None, shape: Any = None, order: Any = "C") -> Array:
    """Stands in for `numpy._core.numeric._frombuffer` of pickle's protocol 5."""
    array = Array()
    array.values = array_of(content, kind, shape, order)
    return array


def _encode(text: Any = None, encoding: Any = None) -> bytes:
    """Stands in for `_codecs.encode`, with which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("text in a strange encoding")
    return text.encode("latin1")


def _no_bytes(*args: Any) -> bytes:
    """Stands in for `bytes`, with which protocol 2 writes no bytes at all."""
    if args:
        raise pickle.UnpicklingError("bytes made of something")
    return b""


PARTS: dict[str, Any] = {
    "numpy.ndarray": Array,
    "numpy.dtype": NumberType,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
}
"""What an array of numbers is made of in a pickle."""


def stand_in(name: str) -> Any:
    """What answers to the class or function `name` of a pickle."""
    return PARTS.get(name, InertObject if name.startswith("numpy.") else InertMapping)


_REFUSED = (
    pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID, pickle.BINPERSID, pickle.NEWOBJ_EX,
    pickle.FROZENSET, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.DICT, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
)  # fmt: skip
"""Steps of a pickle that no container of numbers needs."""

_PurePython: Any = pickle._Unpickler  # type: ignore[attr-defined]
"""Python's own reader: the memo of the one in C is an array as long as a file says."""


class _Bounded:
    """A file of which nobody can ask more than it has: Python makes room for a read before it reads."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size = file, os.fstat(file.fileno()).st_size
        self.readline = file.readline

    def read(self, count: int) -> bytes:
        if count > self.size:
            raise EOFError(f"{count} bytes of a file of {self.size}")
        return self.file.read(count)


class Reader(_PurePython):
    """Reads a pickle of containers.

    Args:
        file: an open file on the disk, or bytes as a file.
    """

    def __init__(self, file: BinaryIO | io.BytesIO) -> None:
        super().__init__(file if isinstance(file, io.BytesIO) else _Bounded(file), encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module.split(".")[0] == "torch":
            raise pickle.UnpicklingError("tensors in a plain pickle")  # reading them runs torch.load on bytes
        return stand_in(f"{module}.{name}")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or not all(isinstance(key, str | bytes | int | float) for key in items[::2]):
            raise pickle.UnpicklingError("a dictionary with strange keys")
        target.update(zip(items[::2], items[1::2], strict=True))

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Array | NumberType | InertObject):
            target.__setstate__(state)

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple) or not callable(function):
            raise pickle.UnpicklingError("a call of nothing")
        if function is OrderedDict:  # Python 2 writes its pairs as an argument
            self.append(OrderedDict())
            pairs = arguments[0] if arguments else []
            if not isinstance(pairs, list) or not all(
                isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
            ):
                raise pickle.UnpicklingError("a dictionary of strange pairs")
            self._set([part for pair in pairs for part in pair])
        else:
            self.append(function(*arguments))

    def load_newobj(self) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple) or not isinstance(cls, type) or (arguments and cls is OrderedDict):
            raise pickle.UnpicklingError("an object of no class")
        self.append(cls(*arguments))

    def load_bytearray8(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(count))

    def refuse(self) -> NoReturn:
        raise pickle.UnpicklingError("more than containers of numbers")

    dispatch: ClassVar[dict[int, Any]] = {
        **_PurePython.dispatch,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.BUILD[0]: load_build,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        **dict.fromkeys((opcode[0] for opcode in _REFUSED), refuse),
    }


def load_arrays(path: Path) -> Any:
    """The containers of a plain pickle; its arrays are `Array`, see `as_tensor`.

    Raises:
        pickle.UnpicklingError: it asks for more than containers of numbers and text, or is damaged.
    """
    with open(path, "rb") as file:
        return Reader(file).load()
