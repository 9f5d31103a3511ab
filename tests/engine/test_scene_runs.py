"""Runs of the detection and segmentation tasks: killed, resumed, on two processes, on bad data."""

import json
import subprocess

import pytest
import torch
from PIL import Image
from test_processes import two_processes
from test_resume import KILL, assert_same_run

from focalnet.cli import main
from focalnet.engine.evaluate import evaluate
from forked import run as focalnet
from scene_files import SIDE, WRITERS

TASKS = {
    "mask_rcnn": ("detect", 1e-2),
    "dino": ("detect", 1e-2),
    "atss": ("detect", 1e-2),
    "sparse_rcnn": ("detect", 1e-2),
    "cascade_mask_rcnn": ("detect", 1e-2),
    "upernet": ("segment", 1e-2),
    "mask2former": ("panoptic", 1e-2),
}
OPTIONS = (
    f"--recipe digit_scenes --image-size {SIDE} --epochs 2 --batch-size 4 --ema 0.9 --warmup-epochs 0 --lr 1e-3 "
    "--workers 0"
)
CUT = f"""
from focalnet.engine import training, train
train.SAVE_AT, train._agreed = 1, lambda *_: True
original, calls = training.Training.step, []
def step(self, *arguments):
    calls.append(1)
    if len(calls) == 5: {KILL}
    return original(self, *arguments)
training.Training.step = step
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return {task: write(tmp_path_factory.mktemp(task) / "data", 12, 5) for task, write in WRITERS.items()}


def arguments(data, out, head, *more):
    task = TASKS[head][0]
    model = f"{head}_minifocal_128"
    return ["train", "--task", task, "--model", model, "--data", data[task], "--out", out, *OPTIONS.split(), *more]


def assert_a_killed_run_resumes(folder, arguments):
    """`arguments` gives those of a training into a folder; the one killed between two checkpoints ends alike."""
    whole, killed = folder / "whole", folder / "killed"
    done = focalnet(*arguments(whole))
    assert done.returncode == 0, done.stderr
    assert focalnet(*arguments(killed), patch=CUT).returncode == -9
    assert not (killed / "evaluation.json").exists()
    done = focalnet("resume", killed)
    assert done.returncode == 0, done.stderr
    assert_same_run(whole, killed)
    assert "data:image/png" in (killed / "report.html").read_text()


def assert_two_processes_are_as_one(words, run, tolerance):
    """Two processes train into the folder `run`, and what they measure is what one measures."""
    command = [*two_processes(), "-m", "focalnet", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    best = json.loads((run / "evaluation.json").read_text())["metrics"]
    metrics = evaluate(str(run), batch_size=2, workers=0)
    for name, value in metrics.items():
        if "per_second" not in name:
            assert value == pytest.approx(best[name], abs=tolerance), name


@pytest.mark.slow
@pytest.mark.parametrize("head", TASKS)
def test_kill_9_and_resume(data, tmp_path, head):
    assert_a_killed_run_resumes(tmp_path, lambda out: arguments(data, out, head))


@pytest.mark.slow
@pytest.mark.parametrize("head", TASKS)
def test_two_processes_train_and_measure_as_one(data, tmp_path, head):
    words = arguments(data, tmp_path / "two", head, "--precision", "fp32")  # in which `measure` measures
    assert_two_processes_are_as_one(words, tmp_path / "two", TASKS[head][1] * 1e-3)


def test_the_results_of_a_run_fit_its_annotations(data, tmp_path):
    from faster_coco_eval import COCO, COCOeval_faster

    main([str(word) for word in arguments(data, tmp_path / "run", "mask_rcnn", "--epochs", 1)])
    names = json.loads((tmp_path / "run" / "config.json").read_text())["data"]["classes"]
    assert names == [f"digit {label}" for label in range(10)]
    metrics = evaluate(str(tmp_path / "run"), data=str(data["detect"]), workers=0, results=tmp_path / "answers")
    rows = json.loads((tmp_path / "answers" / "box.json").read_text())
    assert all(row["category_id"] % 3 == 0 for row in rows), "the ids of the file"
    truth = COCO(str(data["detect"] / "annotations" / "instances_val2017.json"))
    evaluation = COCOeval_faster(truth, truth.loadRes(rows), "bbox")
    evaluation.run()
    assert evaluation.stats[0] == pytest.approx(metrics["box_ap"], abs=1e-9)
    assert json.loads((tmp_path / "answers" / "mask.json").read_text())[0]["segmentation"]["size"] == [SIDE, SIDE]
    assert {path.name for path in (tmp_path / "run" / "results").iterdir()} == {"box.json", "mask.json"}


def spoil_json(folder):
    (folder / "annotations" / "instances_train2017.json").write_text("{")


def spoil_picture(folder):
    (folder / "train2017" / "103.png").write_bytes(b"no image")


def spoil_classes(folder):
    path = folder / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace("digit 7", "digit seven"))


def spoil_mask(folder):
    Image.new("L", (10, 10)).save(folder / "masks" / "train" / "3.png")


def spoil_pairs(folder):
    for path in (folder / "masks" / "train").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("task", "spoil", "options", "sentence"),
    [
        ("detect", spoil_json, [], "instances_train2017.json"),
        ("detect", spoil_picture, [], "103.png cannot be read as an image"),
        ("detect", spoil_classes, [], "digit seven"),
        ("detect", None, ["--num-classes", "3"], "--num-classes is 3, but"),
        ("detect", None, ["--model", "upernet_minifocal_128"], "--task detect trains mask_rcnn or "),
        ("detect", None, ["--model", "minifocal_128"], "--task detect trains mask_rcnn or "),
        ("detect", None, ["--recipe", "imagenet1k"], "The recipe imagenet1k is for --task classify, not for detect"),
        ("segment", spoil_mask, ["--on-bad-annotation", "stop"], "3.png"),
        ("segment", spoil_pairs, [], "masks"),
        ("segment", None, ["--batch-size", "1"], "batch"),
        ("panoptic", None, ["--model", "upernet_minifocal_128"], "--task panoptic trains mask2former"),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path, capsys, task, spoil, options, sentence):
    folder = WRITERS[task](tmp_path / "data", 12, 5)
    if spoil:
        spoil(folder)
    head = {"detect": "mask_rcnn", "segment": "upernet", "panoptic": "mask2former"}[task]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in arguments({task: folder}, tmp_path / "run", head, *options)])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert sentence in error
    assert "Traceback" not in error


def test_broken_pictures_are_skipped_and_counted(tmp_path, capsys):
    folder = WRITERS["detect"](tmp_path / "data", 12, 5)
    spoil_picture(folder)
    words = arguments({"detect": folder}, tmp_path / "run", "dino", "--on-bad-image", "skip", "--epochs", 1)
    main([str(word) for word in words])
    assert "1 sample could not be read and was skipped" in capsys.readouterr().out
    weights = torch.load(tmp_path / "run" / "last" / "state.pt")
    assert weights["position"]["epoch"] == 1
