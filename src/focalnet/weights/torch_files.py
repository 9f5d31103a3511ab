"""Files of `torch.save`, as `torch.load` reads them, by the same careful reader as every other pickle.

A file has a pickle of containers, in which a tensor is a storage, an offset, sizes and strides, and the numbers of the
storages behind it: as records of a zip archive since torch 1.6, one after the other before. torch's own reader takes
the file's word for it: records may be packed (ten megabytes become gigabytes), one number may stand for a tensor of any
size, a dictionary key may overflow the C stack. Here a record is as long as its storage, a tensor has no more numbers
than its storage, and numbers are read when they are asked for: a training checkpoint's optimizer never is.

Tensors that no weights are (sparse, quantized, of no device) become an `Odd`, so that a sentence can name them.
"""

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from torch import Tensor

from focalnet.errors import UserError
from focalnet.weights.pickles import PARTS, Array, InertMapping, Reader

DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8, "QInt8Storage": torch.int8, "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}  # fmt: skip
"""Classes of storages and the type of their numbers; of the last ones, tensors are `Odd`."""
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
"""What the format before torch 1.6 begins with."""
MOST_AXES = 64
RUNNING = frozenset({"os", "posix", "nt", "sys", "subprocess"})
"""Modules that no checkpoint has a class of: what names them means harm, and is told so."""
FAMILIAR = frozenset({"yacs.config.CfgNode", "argparse.Namespace", *PARTS})
"""Classes that the old format may name beside those of tensors and arrays."""


class Storage:
    """Numbers in a file, read when they are first asked for.

    Attributes:
        path: the file.
        place: the byte where they begin; None until it is known.
        count: how many.
        dtype: their type.
    """

    def __init__(self, path: Path, place: int | None, count: int, dtype: torch.dtype) -> None:
        self.path, self.place, self.count, self.dtype = path, place, count, dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * self.dtype.itemsize

    @cached_property
    def numbers(self) -> Tensor:
        """All of them, (count,)."""
        if not self.count:
            return torch.empty(0, dtype=self.dtype)
        if self.place is None:
            raise pickle.UnpicklingError("a tensor without numbers")
        content = np.fromfile(self.path, np.uint8, self.size, offset=self.place)
        if len(content) != self.size:
            raise EOFError("the file ends inside a tensor")
        return torch.from_numpy(content).view(self.dtype)


class Stored:
    """A tensor in a file.

    Args:
        storage: its numbers.
        offset: of the first of them.
        size, stride: of the tensor.

    Raises:
        pickle.UnpicklingError: one of them is something else, or the storage has fewer numbers.
    """

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any) -> None:
        sizes = (offset, *size, *stride)
        if not isinstance(storage, Storage) or not all(type(part) is int and 0 <= part < 2**62 for part in sizes):
            raise pickle.UnpicklingError("a tensor of strange parts")
        if len(size) != len(stride) or len(size) > MOST_AXES or math.prod(size) > storage.count:
            raise pickle.UnpicklingError(f"a tensor of {storage.count} numbers with the sizes {size}")
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)

    def tensor(self) -> Tensor:
        """The tensor; those of one storage share its memory, as they did."""
        return self.storage.numbers.as_strided(self.size, self.stride, self.offset)


