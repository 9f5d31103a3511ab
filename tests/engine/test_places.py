"""A run knows where its data and weights are, from whatever folder it is used, and takes no path for a hub id."""

import json
import shutil

import pytest

import focalnet
from command_line import run
from focalnet.data.formats import hub
from focalnet.data.register import locate_source
from focalnet.engine.lock import lock_run
from focalnet.weights.sources import located

OPTIONS = "--model minifocal_32 --image-size 32 --epochs 1 --batch-size 8 --workers 0 --augment none"


def metrics(capsys, *arguments):
    code, _, err = run(capsys, "evaluate", *arguments, "--workers", 0, "--json", "metrics.json")
    assert code == 0, err
    with open("metrics.json") as file:
        return {name: value for name, value in json.load(file).items() if "second" not in name}


@pytest.fixture
def trained(tmp_path, pictures, monkeypatch, capsys):
    """A run that was begun with relative paths to data and weights, both of which look like names of the hub."""

    def refuse(*_):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("focalnet.weights.sources.download_folder", refuse)
    monkeypatch.setattr(hub, "_datasets", refuse)
    shutil.copytree(pictures, tmp_path / "my" / "pets")
    focalnet.save_pretrained(focalnet.create_model("minifocal_32", num_classes=2), tmp_path / "my" / "start")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ["--data", "my/pets", "--weights", "my/start", "--out", "run", *OPTIONS.split()]
    assert run(capsys, "train", *words)[0] == 0
    return tmp_path / "run"


def test_every_command_works_from_another_folder(trained, tmp_path, monkeypatch, capsys):
    config = json.loads((trained / "config.json").read_text())
    assert config["task"]["data"] == str(tmp_path / "my" / "pets")
    assert config["task"]["weights"] == str(tmp_path / "my" / "start")
    before = metrics(capsys, "run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert metrics(capsys, "../run") == before
    assert run(capsys, "predict", "../run", "--json")[1].count("my/pets") == 4
    assert run(capsys, "resume", "../run", "--epochs", 2)[0] == 0

    (tmp_path / "my" / "pets").rename(tmp_path / "moved")
    for command in ("evaluate", "predict", "explain"):
        code, _, err = run(capsys, command, "../run")
        assert code == 2
        assert f"was trained on {tmp_path}/my/pets, which is not there" in err
    code, _, err = run(capsys, "resume", "../run", "--epochs", 3)
    assert (code, "which is not there" in err) == (2, True)
    (trained / "report.html").unlink()
    moved = metrics(capsys, "../run", "--data", "../moved")
    assert (trained / "report.html").exists()
    assert moved.keys() == before.keys()
    assert run(capsys, "resume", "../run", "--epochs", 3, "--data", "../moved")[0] == 0
    assert json.loads((trained / "config.json").read_text())["task"]["data"] == str(tmp_path / "moved")
    assert len((trained / "metrics.jsonl").read_text().splitlines()) == 3

    (tmp_path / "moved" / "light" / "0.png").unlink()
    code, _, err = run(capsys, "resume", "../run", "--epochs", 4, "--data", "../moved")
    assert code == 2
    assert "The data changed since the run began: training samples were 20 and are" in err
    assert "is other data, or start a new run" in err


def test_a_run_that_another_process_works_on_is_not_resumed(trained, capsys):
    before = (trained / "last" / "state.pt").read_bytes()
    with lock_run(trained):
        code, _, err = run(capsys, "resume", trained)
        assert code == 2
        assert "is being trained in this process: wait" in err
        code, _, err = run(capsys, "train", "--out", trained)
        assert code == 2
        assert "holds a run already" in err
    assert (trained / "last" / "state.pt").read_bytes() == before


def test_an_old_run_with_relative_paths_works_where_it_was_made_and_never_asks_the_hub(
    trained, tmp_path, monkeypatch, capsys
):
    path = trained / "config.json"
    config = json.loads(path.read_text())
    config["task"] |= {"data": "my/pets", "weights": "my/start"}
    path.write_text(json.dumps(config))
    before = metrics(capsys, "run")
    for name in ("last", "best"):
        (trained / name).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = run(capsys, "resume", "../run")
    assert code == 2
    assert f"was trained on {tmp_path}/elsewhere/my/pets, which is not there" in err
    code, _, err = run(capsys, "resume", "../run", "--data", "../my/pets")
    assert code == 2
    assert f"{tmp_path}/elsewhere/my/start" in err
    for name in ("last", "best"):
        (tmp_path / name).rename(trained / name)
    monkeypatch.chdir(tmp_path)
    assert metrics(capsys, "run") == before
    assert run(capsys, "resume", "run", "--epochs", 2)[0] == 0


def test_what_a_source_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for source, typed, recorded in (
        (None, None, None), ("digits", None, None), ("hf:org/name:a", "hf:org/name:a", "hf:org/name:a"),
        ("org/name", "hf:org/name", f"{tmp_path}/org/name"), ("here", f"{tmp_path}/here", f"{tmp_path}/here"),
        ("here/gone", f"{tmp_path}/here/gone", f"{tmp_path}/here/gone"),
        ("s/{0..3}.tar", f"{tmp_path}/s/{{0..3}}.tar", f"{tmp_path}/s/{{0..3}}.tar"),
    ):  # fmt: skip
        assert locate_source("class", source) == typed
        assert locate_source("class", source, recorded=True) == recorded
        assert locate_source("class", typed, recorded=True) == typed
    assert locate_source("detection", "org/name") == f"{tmp_path}/org/name"


def test_what_weights_mean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.pth").touch()
    for weights, typed, recorded in (
        ("official", "official", "official"), ("b.pth", f"{tmp_path}/b.pth", f"{tmp_path}/b.pth"),
        ("org/name", "hf-hub:org/name", f"{tmp_path}/org/name"), ("timm/focalnet_tiny_srf.ms_in1k",) * 3,
        ("hf-hub:org/name",) * 3, ("gone.pth",) * 3, ("focalnet_tiny_srf.pth",) * 3,
    ):  # fmt: skip
        assert located(weights) == typed
        assert located(weights, recorded=True) == recorded
        assert located(typed, recorded=True) == typed
