"""A few images are learned by the bare command, with no download; so are a few boxes and label maps."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import focalnet
from command_line import run
from scene_files import WRITERS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "small_data.py"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_classes_of_216_images_are_learned(tmp_path):
    spec = importlib.util.spec_from_file_location("small_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = module.make(tmp_path / "crops")
    # with a network within reach, the bare command would fetch released weights
    row = module.measure(folder, tmp_path / "run", 0, "--weights", "None")
    assert row["top1"] >= 0.93


@pytest.fixture
def begun(monkeypatch):
    """What runs would train with: task and options; none of them makes a step."""
    seen = []

    def fit(task, config, run, *_):
        seen.append((task, config))
        return run

    monkeypatch.setattr("focalnet.engine.train._fit", fit)
    return seen


@pytest.mark.parametrize("task", ["detect", "segment", "panoptic"])
def test_a_few_dense_images_fill_steps_and_epochs(task, tmp_path, capsys, begun):
    """Fewer images than a batch of the recipe: 6, in 3 batches of 2."""
    folder = WRITERS[task](tmp_path / "data", 6, 2)
    words = ["train", "--task", task, "--data", folder, "--model", "small", "--weights", "None"]
    code, _, err = run(capsys, *words, "--out", tmp_path / "run")
    assert code == 0, err
    (options, config), record = begun[0], focalnet.Run(tmp_path / "run").config
    assert options.model.endswith("_minifocal_128")
    assert record["recipe"].startswith("scratch_")
    assert (config.batch_size, config.epochs) == (2, 300)
    assert options.weights is None


def write_yolo(folder, outlines):
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{number}.png")
            line = "0 0.2 0.2 0.6 0.2 0.6 0.6" if outlines else "0 0.4 0.4 0.4 0.4"
            (folder / "labels" / split / f"{number}.txt").write_text(line)
    (folder / "data.yaml").write_text("names: [thing]\ntrain: images/train\nval: images/val\n")
    return folder


def test_boxes_alone_choose_a_network_that_learns_from_them(tmp_path, capsys, caplog, begun):
    caplog.set_level("INFO", "focalnet")
    boxes, outlines = write_yolo(tmp_path / "boxes", False), write_yolo(tmp_path / "outlines", True)
    words = ["train", "--task", "detect", "--model", "small", "--weights", "None"]
    assert run(capsys, *words, "--data", boxes, "--out", tmp_path / "one")[0] == 0
    assert "has boxes and no masks, from which mask_rcnn_minifocal_128 learns" in caplog.text
    assert begun[-1][0].model == "atss_minifocal_128"
    focalnet.train(data=boxes, task="detect", model="small", weights=None, out=tmp_path / "two")
    assert begun[-1][0].model == "atss_minifocal_128"
    assert run(capsys, *words, "--data", outlines, "--out", tmp_path / "three")[0] == 0
    assert begun[-1][0].model == "mask_rcnn_minifocal_128"
    # a network that was asked for is not changed
    words = ["train", "--model", "mask_rcnn_minifocal_128", "--weights", "None"]
    code, _, err = run(capsys, *words, "--data", boxes, "--out", tmp_path / "four")
    assert code == 2
    assert "take --model atss_minifocal_128, which learns from boxes" in err
