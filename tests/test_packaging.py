"""What is installed: a wheel and a source archive that build, with types, version, licence and the command."""

import configparser
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from focalnet._version import __version__

ROOT = Path(__file__).parents[1]


def test_the_citation_has_the_version_and_the_paper():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Yang", "Li", "Dai", "Yuan", "Gao"]
    assert (paper["year"], paper["url"]) == (2022, "https://arxiv.org/abs/2203.11926")


def backend(hook: str, folder: Path) -> Path:
    """The file that a hook of the build backend makes, from a copy of the project without what git ignores."""
    source = folder / "source"
    source.mkdir()
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, listed):
        if name.startswith(("src/", "pyproject.toml", "README.md", "LICENSE")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    script = f"from setuptools import build_meta; print('made', build_meta.{hook}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=source, check=True, capture_output=True, text=True)
    return folder / done.stdout.split("made ")[-1].strip()


@pytest.fixture(scope="module")
def setuptools():
    module = pytest.importorskip("setuptools")
    if int(module.__version__.split(".")[0]) < 77:
        pytest.skip("pyproject.toml asks for setuptools 77")


@pytest.mark.slow
def test_the_wheel(setuptools, tmp_path):
    wheel = backend("build_wheel", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        entries = configparser.ConfigParser()
        entries.read_string(archive.read(f"{info}/entry_points.txt").decode())
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "MIT"
    assert entries["console_scripts"]["focalnet"] == "focalnet.cli:main"
    assert "focalnet/py.typed" in names
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assert sources <= set(names)
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True)
    script = "import focalnet; from focalnet.cli import main; print(focalnet.__file__); main(['--version'])"
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(target)!r}); {script}"]
    out = subprocess.check_output(run, text=True, cwd=tmp_path, env={"PATH": ""}).split()
    assert out == [str(target / "focalnet" / "__init__.py"), __version__]


@pytest.mark.slow
def test_the_source_archive(setuptools, tmp_path):
    with tarfile.open(backend("build_sdist", tmp_path)) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "src/focalnet/py.typed"} <= names
    assert {"src/focalnet/_version.py", "src/focalnet/cli/__init__.py"} <= names
