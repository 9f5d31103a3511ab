"""Runs of a speech codec, with three optimizers and discriminators beside the network: killed, and in two processes."""

import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from test_kills import begin, wait_for
from test_processes import two_processes
from test_resume import assert_same_run

from focalnet.tasks import get_task

OPTIONS = ["--task", "codec", "--recipe", "small_codec", "--model", get_task("codec").embedded.model, "--seconds", 0.5,
           "--batch-size", 2, "--epochs", 2, "--discriminator-share", 1 / 64, "--warmup-epochs", 0]  # fmt: skip
KILLS = 5


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for number in range(8):
        seconds = np.arange(8000 + 500 * number) / 16000
        wave = sum(np.sin(2 * np.pi * (90 + 25 * number) * n * seconds) / n for n in range(1, 9))
        soundfile.write(folder / f"{number}.wav", 0.2 * wave * (0.6 + 0.4 * np.sin(20 * seconds)), 16000)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_kill_9_and_resume(sounds, tmp_path):
    dice, log = random.Random(0), tmp_path / "log"
    begun = ["train", "--data", sounds, *OPTIONS, "--workers", 0, "--out"]
    whole = begin([*begun, tmp_path / "whole"], log)
    whole.join()
    assert whole.exitcode == 0, log.read_text()
    out, kills = tmp_path / "killed", 0
    while not (out / "evaluation.json").exists():
        process = begin(["resume", out] if out.exists() else [*begun, out], log)
        wait_for(process, out / "last" if kills == 0 else out / "config.json")
        process.join(dice.uniform(0, 3) if kills < KILLS else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0, log.read_text()
    assert kills == KILLS
    assert_same_run(tmp_path / "whole", out)
    assert torch.load(out / "last/state.pt")["helpers"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_play_the_game_of_one(sounds, tmp_path):
    """The entropy of all tokens is that of the part of a batch which a process has: features may differ a little."""
    rows = []
    for name, launcher in (("one", [sys.executable]), ("two", two_processes())):
        command = [*launcher, "-m", "focalnet", "train", "--data", sounds, "--out", tmp_path / name, *OPTIONS]
        done = subprocess.run([*map(str, command), "--workers", "0"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows.append([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()])
    for one, two in zip(*rows, strict=True):
        for figure in ("train_loss_discriminators", "train_loss_decoder", "resynthesis_error"):
            assert two[figure] == pytest.approx(one[figure], rel=1e-3), figure
        assert two["feature_error"] == pytest.approx(one["feature_error"], rel=0.2)
    assert (tmp_path / "two" / "report.html").exists()
