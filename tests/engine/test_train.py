"""What a run says and does when something is wrong with data, numbers or disk, and what it leaves behind."""

import errno
import json
import os
import shutil

import pytest
from PIL import Image

from class_files import dark_and_light
from focalnet.cli import main
from focalnet.engine import run as run_module
from focalnet.errors import UserError

OPTIONS = "--model minifocal_32 --weights None --image-size 32 --epochs 1 --batch-size 4 --workers 0"


@pytest.fixture
def pictures(tmp_path):
    return dark_and_light(tmp_path / "pictures", (33, 35), dark=6, light=6)


def train(capsys, pictures, *options, command="train"):
    """Exit code, standard output and standard error."""
    out = pictures.parent / "run"
    arguments = (
        ["train", "--data", str(pictures), "--out", str(out), *OPTIONS.split()]
        if command == "train"
        else [command, str(out)]
    )
    try:
        main([*arguments, *options])
        code = 0
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_run_leaves_a_folder_that_is_enough(capsys, pictures):
    assert train(capsys, pictures)[0] == 0
    run = pictures.parent / "run"
    for name in ("config.json", "metrics.jsonl", "report.html", "evaluation.json", "plots/curves.png",
                 "plots/confusion_matrix.png", "plots/where_it_looks.png"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    for checkpoint in ("last", "best"):
        assert json.loads((run / checkpoint / "config.json").read_text())["classes"] == ["dark", "light"]
    report = (run / "report.html").read_text()
    assert "data:image/png;base64," in report
    assert "http" not in report.replace("http-equiv", "")
    code, out, _ = train(capsys, pictures, command="evaluate")
    assert code == 0
    assert "top1" in out
    code, out, _ = train(capsys, pictures, "--json", command="predict")
    assert code == 0
    assert {json.loads(line)["label"] for line in out.splitlines()} <= {"dark", "light"}


def test_a_bad_picture_stops_the_run_with_its_path(capsys, pictures):
    (pictures / "dark" / "7.png").write_bytes(b"not an image")
    code, _, err = train(capsys, pictures, "--val-fraction", "0.1")
    assert code == 2
    assert "dark/7.png" in err
    assert "--on-bad-image skip" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("workers", ["0", "1"])
def test_bad_pictures_are_skipped_and_counted(capsys, pictures, workers):
    (pictures / "dark" / "7.png").write_bytes(b"not an image")
    code, out, _ = train(capsys, pictures, "--on-bad-image", "skip", "--batch-size", "10", "--workers", workers)
    assert code == 0
    assert "1 sample could not be read and was skipped, the first is" in out


def test_a_loss_that_is_no_number_names_its_step(capsys, pictures):
    code, _, err = train(capsys, pictures, "--lr", "1e30", "--epochs", "4", "--warmup-epochs", "0")
    assert code == 2
    assert "The loss is nan at step" in err
    assert "lower --lr" in err


def test_a_run_that_fails_before_its_first_checkpoint_leaves_no_folder(capsys, pictures, monkeypatch):
    def refuse(*arguments):
        raise UserError("a batch that cannot be learned from.")

    with monkeypatch.context() as patched:
        patched.setattr("focalnet.engine.training.Training.step", refuse)
        assert train(capsys, pictures)[0] == 2
    assert not (pictures.parent / "run").exists()
    assert train(capsys, pictures)[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr("focalnet.engine.training.Training.step", refuse)
        assert train(capsys, pictures, "--epochs", "2", command="resume")[0] == 2
    assert (pictures.parent / "run" / "last").exists()


def test_an_evaluation_needs_the_split_it_uses(capsys, pictures, caplog):
    """Of the run's own data or of other data, by the command line."""
    for split, numbers in (("train", range(3)), ("val", range(3, 5)), ("test", range(5, 6))):
        for name in ("dark", "light"):
            (pictures / split / name).mkdir(parents=True)
            for number in numbers:
                (pictures / name / f"{number}.png").rename(pictures / split / name / f"{number}.png")
    for name in ("dark", "light"):
        (pictures / name).rmdir()
    assert train(capsys, pictures)[0] == 0
    figures = {}
    for split in ("val", "test", "train"):
        json_file = pictures.parent / "metrics.json"
        assert train(capsys, pictures, "--split", split, "--json", str(json_file), command="evaluate")[0] == 0
        figures[split] = json.loads(json_file.read_text())["val_loss"] if split != "train" else None
    shutil.rmtree(pictures / "train")
    assert train(capsys, pictures, "--json", str(json_file), command="evaluate")[0] == 0
    assert json.loads(json_file.read_text())["val_loss"] == pytest.approx(figures["val"])
    assert "The training split cannot be opened" in caplog.text
    assert train(capsys, pictures, command="predict")[0] == 0
    for split, expected in (("val", "val"), (None, "val"), ("test", "test")):
        more = ("--split", split) if split else ()
        options = ("--data", str(pictures), *more, "--json", str(json_file))
        assert train(capsys, pictures, *options, command="evaluate")[0] == 0
        assert json.loads(json_file.read_text())["val_loss"] == pytest.approx(figures[expected])
    code, _, err = train(capsys, pictures, "--split", "train", command="evaluate")
    assert (code, "has val/ but no train/" in err) == (2, True)
    shutil.rmtree(pictures / "val" / "dark")
    shutil.rmtree(pictures / "val" / "light")
    code, _, err = train(capsys, pictures, command="evaluate")
    assert (code, "val/ but no train/" in err) == (2, True), "the first reason, where nothing can be evaluated"


def test_data_that_changed_under_a_run(capsys, pictures):
    assert train(capsys, pictures)[0] == 0
    (pictures / "grey").mkdir()
    Image.new("RGB", (33, 33), "grey").save(pictures / "grey" / "0.png")
    code, _, err = train(capsys, pictures, "--epochs", "2", command="resume")
    assert code == 2
    assert "The data changed since the run began" in err


@pytest.mark.parametrize(("code", "sentence"), [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "cannot be written")])
def test_a_disk_that_takes_no_more_loses_nothing(capsys, pictures, monkeypatch, code, sentence):
    assert train(capsys, pictures)[0] == 0
    before = (pictures.parent / "run" / "last" / "state.pt").read_bytes()

    def refuse(path, content):
        if path.name == "state.pt":
            raise OSError(code, os.strerror(code), str(path))
        return original(path, content)

    original = run_module._write
    monkeypatch.setattr(run_module, "_write", refuse)
    exit_code, _, err = train(capsys, pictures, "--epochs", "2", command="resume")
    assert exit_code == 2
    assert sentence in err
    assert (pictures.parent / "run" / "last" / "state.pt").read_bytes() == before
    monkeypatch.setattr(run_module, "_write", original)
    assert train(capsys, pictures, command="resume")[0] == 0


def test_a_corrupted_checkpoint_names_the_whole_one(capsys, pictures):
    assert train(capsys, pictures)[0] == 0
    file = pictures.parent / "run" / "last" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    code, _, err = train(capsys, pictures, "--epochs", "2", command="resume")
    assert code == 2
    assert "model.safetensors has" in err
    assert "--checkpoint best" in err
    assert train(capsys, pictures, "--epochs", "2", "--checkpoint", "best", command="resume")[0] == 0


def test_a_run_needs_the_weights_that_it_started_from_no_more(capsys, pictures):
    import focalnet

    focalnet.save_pretrained(focalnet.create_model("minifocal_32", num_classes=7), pictures.parent / "start")
    assert train(capsys, pictures, "--weights", str(pictures.parent / "start"))[0] == 0
    shutil.rmtree(pictures.parent / "start")
    assert train(capsys, pictures, "--epochs", "2", command="resume")[0] == 0
    assert train(capsys, pictures, command="evaluate")[0] == 0


def test_a_process_may_change_its_precision_between_runs():
    from focalnet.engine.devices import build_accelerator

    assert [build_accelerator(precision).mixed_precision for precision in ("fp32", "bf16", "fp32")] == [
        "no", "bf16", "no",
    ]  # fmt: skip


def test_an_evaluation_on_training_images_is_told(capsys, pictures, caplog):
    assert train(capsys, pictures)[0] == 0
    code, out, _ = train(capsys, pictures, "--data", str(pictures), "--workers", "0", command="evaluate")
    assert (code, "top1" in out) == (0, True)
    assert "10 of 12 samples are those that" in caplog.text
    caplog.clear()
    moved = pictures.parent / "others"
    shutil.copytree(pictures, moved)
    assert train(capsys, pictures, "--data", str(moved), "--workers", "0", command="evaluate")[0] == 0
    assert "samples are those" not in caplog.text


def test_an_image_size_is_refused_before_there_is_a_folder(capsys, pictures):
    for size in (("7",), ("7", "64")):
        code, _, err = train(capsys, pictures, "--image-size", *size)
        assert code == 2
        assert "--image-size is 7; minifocal_32 needs" in err
        assert not (pictures.parent / "run").exists()
