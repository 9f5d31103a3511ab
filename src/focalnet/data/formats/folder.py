"""Folders of image files: a folder per class, or train/ and val/ with such folders.

Validation may be called valid or validation, or test where none of these is; without it, the images are split when the
data is opened. Class folders follow torchvision's ImageFolder: classes and images in the plain order of their names,
images at any depth, links followed. Hidden files and files that are no images are left out, and one line of the log
counts them.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from focalnet.data.base import Openers, Request, Split
from focalnet.data.problems import endings, preview
from focalnet.data.splits import choose_splits
from focalnet.errors import UserError
from focalnet.inputs.image import EXTENSIONS, load_image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """Reads image files; an entry is a path."""

    def name(self, entry: str) -> str:
        return entry

    def read(self, entry: str) -> Image.Image:
        return load_image(entry)


def is_class_folders(source: str) -> bool:
    """Whether a source is a folder of two folders or more, in train/ where there is one."""
    root = Path(source).expanduser()
    folders = {folder.name: folder for folder in _folders(root)} if root.is_dir() else {}
    train, _ = choose_splits(folders)
    return len(folders if train is None else _folders(folders[train])) > 1


def find_class_folders(source: str, _: Request) -> Openers:
    """Find the class folders of a source, an existing path.

    Returns:
        what opens the splits; it raises UserError where there are no class folders, or one without an image.

    Raises:
        UserError: it is a file, or has a validation split only.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise UserError(f"{root.absolute()} is a file; give a folder of class folders, or .tar shards.")
    folders = {folder.name: folder for folder in _folders(root)}
    train, val = choose_splits(folders)
    if train is None:
        if val is not None and len(folders) == 1:
            raise UserError(f"{root.absolute()} has {val}/ but no train/; add it, or give {root / val}.")
        return Openers(partial(_class_folders, root, least=2), None)
    if others := sorted(set(folders) - {train, val}):
        log.warning("%s: beside %s and %s, left out: %s", root, train, val or "no validation", preview(others))
    if val is not None and val.lower() == "test" and not _folders(folders[val]):
        log.warning("%s has no class folders (the secret split of a contest?); left out", folders[val])
        val = None
    open_val = None if val is None else partial(_class_folders, folders[val], least=1)
    return Openers(partial(_class_folders, folders[train], least=2), open_val)


def _class_folders(root: Path, *, least: int) -> Split:
    folders = _folders(root)
    left_out = [entry.name for entry in root.iterdir() if not entry.is_dir()]
    if len(folders) < least:
        raise UserError(f"{root.absolute()} {_too_few(folders, left_out)}")
    files, names = [], []
    for folder in folders:
        other: list[str] = []
        found = sorted(_files(folder, other))
        if not found:
            what = f"only other files ({endings(other)})" if other else "no files at all"
            raise UserError(f"The class folder {folder.absolute()} holds no image, {what}: fill it or remove it.")
        files += [os.path.join(*entry) for entry in found]
        names += [folder.name] * len(found)
        left_out += other
    if left_out:
        log.info("%s: %d files that are hidden or no images left out: %s", root, len(left_out), endings(left_out))
    classes = tuple(folder.name for folder in folders)
    return Split(reader=Files(), entries=files, classes=classes, names=names)


def _too_few(folders: list[Path], files: list[str]) -> str:
    images = sum(Path(name).suffix.lower() in EXTENSIONS for name in files)
    if folders and len(_folders(folders[0])) > 1:
        return f"has one folder, {folders[0].name}; did you mean {folders[0]}?"
    if folders:
        return f"has one class folder, {folders[0].name}; a classifier needs two or more."
    if images:
        return f"holds {images} images but no class folders: put them into one folder per class."
    return "has no class folders: make one folder of images per class."


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(entry for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name))
    except OSError as error:
        raise _unreadable(error) from error


def _files(folder: Path, left_out: list[str]) -> Iterator[tuple[str, str]]:
    """(folder, name) of the images at any depth; the names of other files are appended to `left_out`."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        if os.path.realpath(root) in seen:  # a link to a folder above itself
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in files:
            if _is_hidden(name) or os.path.splitext(name)[1].lower() not in EXTENSIONS:
                left_out.append(name)
            else:
                yield root, name


def _refuse(error: OSError) -> None:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> UserError:
    return UserError(f"The folder {error.filename} cannot be read ({error.strerror}): check its permissions.")
