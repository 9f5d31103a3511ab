"""Runs begun by earlier code: they go on to their end, are measured, predict and explain as they did then.

Numbers were recorded by that code (`fixtures/runs/make.py`) on one processor; another one rounds otherwise, so they are
near each other, and words and integers are equal. Training resizes pictures, and torch rounds those in another way
where a processor has no AVX2: there a resumed run comes near the recorded one only roughly.
"""

import pytest
import torch

import focalnet
import kept_runs
from kept_runs import FOLDER, RUNS, assert_near, read

TOLERANCE = {"rel": 1e-4, "abs": 2e-4}
ROUGHLY = {"rel": 0.05, "abs": 0.02}


@pytest.fixture(params=RUNS)
def kept(request, tmp_path, monkeypatch):
    """A copy of a run, and what is expected of it."""
    expected = read(FOLDER / request.param / "expected.json")
    return kept_runs.borrow(request.param, tmp_path, monkeypatch), expected


def test_a_kept_run_is_resumed_to_its_end(kept):
    run, expected = kept
    assert not (run / "report.html").exists()
    alike = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    assert_near(kept_runs.resume(run), expected["resume"], **(TOLERANCE if alike else ROUGHLY))
    assert "data:image/png" in (run / "report.html").read_text()


def test_a_kept_run_is_measured(kept):
    run, expected = kept
    assert_near(kept_runs.evaluate(run), expected["evaluate"], **TOLERANCE)


def test_a_kept_run_predicts(kept):
    run, expected = kept
    found = kept_runs.predict(run)
    assert_near(found, expected["predict"], **TOLERANCE)
    assert focalnet.Predictor(run, threshold=kept_runs.threshold(run))(kept_runs.picture(run)).to_dict() == found


def test_a_kept_run_is_explained(kept):
    run, expected = kept
    assert_near(kept_runs.explain(run), expected["explain"], **TOLERANCE)
