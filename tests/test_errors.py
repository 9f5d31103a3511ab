"""Sentences for users: what is counted agrees with its number."""

import pytest

from focalnet.errors import agreeing, counted, first_line


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("images", "image"),
        ("missing images, left out", "missing image, left out"),
        ("boxes of no area, left out", "box of no area, left out"),
        ("categories that only group others", "category that only groups others"),
        ("run-length codes that do not fill the image", "run-length code that does not fill the image"),
        ("boxes that reach out of the image, clipped", "box that reaches out of the image, clipped"),
        ("objects that occur twice", "object that occurs twice"),
        ("lines that are no box and no polygon", "line that is no box and no polygon"),
        ("masks with ids that have no class", "mask with ids that have no class"),
        ("classes", "class"),
        ("validation images", "validation image"),
        ("PNG files of segments of another size than the image", "PNG file of segments of another size than the image"),
        ("images whose text file cannot be read", "image whose text file cannot be read"),
    ],
)
def test_one_of_many(many, one):
    assert counted(1, many) == f"1 {one}"
    for count in (0, 2, 12):
        assert counted(count, many) == f"{count} {many}"


def test_verbs():
    assert [agreeing(1, verb) for verb in ("are", "have", "do", "say", "pass", "cannot")] == [
        *("is", "has", "does", "says", "passes", "cannot"),
    ]
    assert agreeing(0, "are") == agreeing(2, "are") == "are"


def test_what_another_library_says_is_one_plain_line():
    assert first_line(ValueError("\n\x1b[96mstep 3\x1b[0m failed\nfor this")) == "step 3 failed"
    assert first_line(KeyError()) == "KeyError"
