"""Two processes end with the losses of one that has the same global batch."""

import json
import socket
import subprocess
import sys

import pytest

from class_files import dark_and_light
from focalnet.cli import main

OPTIONS = (
    "--model minifocal_32 --weights None --image-size 32 --epochs 2 --batch-size 8 --ema 0.9 --drop-path 0 "
    "--augment light --workers 0 --lr 1e-3 --warmup-epochs 0"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return dark_and_light(tmp_path_factory.mktemp("pictures"), (40, 36), dark=13, light=13, seed=1)


def train(pictures, out, *options, launcher=None):
    """Rows of a run, in this process or in those of a launcher."""
    arguments = ["train", "--data", str(pictures), "--out", str(out), *OPTIONS.split(), *options]
    if launcher is None:
        main(arguments)
    else:
        done = subprocess.run([*launcher, "-m", "focalnet", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def one_process(pictures, tmp_path_factory):
    return train(pictures, tmp_path_factory.mktemp("runs") / "one")


def two_processes() -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_equal_one(pictures, one_process, tmp_path, strategy):
    rows = train(pictures, tmp_path / "two", "--strategy", strategy, launcher=two_processes())
    assert len(rows) == len(one_process) == 2
    for row, expected in zip(rows, one_process, strict=True):
        for figure in ("train_loss", "val_loss", "top1", "train_top1"):
            assert row[figure] == pytest.approx(expected[figure], rel=1e-5, abs=1e-6), figure
    assert (tmp_path / "two" / "report.html").exists()


def test_accumulated_parts_equal_one_batch(pictures, one_process, tmp_path):
    rows = train(pictures, tmp_path / "parts", "--accumulate", "4")
    for row, expected in zip(rows, one_process, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
        assert row["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)
