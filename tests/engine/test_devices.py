"""What a run takes of a machine."""

import os

import pytest
import torch

from focalnet.engine import devices
from focalnet.engine.devices import products, resolved, worker_count
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
