"""Where labelled images come from: one string in, a training and a validation side out.

    nothing, or "digits"                 scikit-learn's handwritten digits (`digits.py`)
    a folder of class folders            split here, each class by itself
    a folder with train/ and val/        as it is; val may be called valid or validation, or test where none of these is
    a folder, pattern or file of tars    webdataset layout (`shards.py`)
    org/name or hf:name                  a data set on the hub (`hf.py`)
    a folder of the `datasets` package   saved by `save_to_disk`, parquet files, or images with a metadata file

Class folders follow torchvision's ImageFolder: classes and images in the plain order of their names, images at any
depth, links followed. Hidden files and files that are no images are left out, and one line of the log counts them.
"""

import difflib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from focalnet.data.base import (
    OnBadImage,
    Part,
    Pictures,
    choose_splits,
    endings,
    preview,
    stratified_split,
)
from focalnet.data.formats import digits, shards
from focalnet.data.formats import hub as hf
from focalnet.errors import UserError
from focalnet.inputs.image import EXTENSIONS, load_image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassificationData:
    """The two sides of a classification data set.

    Attributes:
        classes: names in the order of the labels.
        train: what is learned from.
        val: what is measured on; labels index the same classes.
        description: where the data came from and how it was split, one sentence.
    """

    classes: tuple[str, ...]
    train: Pictures
    val: Pictures
    description: str


def open_classification(
    source: str | None, *, val_fraction: float, seed: int, on_bad_image: OnBadImage
) -> ClassificationData:
    """Open labelled images for training.

    Args:
        source: see the table on top of this module; None for the digits.
        val_fraction: share of each class set aside where the source has no validation side of its own.
        seed: of that split. The digits are always split the same way.
        on_bad_image: an image that cannot be read stops the run, or is skipped (`Images`).

    Returns:
        both sides; no image is decoded yet.

    Raises:
        UserError: nothing there, fewer than two classes, a class without images, or classes in validation that
            training does not have. The message names the place.
    """
    train, val = _open(source)
    classes, place = train.classes, source or "digits"
    if len(classes) < 2:
        raise UserError(f"{place} has {len(classes)} class ({preview(classes)}); a classifier needs two or more.")
    if unseen := sorted(set(train.classes) - set(train.names)):
        log.warning("%s: no image to train on for %s", place, preview(unseen))
    if val is None:
        kept, held_out = stratified_split(train.names, val_fraction, seed)
        train, val = train.take(kept), train.take(held_out)
        how = f"set aside, share {val_fraction}, seed {seed}"
    else:
        _check_classes(val, classes, f"the validation side of {place}", "the training side")
        if missing := [name for name in classes if name not in set(val.names)]:
            log.warning("%s: no validation image for %s; validated without", place, preview(missing))
        how = "its own split"
    description = (
        f"{place}: {len(classes)} classes, {len(train.where)} training and {len(val.where)} validation images ({how})"
    )
    return ClassificationData(
        classes, Pictures(train, classes, on_bad_image), Pictures(val, classes, on_bad_image), description
    )


def open_evaluation(
    source: str | None, classes: Sequence[str] | None, num_classes: int, *, on_bad_image: OnBadImage
) -> Pictures:
    """Open images to measure a trained model on: the validation side if the source has one, else everything.

    Labels follow the names of the model's classes, whatever their order in the source. Where the model has no names,
    or none of them is in the source (English names, and ImageNet's folders n01440764 and so on), the classes of the
    source count in their order, and there must be `num_classes` of them.

    Args:
        source, on_bad_image: as in `open_classification`.
        classes: names of the model's classes in the order of its logits, or None.
        num_classes: of the model.

    Raises:
        UserError: nothing there, or classes that the model does not have.
    """
    train, val = _open(source)
    part, place = val or train, source or "digits"
    if len(train.classes) == num_classes and not set(train.classes) & set(classes or ()):
        if classes is not None:
            log.warning("%s: no class is called as in the model; taken for the same %d in order", place, num_classes)
        classes = train.classes
    if classes is None:
        raise UserError(
            f"{place} has {len(train.classes)} classes, the model {num_classes} without names: give as many."
        )
    _check_classes(part, classes, place, "the model")
    return Pictures(part, classes, on_bad_image)


