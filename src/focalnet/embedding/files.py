"""Files of embeddings, written as they come, so that memory does not grow with their number, and read again."""

import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from focalnet.errors import MissingExtraError, UserError
from focalnet.reading import parse_json, shown, write_json

KEY = b"focalnet"
"""Where a parquet file carries what made it."""
CHUNK = 1 << 24
ROWS = 1024
"""Rows of a parquet file that are written at once, at least."""


class Writer(Protocol):
    """Takes rows in. Left without an error, its file is there; else none is, or the older one."""

    def add(self, names: Sequence[str], vectors: np.ndarray) -> None:
        """Rows: names, and vectors (B, D), float32."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def open_writer(path: Path, about: Mapping[str, Any]) -> Writer:
    """A writer for a file of embeddings, by its suffix.

    Raises:
        UserError: another suffix than .npz and .parquet.
        MissingExtraError: pyarrow is not installed.
    """
    if path.suffix not in (".npz", ".parquet"):
        raise UserError(f"{path}: embeddings are written as .npz or .parquet; give one of these names.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return NpzWriter(path, about) if path.suffix == ".npz" else ParquetWriter(path, about)


class NpzWriter:
    """Keeps the vectors in a temporary file until their number is known."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, about
        self.names: list[str] = []
        self.raw = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed in `__exit__`
        self.width = 0

    def __enter__(self) -> Self:
        return self

    def add(self, names: Sequence[str], vectors: np.ndarray) -> None:
        self.names += names
        self.width = vectors.shape[1]
        self.raw.write(np.ascontiguousarray(vectors, "<f4").data)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self.raw:
            if kind is not None:
                return
            temporary = self.path.with_name(self.path.name + ".new")
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for name, array in (("names", np.array(self.names, str)), ("about", np.array(write_json(self.about)))):
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, array, allow_pickle=False)
                with archive.open("embeddings.npy", "w", force_zip64=True) as file:
                    shape = (len(self.names), self.width)
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    self.raw.seek(0)
                    while chunk := self.raw.read(CHUNK):
                        file.write(chunk)
            temporary.replace(self.path)


class ParquetWriter:
    """Writes rows in groups."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.arrow, self.parquet = _pyarrow()
        self.path, self.about = path, about
        self.temporary = path.with_name(path.name + ".new")
        self.file: Any = None
        self.waiting: list[tuple[Sequence[str], np.ndarray]] = []

    def __enter__(self) -> Self:
        return self

    def add(self, names: Sequence[str], vectors: np.ndarray) -> None:
        self.waiting.append((names, vectors))
        if sum(len(rows) for rows, _ in self.waiting) >= ROWS:
            self._write()

    def _write(self) -> None:
        arrow = self.arrow
        width = self.waiting[0][1].shape[1] if self.waiting else 0
        names = [os.fsencode(name).decode(errors="backslashreplace") for rows, _ in self.waiting for name in rows]
        values = np.concatenate([vectors for _, vectors in self.waiting]) if self.waiting else np.zeros((0, 0), "f4")
        kind = arrow.list_(arrow.float32(), width)
        schema = arrow.schema([("name", arrow.string()), ("embedding", kind)], {KEY: write_json(self.about)})
        column = arrow.FixedSizeListArray.from_arrays(arrow.array(values.ravel()), type=kind)
        if self.file is None:
            self.file = self.parquet.ParquetWriter(self.temporary, schema)
        self.file.write_table(arrow.table([arrow.array(names, arrow.string()), column], schema=schema))
        self.waiting = []

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and (self.waiting or self.file is None):
            self._write()
        if self.file is not None:
            self.file.close()
        if kind is None:
            self.temporary.replace(self.path)
        else:
            self.temporary.unlink(missing_ok=True)


def read(path: Path) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    """Names, vectors (N, D) and what made them.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
        MissingExtraError: pyarrow is not installed.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; `focalnet embed` writes one.")
    try:
        names, vectors, about = _read_parquet(path) if path.suffix == ".parquet" else _read_npz(path)
        if vectors.ndim != 2 or len(names) != len(vectors) or vectors.dtype != np.float32:
            raise ValueError(f"{len(names)} names, vectors {vectors.dtype} {vectors.shape}")
        if not all(isinstance(name, str) for name in names) or not np.isfinite(vectors).all():
            raise ValueError("names that are no text, or numbers that are none")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} holds no embeddings, or is damaged ({error}); write it again.") from error
    told = parse_json(about, f"{path}: about")
    if not isinstance(told, dict) or not isinstance(told.get("weights"), str | None):
        raise UserError(f"{path} does not tell in words what made it ({shown(told)}); write it again.")
    return names, vectors, told


def _read_npz(path: Path) -> tuple[list[str], np.ndarray, str]:
    with np.load(path, allow_pickle=False) as content:
        return content["names"].tolist(), content["embeddings"], str(content["about"])


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray, str]:
    parquet = _pyarrow()[1]
    table = parquet.read_table(path)
    column = table["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    return table["name"].to_pylist(), vectors, table.schema.metadata[KEY].decode()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("Parquet files", "parquet") from None
    return pa, parquet
