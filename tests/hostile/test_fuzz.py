"""The pickle reader under coverage-guided fuzzing, by atheris; it changes files for ten minutes."""

import subprocess
import sys
from pathlib import Path

import pytest

MINUTES = 10


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 300)
def test_the_pickle_reader_holds(tmp_path):
    pytest.importorskip("atheris")
    script = Path(__file__).with_name("fuzz_pickles.py")
    command = [sys.executable, str(script), str(60 * MINUTES), str(tmp_path / "corpus")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("crash-*")) + list(tmp_path.glob("timeout-*")) + list(tmp_path.glob("oom-*"))
    assert "stat::number_of_executed_units" in done.stderr
