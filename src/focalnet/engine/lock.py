"""One process at a time works on a run: a lock on a file in its folder.

The lock is the operating system's. It ends with the process, however that ends; the file alone means nothing. POSIX
locks, unlike `flock`, are not inherited: a process that prepares samples does not hold the run of a parent that was
killed. They hold between machines too, where the file system passes them on (NFS).
"""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from focalnet.engine.run import disk_errors
from focalnet.errors import UserError

log = logging.getLogger(__name__)

NAME = ".lock"
BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of file systems that have no locks."""

_held: set[tuple[int, str]] = set()
"""Processes and the files that they locked: a lock does not tell a process from itself."""


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Keep the run in `folder`, which is made if it is not there, from other processes.

    Raises:
        UserError: another process works on it; the message names it.
    """
    path = folder / NAME
    key = os.getpid(), os.path.realpath(path)
    if key in _held:
        raise _busy(folder, "in this process")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(folder, path)
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with suppress(OSError):  # a run that came to nothing leaves nothing
            folder.rmdir()


def _acquire(folder: Path, path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(descriptor)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace") or "in another process"
            os.close(descriptor)
            if error.errno in BUSY:
                raise _busy(folder, holder) from None
            if error.errno not in UNKNOWN:
                raise
            log.warning("%s: this file system has no locks; see to it that no other process works on the run", folder)
            return os.open(os.devnull, os.O_RDWR)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"in process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
        os.close(descriptor)  # its holder took the file away between the two calls


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # what is locked cannot be read, and others read the holder
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _busy(folder: Path, holder: str) -> UserError:
    return UserError(f"{folder} is being trained {holder}: wait for its end, or stop it and resume.")
