"""Signals that ask a run to stop: it ends its step, or, of several processes, goes on until they look at their losses
together (`losses`, about a second), writes a checkpoint, and ends.

    SIGINT     Ctrl-C                                       exit code 130
    SIGTERM    a scheduler takes the machine away           143
    SIGHUP     the terminal is closed                       129

A launcher passes on what every process of its group was sent already, so a signal that comes twice asks no more than
one; Ctrl-C a second later ends the process at once. Signals that somebody ignores (nohup) stay ignored, and after the
run whoever handled them before does so again.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from types import FrameType, TracebackType
from typing import Any

import torch

ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
AGAIN_SECONDS = 1.0
"""A second Ctrl-C within this time is the first one, passed on."""


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """A process of the run was asked to stop; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(number).name}")
        self.number = number


class Signals:
    """Takes the signals that ask a run to stop, as long as it is entered; only in the main thread, as Python has it.

    Leaving it by `Stopped` ends the process as the signal would have: with KeyboardInterrupt, or its exit code.

    Args:
        accelerator: the processes of the run.
    """

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.number, self.since = 0, 0.0
        self.before: dict[int, Any] = {}
        self.terminals: list[int] = []

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self.terminals = [number for number in (1, 2) if os.isatty(number)]
            for number in ASKING:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: code that Python cannot put back handles it
                    self.before[number] = before
                    signal.signal(number, self._take)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
        if callable(self.before.get(self.number)):
            signal.raise_signal(self.number)
        if isinstance(error, Stopped):
            raise SystemExit(128 + error.number) from None

    @property
    def urgent(self) -> bool:
        """Whether a signal came that this process, being alone, may obey at once."""
        return self.accelerator.num_processes == 1 and self.number != 0

    def asked(self) -> int:
        """The signal that asked a process of the run to stop, 0 if none did; every process calls it and hears it."""
        if self.accelerator.num_processes == 1:
            return self.number
        return int(self.accelerator.gather(torch.tensor([self.number], device=self.accelerator.device)).max())

    def _restore(self) -> None:
        for number, before in self.before.items():
            signal.signal(number, before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            if number == signal.SIGINT and time.monotonic() - self.since > AGAIN_SECONDS:
                self._restore()
                signal.raise_signal(number)
            return
        self.number, self.since = number, time.monotonic()
        words = "\nStopping after this step, with a checkpoint; a second Ctrl-C stops at once.\n"
        try:
            os.write(2, words.encode() if self.accelerator.is_main_process else b"")
        except OSError:  # the terminal is gone: whatever is still printed would be an error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for terminal in self.terminals:
                os.dup2(nowhere, terminal)


@contextmanager
def raised() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the main thread with their exit codes by an exception, once, so that whatever is open
    is closed; what comes meanwhile asks no more than that. Signals that somebody ignores (nohup) stay ignored."""
    before: dict[int, Any] = {}

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        numbers = [number for number in ASKING if number != signal.SIGINT]
        before = {number: signal.getsignal(number) for number in numbers}
        before = {number: found for number, found in before.items() if found not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, found in before.items():
            signal.signal(number, found)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold these signals back; a process that is begun meanwhile is born with them held back."""
    mask = getattr(signal, "pthread_sigmask", lambda *_: None)  # Windows has none
    before = mask(getattr(signal, "SIG_BLOCK", 0), ASKING)
    try:
        yield
    finally:
        mask(getattr(signal, "SIG_SETMASK", 0), before)


def follow_parent() -> None:
    """In a process that prepares samples: ignore what is sent to all processes of a run, which still needs the
    samples of its step, and end when the parent says so."""
    for number in ASKING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_parent, daemon=True).start()
    elif hasattr(signal, "pthread_sigmask"):  # nothing tells who sent a signal, and the parent must be heard
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _await_parent() -> None:
    parent = parent_process()
    while parent and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
