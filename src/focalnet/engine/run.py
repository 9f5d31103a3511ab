"""The run folder: everything that a run needs to be resumed, evaluated, predicted with, explained and published.

    runs/NAME/
      config.json       task, its options, the training options, what the data was
      metrics.jsonl     one row per epoch
      last/  best/      checkpoints: a model folder (config.json, model.safetensors) and the training state
      plots/*.png  report.html
      .lock             while a process trains, see `lock`

A checkpoint is written under a temporary name, flushed to the disk, sealed with a manifest of its files' sizes and
checksums, and renamed; at every instant there is a whole one under `last`, or, between two renames, under `last.old`.
"""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from focalnet.engine.earlier import modern, modern_config
from focalnet.errors import UserError, unknown

MANIFEST = "manifest.json"
CHECKPOINTS = ("last", "best")


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
        run = cls(path)
        if (run.path / "config.json").exists():
            raise UserError(
                f"{run.path} holds a run already; go on with `focalnet resume {run.path}`, or choose another --out."
            )
        with disk_errors(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
            run.write_config(config)
        return run

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
            for name in ("config.json", "metrics.jsonl"):
                (self.path / name).unlink(missing_ok=True)

    def config(self) -> dict[str, Any]:
        """Content of `config.json`, in today's names."""
        return modern_config(read_json(self.path / "config.json"))

    def write_config(self, config: Mapping[str, Any]) -> None:
        write_atomically(self.path / "config.json", json.dumps(config, indent=2).encode())

    def rows(self) -> list[dict[str, Any]]:
        """Rows of `metrics.jsonl`, in today's names; a last line that a killed process left unfinished is ignored."""
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                rows.append(modern("row", json.loads(line)))
            except json.JSONDecodeError:
                break
        return rows

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Add a row to `metrics.jsonl` and flush it to the disk."""
        with disk_errors(self.path), open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def forget_after(self, step: int) -> None:
        """Drop the rows of `metrics.jsonl` that a resumed run will write again: of epochs that end after `step`."""
        rows = [row for row in self.rows() if row["step"] <= step]
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None


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
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return f"{MANIFEST} is missing or unreadable"
    for name, facts in manifest.items():
        file = folder / name
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
