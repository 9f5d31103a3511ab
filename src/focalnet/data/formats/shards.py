"""Tar shards in webdataset's layout, with random access.

A sample is a group of neighbours with one key: `n01/0007.jpg` beside `n01/0007.cls` or `n01/0007.json`; the key ends
at the first dot of the file name. `.cls` holds a number or a class name; the JSON holds one under "label", "cls",
"class" or "class_name". A `classes.txt` beside the shards, one name per line, names the numbers.

Why it is our own: the package webdataset streams shards and shuffles in a buffer, so it has no random access, what a
run sees depends on its workers, and a run cannot be taken up exactly where it was. Here the headers are read once when
the data is opened (about 30 microseconds per file), and an image is then read at its offset: shuffling and resuming
are exact, as for folders. Shards must therefore be local and not compressed.

`train-000.tar` and `val-000.tar`, or folders train/ and val/, are the two splits.
"""

import glob
import os
import re
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from focalnet.data.base import Load, Openers, Request, Split
from focalnet.data.kinds import input_of, noun_of
from focalnet.data.problems import preview
from focalnet.data.splits import choose_splits, sort_labels, split_of
from focalnet.errors import UserError, counted
from focalnet.inputs.folders import folders_in, is_ignored
from focalnet.inputs.image import BadImageError, Signal, load_image
from focalnet.reading import parse_json, read_lines, regular

MOST_LABEL = 2**20
"""Bytes that are read of a member with a label."""
LONGEST = 1000
"""Most characters of a label."""
LABEL_FIELDS = ("label", "cls", "class", "class_name")


class Member(NamedTuple):
    """Where an image or a sound lies: a tar, its name in there, and its bytes."""

    tar: str
    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Shards:
    """Reads images or sounds out of tars; an entry is a `Member`."""

    def name(self, entry: Member) -> str:
        return f"{entry.tar}:{entry.name}"

    def read(self, entry: Member, load: Load = load_image) -> Signal:
        try:
            with open(entry.tar, "rb") as file:
                file.seek(entry.offset)
                data = file.read(entry.size)
        except OSError as error:
            raise BadImageError(f"{self.name(entry)} cannot be read ({error.strerror}): check the shard.") from error
        return load(data, name=self.name(entry))


def is_shards(source: str) -> bool:
    """Whether a source is a tar, a pattern that matches no folder, or a folder of tars."""
    path = Path(source).expanduser()
    if path.is_dir():
        return bool(_tars_inside(path))
    return bool({".tar", ".tgz"} & set(path.suffixes)) or (not path.exists() and bool(set("*?[{") & set(source)))


def _tars_inside(root: Path) -> list[Path]:
    """The tars of a folder and of its train/ and val/; none where folders of images lie beside them."""
    folders = folders_in(root)
    if all(split_of(folder.name) for folder in folders):
        inner = [path for folder in folders for path in _tars(folder)]
        return inner or ([] if folders else _tars(root))
    return []


def _tars(folder: Path) -> list[Path]:
    entries = [entry for entry in sorted(folder.iterdir()) if not is_ignored(entry.name)]
    if any(entry.is_dir() for entry in entries):
        return []
    return [entry for entry in entries if entry.suffix == ".tar"]


def expand(pattern: str) -> list[Path]:
    """The tars that a path with `{000..146}`, `{train,val}`, `*`, `?` or `[...]` stands for.

    Raises:
        UserError: a file is missing, or nothing matches.
    """
    paths = []
    for path in _braces(pattern):
        found = [path] if os.path.exists(path) else sorted(glob.glob(path))
        if not found:
            raise UserError(f"There is no shard {Path(path).absolute()}; check the pattern.")
        paths += map(Path, found)
    return paths


def _braces(pattern: str) -> list[str]:
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    if limits := re.fullmatch(r"(\d+)\.\.(\d+)", match[1]):
        first, last = limits.groups()
        items = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        items = match[1].split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return list(dict.fromkeys(path for item in items for path in _braces(before + item + after)))


