"""The table of families and formats: what the page shows is what was measured, and what is measured again."""

import importlib.util
from pathlib import Path

import pytest

from focalnet.errors import MissingExtraError
from focalnet.exporting.formats import WRITERS
from focalnet.models.registry import FAMILIES
from test_gpu_benchmark import load

formats = load(Path(__file__).parents[1] / "benchmarks" / "formats.py")
MEASURED = {(row.family, row.format): row for row in formats.read()}
CLOSE = (
    "classifier", "backbone", "mask_rcnn", "cascade_mask_rcnn", "atss", "dino", "upernet", "mask2former",
    "video_focalnet",
)  # fmt: skip
"""Families whose files are as close as rounding allows."""
EVERYWHERE = ("torch", "onnx", "openvino")


def test_every_family_has_a_network():
    assert set(formats.NETWORKS) == set(FAMILIES)


def test_every_network_and_step_was_measured():
    assert {(family, kind) for family in formats.ROWS for kind in EVERYWHERE} <= set(MEASURED)


def test_the_page_shows_what_was_measured():
    page = formats.PAGE.read_text()
    assert formats.START + formats.table(formats.read()) + formats.END in page


def test_the_promised_files_are_there_and_close():
    for family in CLOSE:
        for kind in EVERYWHERE:
            row = MEASURED[family, kind]
            assert row.refused is None, row
            assert row.difference <= 1e-5, row
    for row in MEASURED.values():
        assert row.agree is None or row.agree[0] == row.agree[1] > 0, row


def same(row, kept):
    """What is measured on another processor: all but the digits of the difference."""
    assert (row.family, row.format, row.free, row.agree) == (kept.family, kept.format, kept.free, kept.agree)
    assert (row.refused is None) == (kept.refused is None)
    if row.difference is not None:
        assert row.difference <= max(10 * kept.difference, 1e-6)


def test_a_row_is_what_is_measured():
    (row,) = formats.measure("classifier", ["torch"])
    same(row, MEASURED["classifier", "torch"])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("family", sorted({family for family, kind in MEASURED if kind in EVERYWHERE}))
def test_all_rows_are_what_is_measured(family):
    for row in formats.measure(family, EVERYWHERE):
        same(row, MEASURED[family, row.format])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(importlib.util.find_spec("executorch") is None, reason="executorch has an environment of its own")
@pytest.mark.parametrize("family", sorted({family for family, kind in MEASURED if kind == "executorch"}))
def test_rows_of_phones_are_what_is_measured(family):
    (row,) = formats.measure(family, ["executorch"])
    same(row, MEASURED[family, "executorch"])


@pytest.mark.skipif(importlib.util.find_spec("executorch") is not None, reason="executorch is installed")
def test_without_executorch_the_extra_is_named():
    with pytest.raises(MissingExtraError, match=r"focalnet\[mobile\]"):
        WRITERS["executorch"](None, None, None)
