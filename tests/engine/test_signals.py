"""A run that a signal stops writes a checkpoint and goes on to the same bits; handlers are put back."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from test_processes import two_processes
from test_resume import MORE_OPTIONS, OPTIONS, assert_same_run

from focalnet.cli import main
from focalnet.engine import signals
from focalnet.engine import train as engine
from focalnet.engine.signals import ASKING, Signals, Stopped
from focalnet.engine.training import Training

ALONE = SimpleNamespace(num_processes=1, is_main_process=False)
CODES = {"SIGTERM": 143, "SIGHUP": 129, "SIGINT": 130}


def run(*arguments):
    """The exit code of a command in this process."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def train(pictures, out):
    return run("train", "--data", pictures, "--out", out, *OPTIONS.split(), *MORE_OPTIONS.split(), "--workers", 0)


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train(pictures, out) == 0
    return out


def position(out):
    found = torch.load(out / "last" / "state.pt")["position"]
    return found["epoch"], found["step"]


def when(patch, owner, name, call, number):
    """Send this process a signal before the given call of a function."""
    original, calls = getattr(owner, name), []

    def wrapped(*arguments):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return original(*arguments)

    patch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("name", "owner", "function", "call", "expected"),
    [
        ("SIGTERM", Training, "step", 5, (2, 1)),
        pytest.param("SIGHUP", Training, "save", 1, (1, 1), marks=pytest.mark.slow),
        pytest.param("SIGINT", engine, "evaluate_batches", 3, (1, 2), marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_with_a_checkpoint(
    pictures,
    whole,
    tmp_path,
    monkeypatch,
    capsys,
    name,
    owner,
    function,
    call,
    expected,
):
    before = [signal.getsignal(number) for number in ASKING]
    with monkeypatch.context() as patch:
        when(patch, owner, function, call, signal.Signals[name])
        assert train(pictures, tmp_path / "run") == CODES[name]
    assert f"Stopped by {name} after {expected[0]} epochs and {expected[1]} steps" in capsys.readouterr().out
    assert [signal.getsignal(number) for number in ASKING] == before
    assert position(tmp_path / "run") == expected
    assert not (tmp_path / "run" / ".lock").exists()
    assert run("resume", tmp_path / "run") == 0
    assert_same_run(whole, tmp_path / "run")


def test_a_kill_after_the_row_of_an_epoch_that_was_stopped_in_its_evaluation(pictures, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        when(patch, engine, "evaluate_batches", 3, signal.SIGTERM)
        assert train(pictures, tmp_path / "run") == 143
    with monkeypatch.context() as patch:

        def die(*_):
            raise RuntimeError("killed")

        patch.setattr(Training, "save", die)
        with pytest.raises(RuntimeError, match="killed"):
            run("resume", tmp_path / "run")
    assert run("resume", tmp_path / "run") == 0
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_a_signal_while_the_report_is_made_leaves_it_to_resume(pictures, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        when(patch, engine, "evaluate_batches", 7, signal.SIGTERM)
        assert train(pictures, tmp_path / "run") == 143
    assert not (tmp_path / "run" / "evaluation.json").exists()
    assert run("resume", tmp_path / "run") == 0
    assert_same_run(whole, tmp_path / "run")
    assert (tmp_path / "run" / "evaluation.json").exists()


def test_what_is_ignored_stays_ignored_and_other_threads_take_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals(ALONE) as taken:
            os.kill(os.getpid(), signal.SIGHUP)
            assert taken.asked() == 0
            assert signal.getsignal(signal.SIGTERM) == taken._take
    finally:
        signal.signal(signal.SIGHUP, before)
    found = []

    def elsewhere():
        with Signals(ALONE):
            found.extend(signal.getsignal(number) for number in ASKING)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(number) for number in ASKING]


def test_a_second_control_c_ends_at_once_and_whoever_waited_for_a_signal_hears_it(monkeypatch, request):
    before_all = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before_all))

    def ask(number, pause=0.0):
        os.kill(os.getpid(), number)
        time.sleep(pause)

    with Signals(ALONE) as taken:  # passed on by a launcher: no second one
        ask(signal.SIGTERM)
        ask(signal.SIGTERM)
        ask(signal.SIGINT)
        assert taken.asked() == signal.SIGTERM
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.0)
    heard = []

    def twice():
        with Signals(ALONE):
            ask(signal.SIGINT, 0.01)
            ask(signal.SIGINT, 1)
            heard.append("nothing")

    def once():
        with Signals(ALONE) as taken:
            ask(signal.SIGTERM)
            assert not heard
            raise Stopped(taken.asked())

    with pytest.raises(KeyboardInterrupt):
        twice()
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with pytest.raises(SystemExit, match="143"):
            once()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


GROUP = """
import subprocess, sys, time
import torch; torch.set_num_threads(1)
from focalnet.engine import training
original, calls = training.Training.step, []
def step(self, *arguments):
    calls.append(1)
    if len(calls) == 3:
        subprocess.run(["sh", "-c", f"kill -{sys.argv[1][3:]} 0"])  # what the parent sends itself, workers obey
        time.sleep(0.5)
    return original(self, *arguments)
training.Training.step = step
from focalnet.cli import main
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", CODES)
def test_a_signal_to_all_processes_of_a_job_spares_the_workers_until_the_step_is_done(pictures, tmp_path, name):
    words = ["train", "--data", pictures, "--out", tmp_path / "run", *OPTIONS.split(), *MORE_OPTIONS.split()]
    command = [sys.executable, "-c", GROUP, name, *map(str, words), "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == CODES[name], done.stderr
    assert position(tmp_path / "run") == (1, 1)
    assert "Traceback" not in done.stderr


WORKERS = """
import os, sys
from focalnet.engine import training
original, calls = training.Training.step, []
def step(self, *arguments):
    calls.append(1)
    if len(calls) == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), 15)
    return original(self, *arguments)
if sys.argv[1] == "train":
    training.Training.step = step
from focalnet.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(pictures, tmp_path):
    (tmp_path / "script.py").write_text(WORKERS)
    words = ["train", "--data", pictures, "--out", tmp_path / "run", *OPTIONS.split(), *MORE_OPTIONS.split()]
    whole, stopped = tmp_path / "whole", tmp_path / "run"
    done = subprocess.run([*two_processes(), tmp_path / "script.py", *map(str, words)], capture_output=True, text=True)
    assert done.returncode != 0
    assert position(stopped) == (1, 1)
    assert done.stderr.count("exitcode: 143") + done.stderr.count("exitcode  : 143") >= 1, done.stderr
    words[words.index(tmp_path / "run")] = whole
    for more in (["-m", "focalnet", *map(str, words)], [tmp_path / "script.py", "resume", stopped]):
        done = subprocess.run([*two_processes(), *map(str, more)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert_same_run(whole, stopped)
    assert len([json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]) == 3
