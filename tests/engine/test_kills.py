"""Thirty runs and resumptions that end at random instants, by kill -9 or by a signal that asks: the same bits, and no
process left.

A run of a chain is stopped again and again until it gets to its end, with a checkpoint after every step, so that
many instants are inside the writing of one.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from test_resume import assert_same_run
from test_scene_runs import arguments

from focalnet.cli import main
from focalnet.engine import train as engine
from focalnet.tasks import get_task
from scene_files import WRITERS

SIGNALS = {"SIGKILL": (-9,), "SIGTERM": (143, -15), "SIGHUP": (129, -1), "SIGINT": (130,)}
"""Exit codes of each: a process that has not begun to train ends as every process does."""
CLASSIFY = "--model minifocal_32 --weights None --image-size 32 --batch-size 4 --accumulate 2 --ema 0.9 --lr 1e-3"
TASKS = [get_task(name) for name in ("classify", "detect")]
"""Loaded here, and so in every process that is forked."""
FORK = multiprocessing.get_context("fork")


def command(words, log):
    """A command, in a process that was forked here: it need not load torch again."""
    with open(log, "a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        engine.SAVE_AT, engine._agreed = 1, lambda *_: True
        main([str(word) for word in words])


def begin(words, log):
    process = FORK.Process(target=command, args=(words, log))
    process.start()
    return process


def children(pid):
    """The processes that this one started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def gone(pids, seconds=20):
    until = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
@pytest.mark.timeout(3600)  # a crowded machine makes 15 of 18 in 25 minutes
@pytest.mark.parametrize(("task", "kills"), [("classify", 18), ("dino", 12)])
def test_kills_at_random_instants(task, kills, pictures, tmp_path):
    dice, log = random.Random(task), tmp_path / "log"
    if task == "classify":
        begun = ["train", "--data", pictures, *CLASSIFY.split(), "--epochs", 3, "--workers", 2]
    else:
        data = {"detect": WRITERS["detect"](tmp_path / "data", 12, 5)}
        begun = arguments(data, "", task, "--workers", 2)
        at = begun.index("--out")
        del begun[at : at + 2]
    whole = begin([*begun, "--out", tmp_path / "whole"], log)
    wait_for(whole, tmp_path / "whole" / "config.json")
    since = time.monotonic()
    whole.join()
    assert whole.exitcode == 0, log.read_text()
    seconds, used, chain = time.monotonic() - since, [], 0
    while len(used) < kills:
        chain += 1
        out = tmp_path / f"chain {chain}"
        while not (out / "evaluation.json").exists():
            words = ["resume", out] if out.exists() else [*begun, "--out", out]
            process = begin(words, log)
            wait_for(process, out / "config.json")
            name = [*SIGNALS][len(used) % len(SIGNALS)]
            process.join(dice.uniform(0, seconds) if len(used) < kills else None)
            workers = children(process.pid)
            if process.is_alive():
                os.kill(process.pid, signal.Signals[name])
                process.join(600)
                if process.exitcode != 0:  # asked in its last moment
                    assert process.exitcode in SIGNALS[name], (name, process.exitcode, log.read_text())
                    used.append(name)
            else:
                assert process.exitcode == 0, log.read_text()
            assert gone(workers)
        assert_same_run(tmp_path / "whole", out)
    assert set(used) == set(SIGNALS)
    assert "Traceback" not in log.read_text(), log.read_text()


def wait_for(process, file):
    while process.is_alive() and not file.exists():
        time.sleep(0.01)
