"""The script for a GPU in a slot: its steps run on a CPU, lose nothing, and end in the rule's decision."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def load(path):
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpu = load(SCRIPT)


def rehearse(out, *steps):
    pytest.importorskip("triton")
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--rehearse", *steps]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout, done.stdout
    assert "out of time" not in done.stdout, done.stdout
    return done.stdout, gpu.read_rows(out)


def test_a_step_runs_on_the_interpreter(tmp_path):
    words, rows = rehearse(tmp_path, "--steps", "right")
    assert all(row["ok"] and row["step"] == "right" for row in rows)
    assert {"commit", "device", "error"} <= set(rows[0])
    assert "no decision: no model was measured" in words
    assert (tmp_path / "summary.txt").read_text().strip() in words


@pytest.mark.slow
def test_the_whole_rehearsal(tmp_path):
    pytest.importorskip("timm")
    words, rows = rehearse(tmp_path)
    assert {row["step"] for row in rows} == set(gpu.STEPS)
    assert [row["code"] for row in rows if row["step"] == "tests"] == [0]
    assert "order of backends: cuda" in words


def test_out_of_time_keeps_what_was_measured(tmp_path, monkeypatch):
    """Nor does a step with its own workers outlive its time, or a cut row spoil the others."""
    steps = tmp_path / "steps.py"
    steps.write_text(
        "import subprocess, sys, time\n"
        'with open(sys.argv[1], \'a\') as file: print(\'{"step": "warm", "seconds": 1}\\n{"st\', file=file)\n'
        "subprocess.Popen([sys.executable, '-c', f'import time; time.sleep(2); open({sys.argv[2]!r}, chr(119))'])\n"
        "time.sleep(60)\n"
    )
    options = gpu.argparse.Namespace(rehearse=False)
    command = [sys.executable, str(steps), str(tmp_path / "rows.jsonl"), str(tmp_path / "outlived")]
    assert gpu.run_step("warm", 1.5, tmp_path, options, command) == "out of time"
    assert gpu.read_rows(tmp_path) == [{"step": "warm", "seconds": 1}]
    time.sleep(2.5)
    assert not (tmp_path / "outlived").exists()
    assert gpu.run_step("warm", 9, tmp_path, options, [sys.executable, "-c", "1 / 0"]) == "failed with code 1"
    assert "ZeroDivisionError" in (tmp_path / "log.txt").read_text()


def test_the_steps_fit_the_budget():
    assert sum(gpu.STEPS.values()) <= gpu.BUDGET <= 560


RIGHT = {"step": "right", "what": "stage 1", "ok": True, "error": 1e-7}


def model(direction, batch, ratio):
    facts = {"step": "models", "decides": True, "candidate": "reference"}
    return {**facts, "pass": direction, "batch": batch, "ratio": ratio}


@pytest.mark.parametrize(
    ("forward", "training", "words"),
    [
        ((1.3, 1.2), (1.1, 1.4), "cuda first on CUDA (forward at batch 8 1.30,"),
        ((1.3, 1.2), (1.0, 1.4), "cuda first on CUDA where nothing is learned"),
        ((1.3, 1.0), (1.2, 1.4), "cuda last"),
        ((1.3, 1.2), (), "no decision yet"),
        ((), (), "no decision: no model was measured"),
    ],
)
def test_the_rule(forward, training, words):
    rows = [model("forward", batch, ratio) for batch, ratio in zip((8, 128), forward, strict=False)]
    rows += [model("training", batch, ratio) for batch, ratio in zip((8, 128), training, strict=False)]
    assert gpu.decision([RIGHT, *rows]).startswith(words)
    assert gpu.decision(rows) == "no decision: nothing was checked"
    wrong = {**RIGHT, "what": "stage 2", "ok": False, "error": 0.5}
    assert gpu.decision([RIGHT, wrong, *rows]) == "cuda last: it is wrong at stage 2 (error 5.0e-01)"


def test_the_claims_are_read_off_the_rows(tmp_path):
    operator = {"step": "kernels", "part": "operator", "pass": "forward", "stage": "all"}
    rows = [
        operator | {"candidate": "cuda", "ms": 2.0},
        operator | {"candidate": "reference", "ms": 9.0},
        model("forward", 128, 1.5) | {"candidate": "timm", "large": True},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = {words: value for words, _, value in gpu.claims(gpu.read_rows(tmp_path))}
    assert found["operator forward, x plain PyTorch"] == 4.5
    assert found["model forward, x timm"] == 1.5
    assert found["model with backward, x timm"] is None
