"""What surrounds a network, measured: both steps are the same step, and rows compare round by round."""

from pathlib import Path

import pytest

from test_gpu_benchmark import load

overhead = load(Path(__file__).parents[1] / "benchmarks" / "overhead.py")


def test_both_steps_are_the_same():
    calls = overhead.steps("minifocal_32", batch=4, side=32)
    for _ in range(3):
        ours, bare = (call() for call in calls.values())
        assert ours == pytest.approx(bare, rel=1e-3)


def test_rows_compare_round_by_round():
    found = overhead.rows("start", {"base": [1.0, 2.0, 4.0], "a command": [2.0, 4.0, 4.0]}, "base", network="net")
    assert found == [
        {"part": "start", "network": "net", "what": "a command", "seconds": 4.0, "beside": "base", "ratio": 2.0}
    ]


def test_the_time_of_a_command_is_that_of_its_children():
    assert overhead.child_time(["/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]) > 0
    with pytest.raises(AssertionError, match="ended with"):
        overhead.child_time(["/bin/false"])
