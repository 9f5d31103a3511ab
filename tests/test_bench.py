"""The benchmark measures what it says: equal candidates, taking turns, results kept as lines."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from focalnet.bench import BenchOptions, bench, files
from focalnet.bench import measure as module
from focalnet.errors import UserError
from focalnet.models.create import create_model
from focalnet.models.exported import ExportRecord, around

QUICK = {"models": ("focalnet_tiny_srf",), "batch": 1, "size": (32, 32), "repeats": 2, "device": "cpu"}


def test_the_operator(tmp_path, capsys):
    out = tmp_path / "results" / "bench.jsonl"
    options = QUICK | {"models": ("minifocal_32",), "parts": ("operator",), "precisions": ("float32", "bfloat16")}
    rows = bench(BenchOptions(**options, out=out))
    assert [(row["pass"], row["precision"], row["candidate"]) for row in rows] == [
        (direction, precision, candidate)
        for direction in ("forward", "training")
        for precision in ("float32", "bfloat16")
        for candidate in ("focalnet", "plain PyTorch")
    ]
    assert all(row["ms"] > 0 and row["ratio"] > 0 for row in rows)
    assert all(row["ratio"] == 1 for row in rows if row["candidate"] == "focalnet")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == len(rows)
    assert {"commit", "device", "torch", "copy_gb_s", "gemm_float32_tflop_s", "windows"} <= set(lines[0])
    assert "plain PyTorch" in capsys.readouterr().out


def test_timm_gets_the_same_weights_and_windows():
    pytest.importorskip("timm")
    options = BenchOptions(
        **QUICK, against=("timm",), parts=("model",), passes=("forward",), precisions=("float32",), windows=5
    )
    ours, theirs = bench(options)
    assert (ours["candidate"], theirs["candidate"]) == ("focalnet", "timm")
    assert theirs["error"] <= 1e-5


def test_recompute_is_measured_too():
    options = BenchOptions(
        **QUICK | {"models": ("minifocal_32",)}, against=(), parts=("model",), passes=("training",),
        precisions=("float32",), recompute=True,
    )  # fmt: skip
    rows = bench(options)
    assert [row["candidate"] for row in rows[1:]] == ["focalnet, recompute context", "focalnet, recompute block"]
    assert all(row["error"] == 0 for row in rows)


def test_transformers_gets_the_same_weights():
    pytest.importorskip("transformers")
    options = BenchOptions(
        **QUICK, against=("transformers",), parts=("model",), passes=("forward",), precisions=("float32",)
    )
    assert bench(options)[1]["error"] <= 1e-5


def test_a_candidate_that_computes_something_else_is_found(monkeypatch):
    class Zeros(nn.Module):
        def forward(self, images):
            return torch.zeros(len(images), 1000)

    monkeypatch.setattr(module, "same_network", lambda *_: Zeros())
    options = BenchOptions(**QUICK, against=("timm",), parts=("model",), passes=("forward",), precisions=("float32",))
    with pytest.raises(AssertionError, match="timm differs from ours"):
        bench(options)


def test_bad_input(tmp_path):
    options = {**QUICK, "parts": ("model",), "passes": ("forward",), "precisions": ("float32",), "against": ()}
    with pytest.raises(UserError, match="there is no such file"):
        bench(BenchOptions(**options, official=tmp_path / "focalnet.py"))
    with pytest.raises(UserError, match="did you mean 'focalnet_tiny_srf'"):
        bench(BenchOptions(**(options | {"models": ("focalnet_tiny_sfr",)})))


def test_the_turns_rotate(monkeypatch):
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    times = module.take_turns(calls, BenchOptions(**{**QUICK, "repeats": 3}))
    assert "".join(order) == "abcbcacab"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_an_exported_file_takes_turns_with_its_network(tmp_path, monkeypatch):
    spec = create_model("minifocal_32", classes=["ant", "bee"], embed_dim=8, depths=(1, 1, 1), focal_levels=1).spec
    record = ExportRecord(
        version=1, spec=json.loads(spec.to_json()), outputs=("map_0",), shape=(2, 3, 32, 32), free=(0, 2, 3),
        sizes=False, library="1",
    )  # fmt: skip
    shapes = set()

    def run(arrays):
        shapes.add(arrays[0].shape)
        return [np.zeros((len(arrays[0]), 2), np.float32)]

    monkeypatch.setattr(files, "open_exported", lambda path: around(record, run, path))
    options = BenchOptions(models=("nets/net.onnx",), batch=3, size=(32, 64), repeats=2, device="cpu")
    rows = bench(options)
    assert [(row["model"], row["candidate"], row["precision"]) for row in rows] == [
        ("net", "focalnet", "float32"),
        ("net", "net.onnx", "float32"),
    ]
    assert shapes == {(3, 3, 32, 64)}
    with pytest.raises(UserError, match="computes on the CPU, and --device is cuda"):
        bench(BenchOptions(models=("net.onnx",), device="cuda"))