def _check_classes(part: Part, known: Sequence[str], place: str, owner: str) -> None:
    if strange := sorted(set(part.names) - set(known)):
        raise UserError(
            f"{place} has classes that {owner} does not have: {preview(strange)}; known: {preview(known)}. "
            f"Give both the same class names."
        )


def _open(source: str | None) -> tuple[Part, Part | None]:
    if source is None or source == "digits":
        if source and Path(source).exists():
            raise UserError('"digits" means the digits inside scikit-learn; for the folder here write ./digits.')
        return digits.open_digits()
    if source.startswith("hf:"):
        return hf.open_hub(source.removeprefix("hf:"))
    path = Path(source).expanduser()
    if path.is_dir():
        if hf.is_saved(path):
            return hf.open_saved(path)
        if files := shards.find_shards(path):
            return shards.open_shards(files)
        return open_folder(path)
    if {".tar", ".tgz"} & set(path.suffixes) or (not path.exists() and set("*?[{") & set(source)):
        return shards.open_shards(shards.expand(str(path)))
    if path.exists():
        raise UserError(f"{path.absolute()} is a file; give a folder of class folders, or .tar shards.")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not path.parent.exists():
        return hf.open_hub(source)
    raise _missing(path)


def _missing(path: Path) -> UserError:
    path = path.absolute()
    parent = next(folder for folder in path.parents if folder.is_dir())
    wanted = path.relative_to(parent).parts[0]
    near = difflib.get_close_matches(wanted, [entry.name for entry in parent.iterdir()], n=1)
    hint = f"did you mean {parent / near[0]}?" if near else f"the nearest folder that exists is {parent}."
    return UserError(
        f"There is no {path} (a folder of class folders, a folder with train/ and val/, or .tar shards); {hint} "
        f"A data set of the hub is written org/name or hf:name."
    )


@dataclass(frozen=True)
class Files:
    """Reads image files; `where` is a path."""

    def name(self, where: str) -> str:
        return where

    def read(self, where: str) -> Image.Image:
        return load_image(where)


def open_folder(root: Path) -> tuple[Part, Part | None]:
    """Open a folder of class folders, or one with train/ and val/.

    Args:
        root: an existing folder.

    Returns:
        the training side, and the validation side if there is one.

    Raises:
        UserError: no class folders, or a class folder without an image.
    """
    folders = {folder.name: folder for folder in _folders(root)}
    train, val = choose_splits(folders)
    if train is None:
        if val is not None and len(folders) == 1:
            raise UserError(f"{root.absolute()} has {val}/ but no train/; add it, or give {root / val}.")
        return _class_folders(root, least=2), None
    if others := sorted(set(folders) - {train, val}):
        log.warning("%s: beside %s and %s, left out: %s", root, train, val or "no validation", preview(others))
    if val is not None and val.lower() == "test" and not _folders(folders[val]):
        log.warning("%s has no class folders (the secret side of a contest?); left out", folders[val])
        val = None
    return _class_folders(folders[train], least=2), None if val is None else _class_folders(folders[val], least=1)


def _class_folders(root: Path, *, least: int) -> Part:
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
    return Part(Files(), files, names, tuple(folder.name for folder in folders))


def _too_few(folders: list[Path], files: list[str]) -> str:
    pictures = sum(Path(name).suffix.lower() in EXTENSIONS for name in files)
    if folders and len(_folders(folders[0])) > 1:
        return f"has one folder, {folders[0].name}; did you mean {folders[0]}?"
    if folders:
        return f"has one class folder, {folders[0].name}; a classifier needs two or more."
    if pictures:
        return f"holds {pictures} images but no class folders: put them into one folder per class."
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
