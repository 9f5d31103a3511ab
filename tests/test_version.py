"""One version number: the package, its metadata and the command line all read `_version.py`."""

import re
import tomllib
from pathlib import Path

import focalnet
from focalnet._version import __version__
from focalnet.cli import main

ROOT = Path(__file__).parents[1]


def test_one_number(capsys):
    assert focalnet.__version__ == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", __version__)
    main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"


def test_pyproject_reads_it():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in pyproject["project"]
    assert "version" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "focalnet._version.__version__"}


def test_the_number_can_be_read_without_the_package():
    """setuptools takes a plain assignment out of the source; anything else would import torch to build a wheel."""
    source = (ROOT / "src" / "focalnet" / "_version.py").read_text(encoding="utf-8")
    assert re.findall(r"^__version__ = \"([^\"]+)\"$", source, flags=re.MULTILINE) == [__version__]
