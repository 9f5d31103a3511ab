"""A run reads and sees images as its options say, and so do its evaluation, predictions and explanations."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focalnet.cli import main

tifffile = pytest.importorskip("tifffile")


def data(root: Path, kind: str) -> str:
    """Two classes of three noisy images: "five" bands, "dark" 12 bits, "wide" ones."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / kind / name).mkdir(parents=True)
        for number in range(3):
            path = root / kind / name / f"{number}.tif"
            if kind == "five":
                values = rng.integers(0, 255, (30, 40, 5)).astype(np.uint8)
                tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")
            elif kind == "dark":
                Image.fromarray(rng.integers(200, 4000, (40, 40)).astype(np.uint16)).save(path)
            else:
                Image.fromarray(rng.integers(0, 255, (40, 400, 3)).astype(np.uint8)).save(path)
    return str(root / kind)


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def train(source: str, out: Path, *options: object) -> dict:
    base = ("--model", "minifocal_32", "--epochs", 1, "--batch-size", 2, "--workers", 0, "--precision", "fp32")
    run("train", "--data", source, *base, "--val-fraction", 0.34, "--out", out, *options)
    return json.loads((out / "best" / "config.json").read_text())["preprocessing"]


def test_bands_from_training_to_explanation(tmp_path, capsys, caplog):
    source, out = data(tmp_path, "five"), tmp_path / "run"
    with pytest.raises(SystemExit):
        train(source, out)
    assert "has 5 channels, and the network takes 3" in capsys.readouterr().err
    assert not out.exists(), "the run has not begun"
    with pytest.raises(SystemExit):
        train(source, out, "--channels", 5, "--augment", "imagenet")
    assert "take another --augment" in capsys.readouterr().err
    how = train(source, out, "--channels", 5, "--normalize", "data", "--image-size", 16, 24)
    assert len(how["mean"]) == 5
    assert np.allclose([how["mean"], how["std"]], [[0.5] * 5, [0.29] * 5], atol=0.05)
    assert how["input_size"] == [16, 24]
    run("evaluate", out, "--workers", 0)
    run("predict", out, f"{source}/cat/0.tif", "--draw", tmp_path / "drawn")
    run("explain", out, f"{source}/cat/0.tif", "--out", tmp_path / "explained.png")
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 1
    assert np.load(tmp_path / "explained.npz")["image"].shape == (16, 24, 3)


@pytest.mark.slow
def test_what_would_be_misread_is_told_once(tmp_path, capsys, caplog):
    caplog.set_level(logging.WARNING, "focalnet")
    source = data(tmp_path, "dark")
    train(source, tmp_path / "one")
    assert sum("--range percentile" in record.getMessage() for record in caplog.records) == 1
    caplog.clear()
    assert train(source, tmp_path / "two", "--range", "percentile")["range"] == "percentile"
    run("predict", tmp_path / "two", f"{source}/cat/0.tif")
    run("evaluate", tmp_path / "two", "--workers", 0, "--data", source)
    assert not caplog.records
    source = data(tmp_path, "wide")
    train(source, tmp_path / "three")
    assert ["middle 10%" in record.getMessage() for record in caplog.records] == [True]
    caplog.clear()
    for view in ("squash", "pad"):
        assert train(source, tmp_path / view, "--resize", view)["view"] == view
    run("resume", tmp_path / "pad", "--epochs", 2)
    train(source, tmp_path / "four", "--image-size", 16, 160)
    run("explain", tmp_path / "four", f"{source}/cat/0.tif", "--out", tmp_path / "explained.png")
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--image-size", 5, 0), "--image-size is 5 0"),
        (("--mean", 0.5, 0.5, 0.5), "--mean and --std belong together"),
        (("--mean", 0.5, 0.5, 0.5, "--std", 0, 1, 1), "--std is 0.0 1.0 1.0"),
        (("--max-pixels", 0), "--max-pixels is 0"),
        (("--channels", 0), "--channels is 0"),
        (("--channels", 10**9), "--channels is 1,000,000,000; give at most 9,999"),
    ],
)
def test_options_out_of_range(tmp_path, capsys, options, sentence):
    with pytest.raises(SystemExit) as caught:
        train("digits", tmp_path / "run", *options)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err