def find_shards(source: str, request: Request) -> Openers:
    """Find local, uncompressed tars.

    Args:
        source: a folder of tars, a tar, or a pattern (`expand`).
        request: says whether images or sounds are looked for.

    Returns:
        what indexes the splits; the names of the shards or their folders tell which is which. It raises UserError
        where a shard is broken, compressed or not in webdataset's layout, or a label has no name.

    Raises:
        UserError: a shard is missing, or belongs to neither split.
    """
    root = Path(source).expanduser()
    paths = _tars_inside(root) if root.is_dir() else expand(str(root))
    splits: dict[str, list[Path]] = {}
    for path in paths:
        name = path.name.partition(".")[0]
        splits.setdefault(split_of(name) or split_of(path.parent.name) or name, []).append(path)
    train, val, test = choose_splits(splits, place=source)
    if train is None and (val is None or len(splits) < 2):
        return Openers(partial(_index, paths, request.kind), None)
    if others := sorted(set(splits) - {train, val, test}):
        names = [path.name for name in others for path in splits[name]]
        raise UserError(f"Beside the shards of train and val there are {preview(names)}: rename or leave them out.")
    once = {os.path.realpath(path) for path in splits[train]} if train else set()
    if twice := [path for path in splits[val] if os.path.realpath(path) in once] if val else []:
        raise UserError(f"{twice[0]} is a shard of the training and of the validation split: take it out of one.")

    def no_train() -> Split:
        raise UserError(f"{root.absolute()} has shards of {preview(sorted(splits))} but none of train: add them.")

    first, second, third = (
        partial(_index, splits[name], request.kind) if name else None for name in (train, val, test)
    )
    return Openers(first or no_train, second, third)


def _index(paths: list[Path], kind: str) -> Split:
    entries, labels = [], []
    for path in paths:
        members, found = _index_one(path, kind)
        entries += members
        labels += found
    classes = _listed_classes(paths)
    if classes:
        name_of = {str(number): name for number, name in enumerate(classes)} | {name: name for name in classes}
        for label, member in zip(labels, entries, strict=True):
            if label not in name_of:
                place = Shards().name(member)
                raise UserError(f"{place} has the label {label}, which classes.txt does not name; add it there.")
        labels = [name_of[label] for label in labels]
    return Split(reader=Shards(), entries=entries, classes=classes or sort_labels(labels), names=labels)


def _index_one(path: Path, kind: str) -> tuple[list[Member], list[str]]:
    noun, suffixes = noun_of(kind), input_of(kind).suffixes
    images: dict[str, Member] = {}
    labels: dict[str, str] = {}
    regular(path)
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, file = os.path.split(member.name)
                key, _, ending = file.partition(".")
                if not member.isreg() or not key or any(map(is_ignored, member.name.split("/"))):
                    continue
                key, ending = os.path.join(folder, key), ending.lower()
                if "." + ending in suffixes:
                    if key in images:
                        raise UserError(f"{path} holds two {noun}s for {key}; keep one per key.")
                    images[key] = Member(str(path), member.name, member.offset_data, member.size)
                elif ending in ("cls", "json"):
                    data = tar.extractfile(member)
                    assert data is not None  # it is a regular file
                    labels[key] = _label(data.read(MOST_LABEL), ending, f"{path}:{member.name}")
        _check_end(path, tar.offset)
    except UserError:
        raise
    except (tarfile.TarError, OSError, ValueError, ArithmeticError) as error:  # headers of nonsense have many
        reason = "a compressed tar has no random access, unpack it" if path.suffix != ".tar" else str(error)
        raise UserError(f"The shard {path.absolute()} cannot be read ({reason}).") from error
    if unlabelled := [member.name for key, member in images.items() if key not in labels]:
        raise UserError(
            f"{path.absolute()} holds {counted(len(unlabelled), f'{noun}s')} without a .cls or .json beside, for "
            f"example {unlabelled[0]}: it is not in webdataset's layout. Unpack an archive of class folders."
        )
    if not images:
        raise UserError(
            f"The shard {path.absolute()} holds no {noun}s; the key of a.b.jpg is a, its ending b.jpg, which is none."
        )
    return list(images.values()), [labels[key] for key in images]


def _check_end(path: Path, offset: int) -> None:
    # tarfile takes a broken or missing header for the end; the true end is a block of zeros.
    with open(path, "rb") as file:
        file.seek(offset)
        if file.read(512) != bytes(512):
            raise tarfile.ReadError(f"it is broken or cut off after byte {offset}")


def _label(data: bytes, ending: str, name: str) -> str:
    label = None
    try:
        text = data.decode("utf-8-sig")
        fields = {LABEL_FIELDS[0]: text} if ending == "cls" else parse_json(text, name)
        label = next((fields[field] for field in LABEL_FIELDS if field in fields), None)
    except (ValueError, TypeError):
        pass
    if isinstance(label, bool) or not isinstance(label, int | str) or len(str(label)) > LONGEST:
        raise UserError(f"{name} has no label; give a number or a name under one of {', '.join(LABEL_FIELDS)}.")
    return str(label).strip()


def _listed_classes(paths: list[Path]) -> tuple[str, ...] | None:
    for folder in dict.fromkeys(place for path in paths for place in (path.parent, path.parent.parent)):
        if (folder / "classes.txt").is_file():
            return tuple(line for line in read_lines(folder / "classes.txt") if line)
    return None
