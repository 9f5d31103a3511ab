"""What is wrong with data is told in one sentence."""

import logging

import pytest

from focalnet.data.problems import Finding, Findings, Problems, settle
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
    assert line == "here: broken annotations: 2 things, left out (first: x); 1 other, clipped (first: z)"
    with pytest.raises(
        UserError, match=r"here has broken annotations: 2 things.*Mend them, or --on-bad-annotation skip"
    ):
        problems.report("here", "stop")


def test_worth_saying_never_stops(caplog):
    problems = Problems()
    problems.note("names with backslashes, read as a path", "a\\b", count=3)
    problems.report("here", "stop")
    assert caplog.messages == ["here: 3 names with backslashes, read as a path (first: a\\b)"]
    assert problems.take() == (Finding("names with backslashes, read as a path", 3, "a\\b", broken=False),)
    assert problems.take() == ()


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        (0, None, "here: 5 images, lost .first: i.. So none of 5 images are left in the validation split"),
        (4, None, "here: 5 images, lost .first: i.. So only 4 of 9 images are left in the validation split"),
        (5, 0, "here: 7 boxes, lost .first: b.; 2 lines, lost .first: l.. So none of 9 annotations are left"),
        (5, 8, "So only 8 of 17 annotations are left in the validation split, less than half"),
        (5, 9, None),
        (5, None, None),
    ],
)
def test_losses_have_a_limit(images, annotations, message, caplog):
    problems = Problems()
    problems.add("images, lost", "i", lost="images", count=5)
    problems.add("boxes, lost", "b", lost="annotations", count=7)
    problems.note("lines, lost", "l", lost="annotations", count=2)
    problems.add("boxes, clipped", "c", count=1000)
    findings = Findings(split="val", images=images, annotations=annotations, found=problems.take())
    assert (findings.lost("images"), findings.lost("annotations")) == (5, 9)
    if message is None:
        settle("here", [findings], "skip")
        assert len(caplog.messages) == 2
    else:
        with pytest.raises(UserError, match=message):
            settle("here", [findings], "skip")
        assert caplog.messages == []


def test_splits_are_told_together(caplog):
    found = [Findings(split=name, images=9, found=(Finding("boxes, clipped", 2, name),)) for name in ("train", "val")]
    settle("here", found, "skip")
    assert caplog.messages == ["here: broken annotations: 4 boxes, clipped (first: train)"]
