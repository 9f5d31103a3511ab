"""The report is never half written."""

import pytest

from focalnet.engine import report
from focalnet.engine.report import write_report


def test_an_older_report_survives(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(path, title="old", summary={}, sections=[])
    before = path.read_bytes()

    def fail(path, content):
        assert content.startswith(b"<!DOCTYPE html>")
        raise OSError("disk full")

    monkeypatch.setattr(report, "write_atomically", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, title="new", summary={}, sections=[])
    assert path.read_bytes() == before
    monkeypatch.undo()
    write_report(path, title="new", summary={}, sections=[])
    assert b"new" in path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
