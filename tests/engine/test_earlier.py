"""Run folders of earlier versions are read in today's names."""

import json

from focalnet.engine.config import TrainConfig
from focalnet.engine.optim.build import learning_rate
from focalnet.engine.record import load_run
from focalnet.engine.run import RunFolder

OLD = {
    "focalnet": "0.1.0",
    "recipe": "coco_1x",
    "task": {"name": "detect", "data": "coco", "model": "mask_rcnn_focalnet_tiny_lrf", "test_augment": False},
    "train": {"epochs": 12, "schedule": "step", "drop_at": [9, 11], "lr": 1.0, "warmup_epochs": 0.0},
    "data": {"training pictures": 12, "validation pictures": 5, "classes": ["a"]},
}


def old_run(folder, **changes):
    run = RunFolder.create(folder, {**OLD, **changes})
    (folder / "metrics.jsonl").write_text(
        '{"epoch": 1, "step": 7, "images_per_second": 3.5, "val_images_per_second": 4.5}\n'
    )
    return run


def test_options_facts_and_rows_have_the_names_of_today(tmp_path):
    run = old_run(tmp_path)
    assert run.config()["data"] == {"training samples": 12, "validation samples": 5, "classes": ["a"]}
    assert run.rows() == [{"epoch": 1, "step": 7, "samples_per_second": 3.5, "val_samples_per_second": 4.5}]
    task, config = load_run(run)
    assert (task.name, task.tta) == ("detect", False)
    assert config == TrainConfig(
        epochs=12, schedule="step", schedule_options={"milestones": [9, 11]}, lr=1.0, warmup_epochs=0
    )
    assert [learning_rate(config, step, 10) for step in (89, 90, 110)] == [1.0, 0.1, 0.1**2]


def test_options_that_were_used_are_kept_and_those_that_were_not_are_left_out(tmp_path):
    task = {**OLD["task"], "test_augment": True}
    train = {**OLD["train"], "schedule": "cosine", "drop_at": []}
    task, config = load_run(old_run(tmp_path, task=task, train=train))
    assert task.tta
    assert (config.schedule, config.schedule_options) == ("cosine", {})


def test_a_record_of_today_is_what_it_was(tmp_path):
    run = RunFolder.create(tmp_path, {"train": {"schedule_options": {"milestones": [3]}}, "data": {"classes": []}})
    assert run.config() == json.loads((tmp_path / "config.json").read_text())
