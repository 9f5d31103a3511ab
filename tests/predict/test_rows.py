"""`--out found.jsonl`: whole rows whatever happens, what is there is not done again, and rows of others are refused."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import focalnet
from command_line import run
from focalnet.errors import UserError
from focalnet.inputs.video import VideoWriter
from focalnet.predict import Predictor
from focalnet.predict.rows import Rows
from focalnet.weights.files import checksum


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return focalnet.create_model("minifocal_32", classes=["cat", "dog", "emu"]).eval()


@pytest.fixture
def place(model, tmp_path):
    focalnet.save_pretrained(model, tmp_path / "model")
    (tmp_path / "images").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (36, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def film(path, frames=3):
    with VideoWriter(path, Fraction(5)) as writer:
        for shade in range(frames):
            writer.write(Image.new("RGB", (64, 48), (shade * 80,) * 3))


def sources(path):
    return [json.loads(line)["source"].rpartition("/")[2] for line in path.read_text().splitlines()]


def test_what_is_there_is_not_done_again(place, capsys, monkeypatch):
    found = place / "deep" / "found.jsonl"
    command = ["predict", place / "model", place / "images", "--out", found]
    assert run(capsys, *command) == (0, "", f"{found}: 5 predictions\n")
    whole = found.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [row["source"] for row in rows] == [str(place / "images" / f"{number}.png") for number in range(5)]
    assert rows[0]["label"] == rows[0]["top"][0]["label"]
    assert json.loads((place / "deep" / "found.options.json").read_text())["task"] == "classify"

    lines = whole.splitlines(keepends=True)
    found.write_text("".join(lines[:2]) + lines[2][:30])  # a kill in the third row
    seen = []
    predict = Predictor._predict
    monkeypatch.setattr(
        Predictor, "_predict", lambda self, signals, ready: seen.extend(signals) or predict(self, signals, ready)
    )
    code, _, err = run(capsys, *command)
    assert (code, len(seen), found.read_text()) == (0, 3, whole)
    assert err == f"{found}: 3 predictions, 2 of 5 sources were there\n"
    assert run(capsys, *command)[0] == 0
    assert (len(seen), found.read_text()) == (3, whole)

    (place / "images" / "5.png").write_text("no image")
    code, _, err = run(capsys, *command)
    assert (code, found.read_text()) == (2, whole)
    assert "5.png cannot be read" in err
    assert "1 of 6 could not be read" in err
    assert run(capsys, *command, "--on-bad-image", "skip")[0] == 0


def test_a_film_that_was_stopped_is_done_again(place, capsys):
    film(place / "a.mp4")
    film(place / "b.mp4")
    found = place / "found.jsonl"
    command = ["predict", place / "model", place / "a.mp4", place / "images" / "1.png", place / "b.mp4", "--out", found]
    assert run(capsys, *command)[0] == 0
    whole = found.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [row.get("last", False) for row in rows] == [False, False, True, False, False, False, True]
    found.write_text("".join(whole.splitlines(keepends=True)[:6]))
    assert "3 predictions, 2 of 3" in run(capsys, *command)[2]
    assert found.read_text() == whole


def test_drawings_go_on_with_their_numbers(place, capsys):
    found, drawn = place / "found.jsonl", place / "drawn"
    images = [place / "images" / f"{number}.png" for number in range(4)]
    for count in (2, 4):
        assert run(capsys, "predict", place / "model", *images[:count], "--out", found, "--draw", drawn)[0] == 0
    assert sorted(path.name for path in drawn.iterdir()) == [f"000{number}_{number}.png" for number in range(4)]
    assert [json.loads(line)["drawn"] for line in found.read_text().splitlines()] == sorted(
        path.name for path in drawn.iterdir()
    )


def test_rows_of_another_model_or_of_other_options_are_refused(place, model, capsys):
    found = place / "found.jsonl"
    command = ["predict", place / "model", place / "images", "--out", found]
    assert run(capsys, *command)[0] == 0
    before = found.read_text()
    code, _, err = run(capsys, *command, "--precision", "bf16")
    assert code == 2
    assert f"{found} was made with precision 'fp32', not 'bf16'; give another --out" in err
    torch.manual_seed(1)
    focalnet.save_pretrained(focalnet.create_model("minifocal_32", classes=["a", "b", "c"]), place / "other")
    assert "was made with other weights; give another --out" in run(capsys, "predict", place / "other", *command[2:])[2]
    (place / "found.options.json").unlink()
    assert "found.options.json, which says what made them, is gone" in run(capsys, *command)[2]
    assert found.read_text() == before
    for name in ("found.txt", "found"):
        assert "a name that ends in .jsonl" in run(capsys, *command[:-1], place / name)[2]


@pytest.mark.parametrize("line", ["[1]", "{", '{"label": "cat"}', '{"source": 3}', "\udcff"])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    path = tmp_path / "found.jsonl"
    path.write_text(f'{{"source": "a.png"}}\n{line}\n{{"source": "b.png"}}\n', errors="surrogateescape")
    (tmp_path / "found.options.json").write_text("{}")
    with pytest.raises(UserError, match=r"line 2 of .*found\.jsonl"):
        Rows(path, {})


def test_a_source_that_is_named_twice_is_done_twice(tmp_path):
    with Rows(tmp_path / "found.jsonl", {"weights": "x"}) as rows:
        rows.add({"source": "a.png"})
    with Rows(tmp_path / "found.jsonl", {"weights": "x"}) as rows:
        assert [rows.take(name) for name in ("a.png", "a.png", "b.png")] == [True, False, False]


def test_the_checksum_is_of_every_weight(model):
    assert checksum(model) == checksum(model)
    before = checksum(model)
    bias = next(value for name, value in model.named_parameters() if name.endswith("bias"))
    with torch.no_grad():
        bias[0] += 1e-6
    assert checksum(model) != before
    with torch.no_grad():
        bias[0] -= 1e-6
