"""The guide pages keep their word: every command and option exists, and code that needs no files runs."""

import re
import shlex
from pathlib import Path

import pytest

from focalnet.cli import COMMANDS, main, parse_train
from focalnet.models.registry import parse_name

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md") if path.name != "log.md"}


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (page, block)
        for page, text in PAGES.items()
        for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    ]


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for _, block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("focalnet ")]


@pytest.mark.parametrize("command", commands())
def test_commands_exist_with_their_options(command, capsys):
    name, *arguments = shlex.split(command)[1:]
    if name == "train":
        parse_train(arguments)
        return
    assert name in COMMANDS
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    for option in re.findall(r"--[a-z-]+", command):
        assert option in text, option


@pytest.mark.parametrize(("page", "code"), [pair for pair in blocks("python") if "runs/" not in pair[1]])
def test_python_runs(page, code):
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_names_links_and_pictures_exist(page):
    for name in re.findall(r"`((?:mask_rcnn|dino|upernet|mask2former)_\w+)`", PAGES[page]):
        if "focal" in name:
            parse_name(name)
    for path in re.findall(r"\]\(([^)h][^)]*)\)", PAGES[page]):
        assert (ROOT / "docs" / path).exists(), path
    assert "RESULTS" not in PAGES[page]
