"""What is wrong with data is told in one sentence."""

import logging

import pytest

from focalnet.data.problems import Problems
from focalnet.errors import UserError


def test_problems_are_one_line(caplog):
    problems = Problems()
    problems.report("here", "stop")
    for example in ("x", "y"):
        problems.add("things, left out", example)
    problems.add("others, clipped", "z")
    with caplog.at_level(logging.WARNING):
        problems.report("here", "skip")
    (line,) = caplog.messages
    assert line == "here: broken annotations: 2 things, left out (first: x); 1 others, clipped (first: z)"
    with pytest.raises(
        UserError, match=r"here has broken annotations: 2 things.*Mend them, or --on-bad-annotation skip"
    ):
        problems.report("here", "stop")
