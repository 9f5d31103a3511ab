"""The run folder: everything that a run needs to be resumed, evaluated, predicted with, explained and published.

    runs/NAME/
      config.json       task, its options, the training options, what the data was
      metrics.jsonl     one row per epoch
      last/  best/      checkpoints: a model folder (config.json, model.safetensors) and the training state
      skipped.json      files that could not be read, where there are some
      plots/*.png  report.html
      evaluation.json   of the best checkpoint, at the end of the run
      .lock             while a process trains, see `lock`

A checkpoint is written under a temporary name, flushed to the disk, sealed with a manifest of its files' sizes and
checksums, and renamed; at every instant there is a whole one under `last`, or, between two renames, under `last.old`.
"""

import errno
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from focalnet.engine.earlier import modern, modern_config
from focalnet.errors import UserError, unknown
from focalnet.reading import parse_json, read_json, read_object, read_text, shown, write_json
from focalnet.schemas import as_type

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
SKIPPED = "skipped.json"
PARTS: dict[str, Any] = {
    "task": dict[str, Any], "train": dict[str, Any], "data": dict[str, Any], "recipe": str | None, "focalnet": str,
    "own": tuple[str, ...], "command": str | None,
}  # fmt: skip
"""What `config.json` holds."""
FACTS: dict[str, Any] = {"training samples": int, "validation samples": int, "classes": tuple[str, ...] | int}
"""What `data` of it tells."""
COUNTS = ("epoch", "step")
"""What is a whole number in a row of `metrics.jsonl`."""
MEND_ROW = "mend or remove the line"
CHECKPOINTS = ("last", "best")


def is_run(place: Any) -> bool:
    """Whether a place is the folder of a run that has got somewhere; anything else than a path is none."""
    return isinstance(place, str | os.PathLike) and (Path(place) / METRICS).exists()


