"""The jobs side by side with other libraries: the same work, watched and compared."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from test_gpu_benchmark import load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load(BENCHMARKS / "jobs.py"), load(BENCHMARKS / "jobs_libraries.py")


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # timm's files
def test_libraries_predict_the_same_files_alike(scripts, tmp_path):
    pytest.importorskip("timm")
    jobs, libraries = scripts
    jobs.make(tmp_path, images=5, scenes=1, classes=2)
    given = SimpleNamespace(folder=str(tmp_path), jobs=["predict"], side=32, scene=64, batch=2, workers=0, threads=1)
    libraries.prepare(given)
    watched = {"cpu": 1.0, "processor": 1.0, "peak_mb": 100.0}
    rounds = [{name: libraries.run("predict", name, given) | watched for name in ("focalnet", "timm")}]
    row = jobs.compare("predict", "timm", rounds)
    assert row["agree"] == 1
    assert row["paired"] > 0
    assert row["samples_per_second"] > 0
    assert rounds[0]["timm"]["samples"] == rounds[0]["focalnet"]["samples"] == 5


def test_rows_compare_seconds_per_sample(scripts):
    jobs, _ = scripts
    ours = {"samples": 10, "loop": 2.0, "seconds": 4.0, "cpu": 0.9, "processor": 3.0, "peak_mb": 10.0}
    theirs = {"samples": 5, "loop": 2.0, "seconds": 2.0, "cpu": 0.5, "processor": 3.0, "peak_mb": 20.0}
    row = jobs.compare("finetune", "timm", [{"focalnet": ours, "timm": theirs}] * 3)
    assert (row["paired"], row["paired_job"], row["paired_cpu"]) == (2.0, 1.0, 2.0)
    assert (row["samples_per_second"], row["samples_per_second_against"]) == (5.0, 2.5)
    assert (row["peak_mb"], row["peak_mb_against"]) == (10.0, 20.0)
    assert "agree" not in row


@pytest.mark.slow
def test_the_rehearsal(tmp_path):
    for package in ("timm", "faster_coco_eval"):
        pytest.importorskip(package)
    words = "--images 16 --scenes 1 --side 32 --scene 64 --batch 4 --workers 1 --threads 1 --rounds 1"
    command = [sys.executable, str(BENCHMARKS / "jobs.py"), *words.split(), "--output", str(tmp_path / "rows.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["job"], row["against"]) for row in rows] == [
        ("finetune", "timm"), ("predict", "timm"), ("predict", "transformers"), ("evaluate", "torchvision"),
    ]  # fmt: skip
    assert all(row["paired"] > 0 and row["peak_mb"] > 100 and row["cpu"] > 0 for row in rows)
    assert all(row["device"] and row["commit"] and row["images"] == 16 for row in rows)
    assert all(row.get("agree", 1) == 1 for row in rows)
