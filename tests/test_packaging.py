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
    assert "Paper, https://arxiv.org/abs/2203.11926" in metadata.get_all("Project-URL")
    assert {"train", "dense", "audio", "tiff", "fast", "dev"} <= set(metadata.get_all("Provides-Extra"))
    assert metadata.get_payload().startswith("# focalnet")
    assert entries["console_scripts"]["focalnet"] == "focalnet.cli:main"
    assert "focalnet/py.typed" in names
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assert sources <= set(names)
    assert "focalnet/models/sizes.json" in names
    assert {f"focalnet/app/page/{path.name}" for path in (ROOT / "src/focalnet/app/page").iterdir()} <= set(names)
    check_installed(wheel, tmp_path)


def check_installed(archive: Path, folder: Path) -> None:
    """Install a wheel or a source archive into a folder, and run the command that it puts there."""
    target = folder / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(target), str(archive)], check=True, cwd=folder)
    script = "import focalnet; print(focalnet.__file__)"
    environment = {"PATH": "", "PYTHONPATH": str(target)}
    out = subprocess.check_output([sys.executable, "-c", script], text=True, cwd=folder, env=environment)
    assert out.strip() == str(target / "focalnet" / "__init__.py")
    command = target / "bin" / "focalnet"
    for arguments, wanted in ((["--version"], __version__), (["--help"], "focalnet train"), (["models"], "minifocal")):
        assert wanted in subprocess.check_output([command, *arguments], text=True, cwd=folder, env=environment)


@pytest.mark.slow
def test_the_source_archive(setuptools, tmp_path):
    source = backend("build_sdist", tmp_path)
    with tarfile.open(source) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "src/focalnet/py.typed"} <= names
    assert {"src/focalnet/_version.py", "src/focalnet/cli/__init__.py"} <= names
    check_installed(source, tmp_path)
