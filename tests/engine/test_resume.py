"""A run that is killed at any moment and resumed ends with the same bits as one that was not."""

import json

import pytest
import torch
from safetensors.torch import load_file

from forked import run as focalnet

OPTIONS = "--model minifocal_32 --weights None --image-size 32 --epochs 3 --batch-size 8 --accumulate 2 --ema 0.9"
MORE_OPTIONS = "--mixing 0.8 1.0 --workers 1 --lr 1e-3 --warmup-epochs 1"
TIMES = {"seconds", "samples_per_second", "val_samples_per_second"}


def train(pictures, out, *more, patch=""):
    return focalnet(
        "train", "--data", pictures, "--out", out, *OPTIONS.split(), *MORE_OPTIONS.split(), *more, patch=patch
    )


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = train(pictures, out)
    assert done.returncode == 0, done.stderr
    return out


def assert_same_run(one, other):
    for checkpoint in ("last", "best"):
        weights, others = (load_file(run / checkpoint / "model.safetensors") for run in (one, other))
        assert weights.keys() == others.keys()
        for name in weights:
            assert torch.equal(weights[name], others[name]), name
        state, state_of_other = (torch.load(run / checkpoint / "state.pt") for run in (one, other))
        assert_equal(state, state_of_other)
    rows, others = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other)
    )
    assert [without_times(row) for row in rows] == [without_times(row) for row in others]


def assert_equal(one, other, at="state"):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key in one:
            assert_equal(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), at
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{at}.{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), at
    else:
        assert one == other, at


def without_times(row):
    return {key: value for key, value in row.items() if key not in TIMES}


KILL = "__import__('os').kill(__import__('os').getpid(), 9)"
PATCHES = {
    "in the middle of an epoch": f"""
from focalnet.engine import training, train
train.SAVE_AT, train._agreed = 1, lambda *_: True
original, calls = training.Training.step, []
def step(self, *arguments):
    calls.append(1)
    if len(calls) == 4: {KILL}
    return original(self, *arguments)
training.Training.step = step
""",
    "between the row of an epoch and its checkpoint": f"""
from focalnet.engine import run
original = run.RunFolder.append_row
def append_row(self, row):
    original(self, row)
    if row["epoch"] == 2: {KILL}
run.RunFolder.append_row = append_row
""",
    "while a checkpoint is written": f"""
from focalnet.engine import run
original, calls = run._write, []
def write(path, content):
    if path.name == "state.pt":
        calls.append(1)
        if len(calls) == 3:
            open(path, "wb").write(content[:1000]); {KILL}
    return original(path, content)
run._write = write
""",
    "between the two renames of a checkpoint": f"""
import pathlib
original, calls = pathlib.Path.rename, []
def rename(self, target):
    done = original(self, target)
    if str(target).endswith("last.old"): {KILL}
    return done
pathlib.Path.rename = rename
""",
}


SLOW = "between the two renames of a checkpoint"


@pytest.mark.parametrize(
    "moment", [pytest.param(name, marks=[pytest.mark.slow] if name == SLOW else []) for name in PATCHES]
)
def test_kill_9_and_resume(pictures, whole, tmp_path, moment):
    out = tmp_path / "killed"
    assert train(pictures, out, patch=PATCHES[moment]).returncode == -9
    assert not (out / "evaluation.json").exists()
    done = focalnet("resume", out)
    assert done.returncode == 0, done.stderr
    assert_same_run(whole, out)
    assert (out / "evaluation.json").exists()


def test_a_finished_run_says_so_and_goes_on_with_more_epochs(whole, tmp_path):
    import shutil

    out = tmp_path / "more"
    shutil.copytree(whole, out)
    done = focalnet("resume", out)
    assert done.returncode == 2
    assert "is finished, 3 epochs are done; add --epochs" in done.stderr
    assert "Traceback" not in done.stderr
    assert focalnet("resume", out, "--epochs", "4").returncode == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert json.loads((out / "config.json").read_text())["train"]["epochs"] == 4