class RunFolder:
    """A run on disk.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> "RunFolder":
        """Make a new run folder with its `config.json`.

        Raises:
            UserError: the folder holds a run already, or cannot be written.
        """
        cls.check_new(path)
        run = cls(path)
        with disk_errors(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
            run.write_config(config)
        return run

    @staticmethod
    def check_new(path: str | Path) -> None:
        """Raises UserError where the folder holds a run already."""
        if (Path(path) / "config.json").exists():
            raise UserError(
                f"{path} holds a run already; go on with `focalnet resume {path}`, or choose another --out."
            )

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """An existing run folder.

        Raises:
            UserError: there is none at `path`.
        """
        run = cls(path)
        if not (run.path / "config.json").is_file():
            raise UserError(
                f"{run.path.absolute()} is not a run folder, it has no config.json; give the folder that "
                "`focalnet train` made."
            )
        return run

    def discard_without_checkpoint(self) -> None:
        """Take back `create` where there is no checkpoint to go on from, so that a new run can have the folder."""
        if not any((self.path / name).exists() for name in ("last", "last.old", "best", "best.old")):
            for name in ("config.json", METRICS):
                (self.path / name).unlink(missing_ok=True)

    def config(self) -> dict[str, Any]:
        """Content of `config.json`, in today's names.

        Raises:
            UserError: it is missing or damaged, or a part of it is something else.
        """
        path = self.path / "config.json"
        content = read_object(path)
        for part, hint in PARTS.items():
            if part in content:
                content[part] = as_type(content[part], hint, f"{path}: {part}")
        return modern_config(content)

    def write_config(self, config: Mapping[str, Any]) -> None:
        write_atomically(self.path / "config.json", json.dumps(config, indent=2).encode())

    def rows(self) -> list[dict[str, Any]]:
        """Rows of `metrics.jsonl`, in today's names; a last line that a killed process left unfinished is ignored.

        Raises:
            UserError: another line is damaged, or no row of numbers with its step.
        """
        path = self.path / METRICS
        *lines, unfinished = read_text(path).split("\n") if path.exists() else [""]
        rows = []
        for number, line in enumerate([*lines, unfinished], 1):
            where = f"{path} line {number}"
            try:
                row = parse_json(line, where, undefined=True, mend=MEND_ROW)
            except UserError:
                if number > len(lines):
                    break
                raise
            row = as_type(row, dict[str, Any], where, MEND_ROW)
            numbers = {name: math.nan if value is None else value for name, value in row.items()}
            for name, value in numbers.items():
                if type(value) not in ((int,) if name in COUNTS else (int, float)):
                    raise UserError(f"{where}: {name} is {shown(value)}, no number; {MEND_ROW}.")
            if "step" not in numbers:
                raise UserError(f"{where} lacks step; {MEND_ROW}.")
            rows.append(modern("row", numbers))
        return rows

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Add a row to `metrics.jsonl` and flush it to the disk."""
        with disk_errors(self.path), open(self.path / METRICS, "a") as file:
            file.write(write_json(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def skipped(self) -> list[str]:
        """The files that could not be read, in the order of their names."""
        path = self.path / SKIPPED
        return list(as_type(read_json(path), tuple[str, ...], path)) if path.exists() else []

    def add_skipped(self, paths: Iterable[str]) -> list[str]:
        """Remember files that could not be read; all of them are returned."""
        if set(paths).issubset(before := self.skipped()):
            return before
        skipped = sorted({*before, *paths})
        write_atomically(self.path / SKIPPED, json.dumps(skipped, indent=1).encode())
        return skipped

    def forget_after(self, step: int) -> None:
        """Drop the rows of `metrics.jsonl` that a resumed run will write again: of epochs that end after `step`."""
        rows = [row for row in self.rows() if row["step"] <= step]
        write_atomically(self.path / METRICS, "".join(write_json(row) + "\n" for row in rows).encode())

    def save_checkpoint(self, name: str, files: Mapping[str, Callable[[], bytes]]) -> None:
        """Replace the checkpoint `name`.

        Args:
            name: last or best.
            files: name of a file -> a function that makes its content, so that one at a time is in memory.

        Raises:
            UserError: the disk is full or read-only; the older checkpoint is still there.
        """
        new, final, old = (self.path / f"{name}{suffix}" for suffix in (".new", "", ".old"))
        with disk_errors(self.path):
            self.settle(name)
            try:
                new.mkdir()
                manifest = {}
                for file, content in files.items():
                    manifest[file] = _write(new / file, content())
                _write(new / MANIFEST, json.dumps(manifest, indent=2).encode())
                _flush_folder(new)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            if final.exists():
                final.rename(old)
            new.rename(final)
            _flush_folder(self.path)
            shutil.rmtree(old, ignore_errors=True)

    def checkpoint(self, name: str) -> Path:
        """The folder of the checkpoint `name`, verified.

        Raises:
            UserError: there is none, or it is damaged.
        """
        if name not in CHECKPOINTS:
            raise unknown("checkpoint", name, CHECKPOINTS)
        folder = self.path / name
        damage = _damage(folder)
        if damage is None:
            return folder
        others = [other for other in CHECKPOINTS if other != name and _damage(self.path / other) is None]
        mend = f"the checkpoint '{others[0]}' is whole: add --checkpoint {others[0]}" if others else "train again"
        if folder.exists():
            raise UserError(f"The checkpoint {folder} is damaged ({damage}); {mend}.")
        raise UserError(f"{self.path} has no checkpoint '{name}'; {mend}.")

    def to_go_on_from(self, name: str) -> Path | None:
        """`checkpoint(name)`, or None where the run was stopped before it wrote its first one, and begins anew.

        Raises:
            UserError: there is none, or it is damaged, or there was one and it is gone.
        """
        if name != "last" or any((self.path / each).exists() for each in CHECKPOINTS):
            return self.checkpoint(name)
        if (done := len(self.rows())) > 1:  # one is written before the first checkpoint
            raise UserError(
                f"{self.path} has no checkpoint, but its metrics.jsonl tells of {done} epochs: put the folders "
                f"{' and '.join(CHECKPOINTS)} back, or start a new run."
            )
        return None

    def settle(self, name: str) -> None:
        """Finish or undo what a killed process left of writing the checkpoint `name`; one process does it."""
        new, final, old = (self.path / f"{name}{suffix}" for suffix in (".new", "", ".old"))
        with disk_errors(self.path):
            if old.exists() and not final.exists():
                old.rename(final)
            for leftover in (new, old):
                if leftover.exists():
                    shutil.rmtree(leftover)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it and rename it.

    Raises:
        UserError: the disk is full or read-only; an older file is still there.
    """
    temporary = path.with_name(path.name + ".new")
    with disk_errors(path):
        try:
            _write(temporary, content)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"The disk is full: {path} could not be written, what was there before is intact; free some space "
                "and go on with `focalnet resume`."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"{path} cannot be written ({error.strerror}); give it write permission or choose another --out."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise UserError(f"{path} cannot be made a folder, a file is in the way; choose another --out.") from error
        raise


def _write(path: Path, content: bytes) -> dict[str, int]:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": len(content), "crc32": zlib.crc32(content)}


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = as_type(read_json(folder / MANIFEST), dict[str, dict[str, int]], MANIFEST)
    except UserError:
        return f"{MANIFEST} is missing or unreadable"
    there = {file.name for file in folder.iterdir() if not file.name.startswith(".")} - {MANIFEST}
    if unsealed := sorted(there - manifest.keys()):
        return f"{MANIFEST} does not name {unsealed[0]}"
    for name, facts in manifest.items():
        file = folder / name
        if facts.keys() != {"bytes", "crc32"} or file.parent != folder:
            return f"{MANIFEST} has a strange entry for {shown(name)}"
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != facts["bytes"]:
            return f"{name} has {file.stat().st_size} of {facts['bytes']} bytes"
        if _crc32(file) != facts["crc32"]:
            return f"{name} has another checksum than when it was written"
    return None


def _crc32(file: Path) -> int:
    checksum = 0
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
