"""The report of a run: after every epoch and at the end, never half written, with what a reader wants to know."""

import numpy as np
import pytest
from PIL import Image

from focalnet.engine import report
from focalnet.engine.config import TrainConfig
from focalnet.engine.report import LiveReport, best_row, duration, write_run_report
from focalnet.engine.train import resume, train
from focalnet.engine.training import Position, merit
from focalnet.tasks.classify import Classify
from html_pages import Page


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes; one file is no image."""
    folder, rng = tmp_path_factory.mktemp("data") / "tints & <shades>", np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 160, (33, 35, 3)) + 90 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    (folder / "dark" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A run of three epochs that was killed in the third, with the pages of the first two, and resumed."""
    pages, patch, out = [], pytest.MonkeyPatch(), tmp_path_factory.mktemp("runs") / "run"
    task = Classify(data=str(images), model="minifocal_32", augment="none", image_size=32, on_bad_image="skip")
    original = LiveReport.write

    def write(self, details):
        original(self, details)
        pages.append((self.run.path / "report.html").read_bytes())
        if len(pages) == 2:
            raise StoppedError

    with patch.context() as patched:
        patched.setattr(LiveReport, "write", write)
        patched.setattr(report, "EXPECTED", 0.0)
        config = TrainConfig(epochs=3, batch_size=4, workers=0, precision="fp32", lr=1e-3)
        with pytest.raises(StoppedError):
            train(task, config, out, command="focalnet train --data 'tints & <shades>'")
    left = (out / "report.html").read_bytes()
    return resume(out), pages, left


def text(content):
    return " ".join(Page(content).texts)


def test_a_killed_run_has_the_report_of_its_last_epoch(run):
    _, pages, left = run
    assert left == pages[1] != pages[0]
    told = text(left)
    assert "under way: 2 of 3 epochs" in told
    assert "after epoch 2 of 3" in told
    assert "focalnet resume" in told
    assert "Figures after epoch 1." in text(pages[0])
    assert len(Page(pages[0]).named("img")) >= 3, "figures are drawn where they cost nothing"


def test_the_report_at_the_end(run, images):
    folder, *_ = run
    content = (folder.path / "report.html").read_bytes()
    told, best = text(content), best_row(folder.rows(), "top1")
    assert told.startswith("minifocal_32 on tints & <shades>")
    assert "focalnet train --data 'tints & <shades>'" in told
    assert "Share of the images whose likeliest class is the right one" in told
    assert f"after epoch {best['epoch']} of 3" in told
    assert f"on a sample of the training images it is {best['train_top1']:.4g}" in told
    assert f"focalnet predict {folder.path} IMAGE" in told
    assert "--epochs 6" in told
    assert "top-5" not in told
    assert str(images / "dark" / "broken.png") in told
    assert "finished" in told
    assert folder.skipped() == [str(images / "dark" / "broken.png")]


def test_every_mistake_names_its_file(run, images, monkeypatch):
    folder, *_ = run
    rows = [{"index": i, "label": 0, "predicted": 1, "confidence": 0.9, "loss": 2.0} for i in range(2)]
    dataset = Classify(data=str(images), on_bad_image="skip").datasets(0).val
    details = {"confusion": [[1, 2], [0, 1]], "worst": rows}
    write_run_report(folder, Classify(data=str(images)), dataset, {"top1": 0.5, "val_loss": 1.0}, details)
    told = text((folder.path / "report.html").read_bytes())
    assert "dark, taken for light (90%)" in told
    assert all(dataset[row["index"]].path in told for row in rows)
    assert "dark light 2 66.7%" in told, "confused classes"
    assert (folder.path / "plots" / "worst_mistakes.png").exists()


def test_an_older_report_survives(run, images, monkeypatch):
    folder, *_ = run
    before = (folder.path / "report.html").read_bytes()

    def fail(path, content):
        raise OSError("disk full")

    monkeypatch.setattr(report, "write_atomically", fail)
    with pytest.raises(OSError, match="disk full"):
        LiveReport(folder, Classify(data=str(images)), []).write({})
    assert (folder.path / "report.html").read_bytes() == before
    assert not list(folder.path.glob("*.new"))


def test_of_equal_scores_the_lower_loss_is_better():
    rows = [
        {"epoch": epoch, "top1": score, "val_loss": loss}
        for epoch, (score, loss) in enumerate([(0.5, 2.0), (0.9, 1.0), (0.9, 0.8), (0.9, 0.9), (0.8, 0.1)], 1)
    ]
    assert best_row(rows, "top1") == rows[2]
    at = Position()
    for row in rows:
        at = at.after(row, "top1", better=merit(row, "top1") > (at.best, -at.best_loss))
    assert (at.epoch, at.best_epoch, at.best, at.best_loss) == (5, 3, 0.9, 0.8)
    bare = [{"epoch": 1, "pq": 0.5}, {"epoch": 2, "pq": 0.5}]
    assert best_row(bare, "pq") == bare[0], "without a loss the earlier one stays"
    assert best_row([], "pq") is None


@pytest.mark.parametrize(("seconds", "words"), [([9.6], "10 s"), ([50, 80], "2 min 10 s"), ([7300], "2 h 1 min")])
def test_duration(seconds, words):
    assert duration([{"seconds": one} for one in seconds]) == words
