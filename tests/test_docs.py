"""The guide pages keep their word: every command and option exists, and code that needs no files runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from focalnet.cli import COMMANDS, main
from focalnet.cli.training import parse_train
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


EXECUTED = [pair for pair in blocks("python") if "runs/" not in pair[1] and pair[0] != "architecture.md"]


@pytest.mark.parametrize(("page", "code"), EXECUTED)
def test_python_runs(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_names_links_and_pictures_exist(page):
    for name in re.findall(
        r"`((?:mask_rcnn|cascade_mask_rcnn|dino|atss|sparse_rcnn|upernet|mask2former)_\w+)`", PAGES[page]
    ):
        if "focal" in name:
            parse_name(name)
    for path in re.findall(r"\]\(([^)h][^)]*)\)", PAGES[page]):
        assert (ROOT / "docs" / path.split("#")[0]).exists(), path
    assert "RESULTS" not in PAGES[page]


def test_what_we_say_we_have_is_shown_by_tests():
    """In the tables of compare.md every yes of ours is a link to a test that exists."""
    rows = [line.split("|")[1:-1] for line in PAGES["compare.md"].splitlines() if line.startswith("| ")]
    ours = [row[1].strip() for row in rows if row[0].strip() not in ("", "licence")]
    assert len(ours) > 20
    for cell in ours:
        if cell != "no":
            place, name = re.fullmatch(r"\[yes\]\(\.\./(tests/[\w/]+\.py)#(test_\w+)\)", cell).groups()
            assert f"\ndef {name}(" in (ROOT / place).read_text(), cell


def test_what_the_architecture_adds_from_outside_works(tmp_path):
    """Blocks that begin with a file's name are that file; the others run in turn, in a process of their own, because
    registers keep what is added."""
    runs = []
    for page, code in blocks("python"):
        if page == "architecture.md":
            named = re.match(r"# (\w+\.py)\n", code)
            (tmp_path / named[1]).write_text(code) if named else runs.append(code)
    assert len(runs) >= 3
    (tmp_path / "page.py").write_text("\n\n".join(runs))
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
