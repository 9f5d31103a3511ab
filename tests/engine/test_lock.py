"""One process at a time on a run, and nothing left of a process that was killed."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from focalnet.engine import lock
from focalnet.engine.lock import NAME, lock_run
from focalnet.errors import UserError

HOLDER = """
import os, sys, time
from pathlib import Path
from focalnet.engine.lock import lock_run
with lock_run(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_for_one_and_leaves_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    for _ in range(2):
        with lock_run(tmp_path / "run"):
            assert (tmp_path / "run" / NAME).exists()
            with (
                pytest.raises(UserError, match="run is being trained in this process: wait"),
                lock_run(tmp_path / "." / "run"),
            ):
                pass
        assert os.listdir(tmp_path / "run") == ["config.json"]
    with lock_run(tmp_path / "came" / "to nothing"):
        pass
    assert not (tmp_path / "came" / "to nothing").exists()


def test_a_killed_process_does_not_leave_its_lock_behind_even_if_its_workers_live_on(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    with holder:
        worker = int(holder.stdout.readline())
        try:
            with pytest.raises(UserError, match=f"is being trained in process {holder.pid} on "):
                lock_run(tmp_path / "run").__enter__()
            holder.kill()
            holder.wait()
            os.kill(worker, 0)
            with lock_run(tmp_path / "run"):
                assert f"process {os.getpid()} " in (tmp_path / "run" / NAME).read_text()
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_link_in_place_of_the_lock_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=NAME), lock_run(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with lock_run(tmp_path / "run"):
        assert "this file system has no locks" in caplog.text
    assert not lock._held
