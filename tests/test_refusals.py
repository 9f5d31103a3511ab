"""Refusals tell the real reason, before a run folder is made."""

import json
import os
from pathlib import Path

import pytest

from class_files import fill
from focalnet.cli import COMMANDS, main
from scene_files import write_coco


def refused(capsys, tmp_path, *arguments):
    """What `focalnet train` says as it refuses, which leaves nothing behind."""
    with pytest.raises(SystemExit) as end:
        main(["train", "--out", str(tmp_path / "run"), *map(str, arguments)])
    assert end.value.code == 2
    assert not (tmp_path / "run").exists()
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def write_yolo(folder):
    fill(folder / "train", images=1)
    (folder / "train" / "labels").mkdir()
    (folder / "train" / "labels" / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("train: train/images\nval: train/images\nnames: [cat, dog]\n")
    return folder


def write_roboflow(folder):
    """One folder of images with their JSON inside."""
    write_coco(folder)
    (folder / "annotations" / "instances_train2017.json").rename(folder / "train2017" / "_annotations.coco.json")
    (folder / "train2017").rename(folder / "train")
    (folder / "annotations" / "instances_val2017.json").unlink()
    return folder


@pytest.mark.parametrize("write", [write_yolo, write_coco, write_roboflow])
def test_detection_data_given_to_a_classifier_names_the_task(capsys, tmp_path, write):
    assert "add --task detect." in refused(capsys, tmp_path, "--data", write(tmp_path / "data"), "--model", "small")


def test_class_folders_given_to_a_detector_name_the_task(capsys, tmp_path):
    data = fill(tmp_path / "data", cat=3, dog=3)
    said = refused(capsys, tmp_path, "--data", data, "--task", "detect", "--model", "small")
    assert "add --task classify." in said


def test_boxes_alone_under_a_network_of_masks(capsys, tmp_path):
    data = write_coco(tmp_path / "data")
    for file in data.glob("annotations/*.json"):
        content = json.loads(file.read_text())
        for note in content["annotations"]:
            note.pop("segmentation")
        file.write_text(json.dumps(content))
    said = refused(capsys, tmp_path, "--data", data, "--model", "mask_rcnn_minifocal_32")
    assert "has boxes and no masks, from which mask_rcnn_minifocal_32 learns; take --model atss_minifocal_32" in said


@pytest.mark.parametrize(
    ("task", "model", "example"),
    [
        ("segment", "mask_rcnn_minifocal_32", "upernet_minifocal_32"),
        ("detect", "minifocal_32", "mask_rcnn_minifocal_32"),
        ("classify", "dino_focalnet_large_fl4_5scale", "focalnet_large_fl4"),
    ],
)
def test_a_network_that_the_task_does_not_train(capsys, tmp_path, task, model, example):
    said = refused(capsys, tmp_path, "--task", task, "--model", model, "--weights", "None", "--data", "no/such/data")
    assert f"take for example --model {example}." in said


def test_a_folder_that_may_not_be_read(capsys, tmp_path, monkeypatch):
    """The folder is named, not what would have been looked for inside."""
    data = fill(tmp_path / "data", cat=1)

    def read(_):
        raise PermissionError(13, "Permission denied", str(data / "cat" / "annotations.json"))

    monkeypatch.setitem(COMMANDS, "models", read)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != data / "cat")  # root may read all
    with pytest.raises(SystemExit) as end:
        main(["models"])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"focalnet: {data / 'cat'}: permission denied; check the path and its rights.\n"
