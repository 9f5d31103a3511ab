"""`focalnet check`, and the look at the data with which a training begins."""

import json

import numpy as np
import pytest
from PIL import Image

import focalnet
from command_line import run
from focalnet.engine import check as checks
from focalnet.engine.config import TrainConfig
from focalnet.engine.train import train
from focalnet.errors import UserError
from focalnet.inputs.folders import cache_folder
from focalnet.tasks.classify import Classify
from html_pages import Page
from scene_files import write_coco, write_panoptic, write_semantic

CONFIG = TrainConfig(epochs=1, batch_size=2, workers=0, precision="fp32", warmup_epochs=0.0)


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """A report costs more than these runs."""
    monkeypatch.setattr("focalnet.engine.train.write_run_report", lambda run, *_: (run.path / "report.html").touch())


@pytest.fixture
def images(tmp_path):
    """train/ and val/ of two classes, four and two images of each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (24, 20, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{number}.png")
    return tmp_path / "images"


def copy_over(images):
    Image.open(images / "train" / "cat" / "1.png").save(images / "val" / "cat" / "again.png")


def start(images, out, **options):
    options = {"check": "stop", "on_bad_image": "stop"} | options
    task = Classify(data=str(images), model="minifocal_32", augment="none", on_bad_image=options.pop("on_bad_image"))
    return train(task, CONFIG, out, **options)


def test_a_training_does_not_begin_with_what_is_wrong(images, tmp_path, caplog):
    (images / "train" / "cat" / "0.png").write_bytes(b"no image")
    copy_over(images)
    with pytest.raises(UserError) as caught:
        start(images, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "1 of 8 training images cannot be read; the first: " in str(caught.value)
    assert "1 of 5 validation images is in training too" in str(caught.value)
    assert "--on-bad-image skip" in str(caught.value)
    assert str(caught.value).endswith("To train all the same: --check warn.")
    run = start(images, tmp_path / "run", check="warn", on_bad_image="skip")
    assert len(run.rows()) == 1
    assert "1 of 5 validation images is in training too" in caplog.text


def test_how_images_are_read_is_told(images):
    for path in images.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path))[..., 0].astype(np.uint16) * 8).save(path)
    found = focalnet.check(images)
    assert any("have 16 bits, of whose 0 to 65535 only" in text for text in found.warnings)
    assert focalnet.check(images, range="percentile").warnings == []
    for path in images.rglob("*.png"):
        Image.fromarray(np.dstack([np.asarray(Image.open(path)).astype(np.uint8)] * 4)).save(path)
    assert any("channels" in text for text in focalnet.check(images, channels=2).errors)


def test_a_second_start_does_not_look_again(images, tmp_path, monkeypatch):
    Image.open(images / "train" / "cat" / "1.png").save(images / "train" / "cat" / "again.png")
    start(images, tmp_path / "first")
    first = focalnet.check(str(images))

    def no_look(*_):
        raise AssertionError("looked again")

    with monkeypatch.context() as patch:
        patch.setattr(checks, "look", no_look)
        start(images, tmp_path / "second")
        assert focalnet.check(str(images)) == first
    (images / "val" / "dog" / "1.png").write_bytes(b"no image")  # of another size, at another time
    with pytest.raises(UserError, match="1 of 4 validation images cannot be read"):
        start(images, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_a_damaged_cache_is_made_anew(images):
    first = focalnet.check(str(images))
    file = max(cache_folder("checks").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    file.write_text('{"kind": 3}')
    assert focalnet.check(str(images)) == first


def test_off_and_existing_runs_cost_no_look(images, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "look", None)
    start(images, tmp_path / "run", check="off")
    with pytest.raises(UserError, match="holds a run already"):
        start(images, tmp_path / "run")


def test_the_command(images, tmp_path, capsys):
    code, out, err = run(capsys, "check", images, "--out", tmp_path / "out")
    assert code == 0, err
    assert "nothing is wrong" in out
    assert str(tmp_path / "out" / "check.html") in out
    content = json.loads((tmp_path / "out" / "check.json").read_text())
    assert content["task"] == "classify"
    assert [split["images"] for split in content["splits"]] == [8, 4]
    copy_over(images)
    code, out, err = run(capsys, "check", images)
    assert code == 2
    assert "error: 1 of 5 validation images is in training too, pixel by pixel" in out
    assert "1 error, see above" in err
    code, out, err = run(capsys, "check", images, "--json")
    assert (code, len(json.loads(out)["errors"])) == (2, 1)
    code, out, err = run(capsys, "check", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    code, out, err = run(capsys, "train", "--data", images, "--model", "minifocal_32", "--out", tmp_path / "run")
    assert code == 2
    assert "--check warn" in err


WRITERS = {"detect": write_coco, "segment": write_semantic, "panoptic": write_panoptic}


@pytest.mark.parametrize("task", ["classify", "detect", "segment", "panoptic"])
def test_the_page_shows_every_task(task, images, tmp_path):
    if task != "classify":
        images = WRITERS[task](tmp_path / "scenes", train=4, val=2)
    assert checks.task_of_data(str(images)) == task
    found = focalnet.check(str(images), out=tmp_path / "out", model="small")
    assert (found.task, found.errors) == (task, [])
    page = Page((tmp_path / "out" / "check.html").read_bytes())
    assert {"Images", "Classes", "Labels", "What the augmentation makes of them"} <= set(page.texts)
    shown = 8 + 4 if task == "classify" else 4 + 2
    augmented = 4 * (8 if task == "classify" else 4)
    assert len(page.named("figure")) == shown + augmented


def test_options_of_the_check_are_checked(images):
    with pytest.raises(UserError, match=r"focalnet check: augment is 'imgaug', wanted is .*; give another value"):
        focalnet.check(images, augment="imgaug")
