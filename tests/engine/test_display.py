"""What a terminal shows of a run: one aligned line per epoch that fits it."""

import pytest
from rich.console import Console

from focalnet.engine.display import Display, clock

ROW = {
    "epoch": 7, "train_loss": 1.23456, "val_loss": 12345.6, "top1": 0.98765, "train_top1": 1.0, "lr": 1.234e-5,
    "samples_per_second": 1234.5, "seconds": 75.3,
}  # fmt: skip


def lines(width, rows):
    display = Display(100)
    display.console = Console(width=width, record=True, quiet=False)
    for number, row in enumerate(rows):
        display.epoch(row, f"{number + 1}/30", "top1", "top-1", better=number == 1)
    return display.console.export_text().splitlines()


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_lines_of_epochs_are_aligned_and_fit(width, capsys):
    head, first, second = lines(width, [ROW, ROW])
    assert all(len(line) <= width for line in (head, first, second))
    assert second == f"{first}  best".replace("1/30", "2/30", 1)
    assert len(head) == len(first), "the titles stand above their columns, right-aligned"
    names = ["epoch", "time", "loss", "val loss", "top-1", "in train", "lr", "samples/s"]
    shown = [name for name in names if name in head.replace("val loss", "val loss")]
    assert shown == names[: len(shown)]
    assert len(shown) == {30: 2, 60: 5, 80: 7, 100: 8, 200: 8}[width]


def test_a_row_may_lack_metrics(capsys):
    head, first, second = lines(100, [ROW, {k: v for k, v in ROW.items() if k != "train_top1"}])
    assert len(first) == len(head) == len(second.removesuffix("  best"))
    assert first.split() == ["1/30", "1:15", "1.2346", "1.23e+04", "0.9877", "1.0000", "1.2e-05", "1234"]


def test_skipped_files_are_told_once(capsys):
    display = Display(100)
    for paths in ([], ["a"], ["a"], ["a", "b"]):
        display.skipped(paths)
    assert capsys.readouterr().out.splitlines() == [
        "1 sample could not be read and was skipped, the first is a",
        "2 samples could not be read and were skipped, the first is a",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "0:04"), (75.3, "1:15"), (7261, "2:01:01")])
def test_clock(seconds, text):
    assert clock(seconds) == text