class Odd:
    """A tensor of a kind that no weights are.

    Attributes:
        kind: in words.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind


def is_numbers(value: Any) -> bool:
    """Whether a value out of a file is a tensor or an array of numbers."""
    return isinstance(value, Tensor | Stored | Odd) or (isinstance(value, Array) and value.values is not None)


def as_tensor(value: Any, name: str) -> Tensor:
    """The tensor in a value that `is_numbers`.

    Raises:
        UserError: it is an `Odd`; the sentence calls it `name`.
    """
    if isinstance(value, Odd):
        raise UserError(f"{name} is {value.kind}; save weights as plain tensors of floating-point numbers.")
    if isinstance(value, Stored):
        return value.tensor()
    return torch.as_tensor(value.values if isinstance(value, Array) else value)


def with_tensors(content: Any) -> Any:
    """Containers out of a file with the tensors in them; what several places share stays shared."""
    done: dict[int, Any] = {}

    def walk(value: Any) -> Any:
        if id(value) not in done:
            if isinstance(value, Stored):
                done[id(value)] = value.tensor()
            elif isinstance(value, Odd):
                raise UserError(f"a training state holds {value.kind}; resume from another checkpoint.")
            elif isinstance(value, Mapping):
                done[id(value)] = {name: walk(part) for name, part in value.items()}
            elif isinstance(value, list | tuple):
                done[id(value)] = type(value)(map(walk, value))
            else:
                return value
        return done[id(value)]

    return walk(content)


def load(path: Path) -> Any:
    """The containers of a file of `torch.save`; its tensors are `Stored`, see `as_tensor`.

    Raises:
        pickle.UnpicklingError: it is no such file, or damaged. Damage has many other exceptions besides.
        UserError: it is torch's for programs, or of a machine with another order of bytes.
    """
    with open(path, "rb") as file:
        archive = file.read(4) == b"PK\3\4"
        file.seek(0)
        return _load_archive(path, file) if archive else _load_old(path, file)


def _load_archive(path: Path, file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        found = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(found) != 1:
            raise pickle.UnpicklingError("an archive of something else")
        root = found[0].removesuffix("data.pkl")
        records = {name.removeprefix(root): info for name, info in archive.NameToInfo.items() if name.startswith(root)}
        if "constants.pkl" in records:
            raise UserError(f"{path} is a program of torch.jit.save; save the state dict of its model with torch.save.")
        if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
            raise UserError(f"{path} was packed again by another program; save it with torch.save.")
        if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
            raise UserError(f"{path} has the order of bytes of another machine; save it again on one like this.")
        content = io.BytesIO(archive.read(records["data.pkl"]))

        @cache  # tensors of one storage share its memory
        def storage(key: Any, count: int, dtype: torch.dtype) -> Storage:
            info = records[f"data/{key}"]
            if info.file_size != count * dtype.itemsize:
                raise pickle.UnpicklingError(f"{info.file_size} bytes for {count} numbers")
            file.seek(info.header_offset)
            begin, name, extra = struct.unpack("<4s22xHH", file.read(30))
            if begin != b"PK\3\4":
                raise pickle.UnpicklingError("a record that is none")
            return Storage(path, info.header_offset + 30 + name + extra, count, dtype)

        return _TensorReader(content, storage).load()


def _load_old(path: Path, file: BinaryIO) -> Any:
    storages: dict[Any, Storage] = {}

    def storage(key: Any, count: int, dtype: torch.dtype) -> Storage:
        return storages.setdefault(key, Storage(path, None, count, dtype))

    def part() -> Any:
        return _TensorReader(file, storage, strict=True).load()

    if part() != MAGIC or part() != VERSION:
        raise pickle.UnpicklingError("a file of something else")
    part()  # the machine
    content = part()
    keys = part()
    place = file.tell()
    for key in keys:
        file.seek(place)
        (count,) = struct.unpack("<q", file.read(8))
        if count != storages[key].count:
            raise pickle.UnpicklingError(f"{count} numbers for {storages[key].count}")
        storages[key].place = place + 8
        place += 8 + storages[key].size
    return content


class _Kind:
    """Stands in for a class of storages."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def _first(data: Any, *rest: Any) -> Any:
    """Stands in for what makes a parameter of a tensor."""
    return data


def _of_type(function: Any, cls: Any, arguments: Any, state: Any) -> Any:
    """Stands in for `torch._tensor._rebuild_from_type_v2`, of tensors with attributes."""
    return function(*arguments)


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    """Stands in for `torch.Size`."""
    return tuple(sizes)


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Stored:
    return Stored(storage, offset, size, stride)


_TENSORS: dict[str, Any] = {
    "_rebuild_tensor": _rebuild,
    "_rebuild_tensor_v2": _rebuild,
    "_rebuild_parameter": _first,
    "_rebuild_parameter_with_state": _first,
    "_rebuild_from_type_v2": _of_type,
    "Size": _size,
}
_ODD = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_qtensor": "a quantized tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor on the meta device, without numbers",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_tensor_v3": "a tensor of a number type that no network here has",
}


class _TensorReader(Reader):
    def __init__(self, file: Any, storage: Any, *, strict: bool = False) -> None:
        super().__init__(file)
        self.storage, self.strict = storage, strict

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in RUNNING:
            raise pickle.UnpicklingError(f"{module}.{name}")
        if module.split(".")[0] != "torch":
            if (
                self.strict
                and f"{module}.{name}" not in FAMILIAR
                and module.split(".")[0] not in ("numpy", "collections")
            ):
                raise pickle.UnpicklingError(f"the old format with {module}.{name}")
            return super().find_class(module, name)
        if name in DTYPES:
            return _Kind(DTYPES[name])
        if name in _TENSORS:
            return _TENSORS[name]
        if name.startswith("_rebuild"):
            return lambda *arguments: Odd(_ODD.get(name, "a tensor of an unusual kind"))
        return InertMapping

    def load_binpersid(self) -> None:
        known = self.stack.pop()
        if not isinstance(known, tuple) or len(known) not in (5, 6) or known[0] not in ("storage", b"storage"):
            raise pickle.UnpicklingError("something outside the file")
        kind, key, _, count = known[1:5]
        if known[5:] not in ((), (None,)) or not isinstance(key, str) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage of strange parts")
        self.append(self.storage(key, count, kind.dtype) if isinstance(kind, _Kind) else None)

    dispatch: ClassVar[dict[int, Any]] = {**Reader.dispatch, pickle.BINPERSID[0]: load_binpersid}
