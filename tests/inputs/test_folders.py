"""What is ignored in folders, and what written paths stand for."""

import os
from pathlib import Path

import pytest

from focalnet.errors import UserError
from focalnet.inputs.folders import files_in, folders_in, is_ignored, locate, walk


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    "name",
    [".git", "._0001.jpg", ".ipynb_checkpoints", "__MACOSX", "Thumbs.db", "THUMBS.DB", "desktop.ini", "@eaDir"],
)  # fmt: skip
def test_what_systems_lay_beside_data_is_ignored(name):
    assert is_ignored(name)


@pytest.mark.parametrize("name", [".", "..", "a.jpg", "_a.jpg", "thumbs", "a.b.c", "MACOSX"])
def test_data_is_not_ignored(name):
    assert not is_ignored(name)


def test_files_of_a_folder(tmp_path):
    """At any depth, through links, each folder once; what is no file is told."""
    root = touch(tmp_path / "data", "b.PNG", "a/z.png", "a/.hidden/x.png", "__MACOSX/a/z.png", "._b.png", "notes.txt")
    touch(tmp_path / "more", "c.png")
    (root / "a" / "link").symlink_to(tmp_path / "more")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "dead.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "pipe.png")
    assert [str(path.relative_to(root)) for path in files_in(root, {".png"})] == ["a/link/c.png", "a/z.png", "b.PNG"]
    assert [path.name for path in folders_in(root)] == ["a"]
    left_out: list[str] = []
    assert len(list(walk(root, {".png"}, left_out.append))) == 3
    names = sorted(os.path.basename(path) for path in left_out)
    assert names == ["._b.png", "dead.png", "notes.txt", "pipe.png"]
    with pytest.raises(UserError, match=r"nowhere cannot be read .No such file"):
        files_in(tmp_path / "nowhere", {".png"})


def located(root: Path, *names: str, roots: tuple[str, ...] = ("", "images")) -> tuple[list[str | None], list[str]]:
    notes: list[str] = []
    found = locate(names, [root / name for name in roots], lambda kind, example: notes.append(kind))
    return [path and os.path.relpath(path, root) for path in found], notes


def test_names_are_taken_as_they_are_first(tmp_path):
    touch(tmp_path, "a%20b.png", "images/c.png", "back\\slash.png")
    assert located(tmp_path, "a%20b.png", "c.png", "images/c.png", "back\\slash.png", str(tmp_path / "a%20b.png")) == (
        ["a%20b.png", "images/c.png", "images/c.png", "back\\slash.png", "a%20b.png"],
        [],
    )


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("images\\a b.png", "backslashes, read"),
        (".\\images\\a b.png", "backslashes, read"),
        ("images/a%20b.png", "%20 and the like, read"),
        ("images\\a%20b.png", "backslashes, read"),
        ("file://{root}/images/a b.png", "addresses, read"),
        ("file://{root}/images/a%20b.png", "addresses, read"),
        ("/data/local-files/?d=images/a b.png", "addresses, read"),
        (" images/a b.png\t", "blanks around them, read"),
        ("C:\\Users\\me\\set\\images\\a b.png", "first folders"),
        ("/home/me/set/a b.png", "first folders"),
        ("https://host/bucket/images/a%20b.png?key=1", "first folders"),
        ("s3://bucket/set/a b.png", "first folders"),
        ("../elsewhere/a b.png", "first folders"),
    ],
)
def test_names_of_other_tools(tmp_path, name, note):
    touch(tmp_path, "images/a b.png")
    found, notes = located(tmp_path, name.format(root=tmp_path))
    assert found == ["images/a b.png"]
    assert len(notes) == 1
    assert note in notes[0]


def test_two_names_are_never_one_file(tmp_path):
    touch(tmp_path, "images/x.png", "images/y.png", "images/z.png")
    found, notes = located(tmp_path, "a\\x.png", "b\\x.png", "y.png", "c\\y.png", "d\\z.png", "d\\z.png")
    assert found == [None, None, "images/y.png", None, "images/z.png", "images/z.png"]
    assert len(notes) == 2


@pytest.mark.parametrize("name", ["", "gone.png", "\0", "a\0b\\c", "%", "http://[x", "?d=", "x" * 5000, "images", "/"])
def test_names_of_nothing(tmp_path, name):
    touch(tmp_path, "images/x.png")
    assert located(tmp_path, name) == ([None], [])


def test_a_link_into_the_machine_is_left_out(tmp_path):
    """It leads to every file there is."""
    (tmp_path / "up").symlink_to("/proc/self")
    (tmp_path / "a.png").touch()
    left_out = []
    assert list(walk(tmp_path, {".png"}, left_out.append)) == [(str(tmp_path), "a.png")]
    assert left_out == [str(tmp_path / "up")]
