"""Folders of files, of images, sounds or films: a folder per class, or train/ and val/ with such folders.

The splits may have any of their usual names (`splits.py`); without a validation split, the images are split when the
data is opened. Class folders follow torchvision's ImageFolder: classes and images in the plain order of their names,
images at any depth, links followed. Hidden files and files that are no images are left out, and one line of the log
counts them. Folders that hold the same folders are splits or a mistake, and never classes.
"""

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from focalnet.data.base import Load, Opener, Openers, Request, Split
from focalnet.data.formats.unread import refuse_unread
from focalnet.data.kinds import input_of, noun_of
from focalnet.data.problems import endings, preview
from focalnet.data.splits import Splits, choose_splits, split_of
from focalnet.errors import UserError, counted
from focalnet.inputs.folders import UNREAD, folders_in, is_ignored, walk
from focalnet.inputs.image import Signal, load_image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """Reads files; an entry is a path."""

    def name(self, entry: str) -> str:
        return entry

    def read(self, entry: str, load: Load = load_image) -> Signal:
        return load(entry)


def is_class_folders(source: str) -> bool:
    """Whether a source is a folder of two folders or more, in train/ where there is one."""
    root = Path(source).expanduser()
    folders = {folder.name: folder for folder in folders_in(root)} if root.is_dir() else {}
    try:
        train = _splits(folders).train
    except UserError:  # too many of them
        return True
    return len(folders if train is None else folders_in(_inside(folders[train]))) > 1


def find_class_folders(source: str, request: Request) -> Openers:
    """Find the class folders of a source, an existing path.

    Returns:
        what opens the splits; it raises UserError where there are no class folders, or one without an image.

    Raises:
        UserError: it is a file, or its folders look like splits, and it cannot be told which is which.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise UserError(f"{root.absolute()} is a file; give a folder of class folders, or .tar shards.")
    folders = {folder.name: folder for folder in folders_in(root)}
    train, val, test = _splits(folders)

    def opener(name: str, least: int) -> Opener:
        return partial(_class_folders, _inside(folders[name]), request, least=least)

    if train is None and (val is None or not set(folders) <= {val, test}):
        _refuse_splits(root, folders, input_of(request.kind).suffixes)
        return Openers(partial(_class_folders, root, request, least=2), None)
    if val == test and val is not None and not folders_in(folders[val]):
        log.warning("%s has no class folders (the secret split of a contest?); left out", folders[val])
        val = test = None
    openers = [opener(name, 1) if name else None for name in (val, test)]

    def open_train() -> Split:
        if train is None:
            raise UserError(f"{root.absolute()} has {val}/ but no train/; add it, or give {root / str(val)}.")
        if others := sorted(set(folders) - {train, val}):
            log.warning("%s: beside %s and %s, left out: %s", root, train, val or "no validation", preview(others))
        return opener(train, 2)()

    return Openers(open_train, *openers)


def _splits(folders: Mapping[str, Path]) -> Splits:
    """The folders that are splits; a folder of images between others is a class, whatever it is called."""
    place = next((folder.parent for folder in folders.values()), "")
    splits = choose_splits(folders, place=place, among_classes=True)
    if splits.train and not folders_in(folders[splits.train]) and any(split_of(name) is None for name in folders):
        return Splits(None, None, None)
    return splits


def _inside(folder: Path) -> Path:
    """The folder of the classes: archives unpack to seg_train/seg_train."""
    while len(inner := folders_in(folder)) == 1 and split_of(inner[0].name) == split_of(folder.name):
        folder = inner[0]
    return folder


def _refuse_splits(root: Path, folders: Mapping[str, Path], suffixes: Collection[str]) -> None:
    """Refuse folders as classes that are called like splits, or hold nothing but the same folders."""
    if len(folders) < 2:
        return
    names = preview(sorted(folders))
    mend = "Call them train and val, or give one of them."
    if all(split_of(name) for name in folders):
        raise UserError(f"The folders {names} in {root.absolute()} are called like splits, not classes. {mend}")
    inner = [{entry.name for entry in folders_in(folder)} for folder in folders.values()]
    most = max(inner, key=len)
    if len(most) > 1 and all(one and one <= most for one in inner) and not _any_has_files(folders.values(), suffixes):
        raise UserError(
            f"The folders {names} in {root.absolute()} hold the same folders ({preview(sorted(most))}): they look "
            f"like splits, not classes. {mend}"
        )


def _any_has_files(folders: Iterable[Path], suffixes: Collection[str]) -> bool:
    entries = (entry for folder in folders for entry in folder.iterdir())
    return any(entry.suffix.lower() in suffixes and not is_ignored(entry.name) for entry in entries)


def _class_folders(root: Path, request: Request, *, least: int) -> Split:
    noun, suffixes, problems = noun_of(request.kind), input_of(request.kind).suffixes, request.problems
    folders = folders_in(root)
    left_out = [str(entry) for entry in root.iterdir() if not entry.is_dir()]
    if len(folders) < least:
        refuse_unread(root)
        raise UserError(f"{root.absolute()} {_too_few(folders, left_out, noun, suffixes)}")
    files, names = [], []
    for folder in folders:
        other: list[str] = []
        found = sorted(walk(folder, suffixes, other.append))
        if not found:
            refuse_unread(root)
            what = f"only other files ({_endings(other)})" if other else "no files at all"
            raise UserError(f"The class folder {folder.absolute()} holds no {noun}, {what}: fill it or remove it.")
        files += [os.path.join(*entry) for entry in found]
        names += [folder.name] * len(found)
        left_out += other
    if left_out:
        lost = counted(len(left_out), f"files that are hidden or no {noun}s")
        log.info("%s: left out %s: %s", root, lost, _endings(left_out))
    for path in left_out:
        ending = os.path.splitext(path)[1].lower()
        if ending in UNREAD and noun == "image":
            problems.note("images of formats that are not read, left out", path, lost="images")
        elif ending in suffixes and not is_ignored(os.path.basename(path)) and os.path.dirname(path) != str(root):
            problems.note(f"{noun}s that lead to no file, left out", path, lost="images")
    classes = tuple(folder.name for folder in folders)
    return Split(reader=Files(), entries=files, classes=classes, names=names)


def _endings(paths: Sequence[str]) -> str:
    return endings([os.path.basename(path) for path in paths])


def _too_few(folders: list[Path], files: list[str], noun: str, suffixes: Collection[str]) -> str:
    bare = sum(Path(name).suffix.lower() in suffixes for name in files)
    if folders:
        deeper = folders[0]
        while len(inside := folders_in(deeper)) == 1:
            deeper = inside[0]
        if inside:
            return f"has one folder, {folders[0].name}; did you mean {deeper}?"
        return f"has one class folder, {folders[0].name}; a classifier needs two or more."
    if bare:
        return f"holds {counted(bare, f'{noun}s')} but no class folders: put them into one folder per class."
    return f"has no class folders: make one folder of {noun}s per class."
