"""What a run takes of a machine."""

import json
import os

import pytest
import torch

from class_files import dark_and_light
from focalnet.cli import main
from focalnet.engine import devices
from focalnet.engine.devices import described, products, resolved, worker_count
from focalnet.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_workers_go_by_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert worker_count(None, 1000, GPU) == devices.MOST_WORKERS
    assert worker_count(None, 5, GPU) == 5
    assert worker_count(None, 1000, CPU) == devices.MOST_BESIDE_A_CPU
    assert worker_count(0, 1000, GPU) == 0
    assert worker_count(40, 1000, CPU) == 40
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert worker_count(None, 1000, GPU) == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert worker_count(None, 1000, GPU) == 1
    assert worker_count(None, 1000, CPU) == 1


def test_tf32_is_for_gpus_and_ends_with_the_run(monkeypatch):
    assert resolved("auto", CPU) == "fp32"
    with pytest.raises(UserError, match="tf32"):
        resolved("tf32", CPU)
    assert resolved("tf32", GPU) == "tf32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch.get_float32_matmul_precision() == "highest"
    with products("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    with products("fp32"):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("multiplies", [True, False])
def test_an_emulated_arithmetic_is_told(monkeypatch, multiplies):
    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda: multiplies)
    assert described("bf16", GPU) == "bf16"
    assert described("fp32", CPU) == "fp32"
    assert ("--precision fp32" in described("bf16", CPU)) != multiplies


@pytest.mark.slow
def test_options_that_speed_up_loading_teach_the_same(tmp_path):
    """Kept images and bytes that are normalized later change no bit; images are as small as a draft leaves them."""
    dark_and_light(tmp_path / "data", (400, 360), dark=6, light=6, suffix="jpg")
    words = f"--data {tmp_path / 'data'} --model minifocal_32 --weights None --image-size 32 --epochs 2 --workers 0"
    rows = {}
    for name, more in {"plain": "", "cache": "--cache 0.1", "raw": "--raw-batches", "draft": "--draft"}.items():
        main(["train", *words.split(), "--batch-size", "4", "--out", str(tmp_path / name), *more.split()])
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rows[name] = [json.loads(line)["train_loss"] for line in lines]
    assert rows["cache"] == rows["raw"] == rows["plain"]
    assert rows["draft"] != rows["plain"]
    assert rows["draft"] == pytest.approx(rows["plain"], abs=0.1)
