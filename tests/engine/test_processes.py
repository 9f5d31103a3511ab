"""Two processes end with the losses of one that has the same global batch."""

import json
import socket
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from class_files import dark_and_light
from focalnet.cli import main
from focalnet.engine.run import RunFolder
from focalnet.models.create import create_model
from focalnet.models.publish import save_pretrained

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


def test_no_process_makes_the_folder_before_all_have_looked(pictures, tmp_path, monkeypatch):
    calls = []

    def create(path, record):
        calls.append("make")
        raise InterruptedError

    monkeypatch.setattr(RunFolder, "check_new", lambda path: calls.append("look"))
    monkeypatch.setattr(RunFolder, "create", create)
    monkeypatch.setattr(Accelerator, "wait_for_everyone", lambda self: calls.append("wait"))
    with pytest.raises(InterruptedError):
        train(pictures, tmp_path / "run")
    assert calls == ["look", "wait", "make"]


def test_accumulated_parts_equal_one_batch(pictures, one_process, tmp_path):
    rows = train(pictures, tmp_path / "parts", "--accumulate", "4")
    for row, expected in zip(rows, one_process, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
        assert row["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)


@pytest.mark.slow
def test_two_processes_end_together_when_nothing_gets_better(pictures, tmp_path):
    still = ("--patience", "1", "--epochs", "5", "--lr", "1e-12", "--min-lr", "0")  # too small to move any weight
    one = train(pictures, tmp_path / "one", *still)
    two = train(pictures, tmp_path / "two", *still, launcher=two_processes())
    assert len(one) == len(two) == 2
    assert two[-1]["val_loss"] == pytest.approx(one[-1]["val_loss"], rel=1e-5)
    assert json.loads((tmp_path / "two" / "evaluation.json").read_text())["metrics"]["top1"] == two[0]["top1"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_keep_what_is_frozen(pictures, tmp_path, strategy):
    save_pretrained(create_model("minifocal_32", num_classes=3), tmp_path / "start")
    frozen = ("--weights", str(tmp_path / "start"), "--freeze", "backbone")
    one = train(pictures, tmp_path / "one", *frozen)
    two = train(pictures, tmp_path / "two", *frozen, "--strategy", strategy, launcher=two_processes())
    for row, expected in zip(two, one, strict=True):
        for figure in ("train_loss", "val_loss"):
            assert row[figure] == pytest.approx(expected[figure], rel=1e-5, abs=1e-6), figure
    before, after, alone = (
        load_file(tmp_path / place / "model.safetensors") for place in ("start", "two/last", "one/last")
    )
    for name in before:
        if not name.startswith("head."):
            assert torch.equal(after[name], before[name]), name
    assert not torch.equal(after["head.weight"], torch.zeros_like(after["head.weight"]))
    assert torch.allclose(after["head.weight"], alone["head.weight"], atol=1e-5)
