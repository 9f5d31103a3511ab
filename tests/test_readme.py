"""The README keeps its word: its commands run, its code runs, its table is the one that the library counts."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import focalnet
from focalnet.cli import main
from focalnet.models.catalogue import markdown_table
from focalnet.weights.hub import find

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHORT = ["--epochs", "1", "--image-size", "32", "--batch-size", "4", "--workers", "0"]
"""Added to `focalnet train`, so that the test ends today."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder as a reader of the README has it: flowers, an image, ImageNet, and a released file (random numbers)."""
    home = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)

    def picture(path: Path, shade: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (48, 48, 3)) + shade
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    for label, name in enumerate(("rose", "tulip")):
        for number in range(8):
            picture(home / "flowers" / name / f"{number}.jpg", 150 * label)
    picture(home / "image.jpg", 80)
    for name in ("goldfish", "tench"):
        for side in ("train", "val"):
            picture(home / "imagenet" / side / name / "0.jpg", 50)
    torch.save({"model": focalnet.create_model("focalnet_tiny_lrf").state_dict()}, home / "focalnet_tiny_lrf.pth")
    return home


@pytest.fixture
def reader(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(home / "hub"))
    cached = find("focalnet_tiny_lrf").local_path
    if not cached.exists():
        cached.parent.mkdir(parents=True)
        cached.write_bytes((home / "focalnet_tiny_lrf.pth").read_bytes())
    return home


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("focalnet ")]


def test_commands_run_in_order(reader, capsys):
    ran = 0
    for command in commands():
        arguments = shlex.split(command)[1:]
        main([*arguments, *(SHORT if arguments[0] == "train" else [])])
        ran += 1
    assert ran >= 8
    out = capsys.readouterr().out
    assert "tulip" in out
    for made in ("runs/flowers/report.html", "where.png", "where.npz", "timm.safetensors", "drawn/0000_image.png"):
        assert (reader / made).stat().st_size > 0


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(reader, code):
    exec(compile(code, "README.md", "exec"), {})


def test_table_is_the_one_that_the_library_counts():
    (table,) = re.findall(r"<!-- models -->\n(.*)\n<!-- /models -->", README, flags=re.DOTALL)
    assert table == markdown_table()


def test_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("bash")), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_pictures_exist():
    for path in re.findall(r"!\[[^]]+\]\(([^)]+)\)", README):
        assert (ROOT / path).stat().st_size > 1000
