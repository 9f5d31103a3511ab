"""Where the files of a YOLO data set lie: what describes it, its images, and the text file of each.

Paths are taken as written, relative to `path`, to the data.yaml, or without the ../ that Roboflow puts before them, and
in upper or lower case, as they are on disk.
"""

import glob
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from focalnet.data.problems import Problems, preview
from focalnet.data.splits import split_of
from focalnet.errors import UserError
from focalnet.inputs.folders import files_in, folders_in, is_ignored, locate
from focalnet.inputs.image import EXTENSIONS
from focalnet.reading import read_lines, shown

DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASS_LISTS = ("classes.txt", "obj.names")


def find_description(path: Path) -> Path | None:
    """The file in a folder that says what is in it: a data.yaml, or a list of classes that lies with text files."""
    if not path.is_dir():
        return None
    there = _by_name(path)
    for name in DESCRIPTIONS:
        if name in there:
            return there[name]
    labels = _folder(path, "labels")
    beside = _by_name(labels) if labels else {}
    texts = {name.removesuffix(".txt") for name in there if name.endswith(".txt")}
    named = next((files[name] for files in (there, beside) for name in CLASS_LISTS if name in files), None)
    inside = any(os.path.splitext(name)[0] in texts and os.path.splitext(name)[1] in EXTENSIONS for name in there)
    return named if labels or inside or _folder(path, "obj_train_data") else None


def _by_name(folder: Path) -> dict[str, Path]:
    """The files of a folder by their names in lower case."""
    with os.scandir(folder) as entries:
        return {one.name.lower(): Path(one.path) for one in entries if not is_ignored(one.name) and one.is_file()}


def _folder(root: Path, name: str) -> Path | None:
    return next((folder for folder in folders_in(root) if folder.name.lower() == name), None)


def split_folders(description: Path) -> dict[str, list[str]]:
    """The splits of a folder without a data.yaml: lists, or folders beside images/ or in it; else all are one.

    Args:
        description: the list of classes in the folder, or in labels/.
    """
    root = description.parent.parent if description.parent.name.lower() == "labels" else description.parent
    inside = [folder for name in ("images", "obj_train_data") if (folder := _folder(root, name))]
    splits = {file.stem: [str(file)] for file in root.glob("*.txt") if split_of(file.stem)}
    for folder in [child for parent in (root, *inside) for child in folders_in(parent)]:
        if split_of(folder.name):
            splits.setdefault(folder.name, [str(folder)])
    return splits or {"train": [str(folder) for folder in inside] or [str(root)]}


def list_images(fields: Mapping[str, Any], split: str, description: Path, problems: Problems) -> list[str]:
    """The images of a split, each once; of a list also those that are not there.

    Args:
        fields: of the data.yaml.
        split: the one of them that names the images.
        description: the data.yaml.
        problems: takes in what was found under another name.

    Raises:
        UserError: a folder or list is missing, or there are none.
    """
    entries = fields[split] if isinstance(fields[split], list) else [fields[split]]
    bases = _bases(fields.get("path"), description)
    found: list[str] = []
    for entry in map(str, entries):
        place = _place(entry, bases, description, problems)
        if place is None:
            files = (file for base in bases for file in glob.glob(os.path.join(base, entry), recursive=True))
            found += sorted(file for file in files if os.path.splitext(file)[1].lower() in EXTENSIONS)
        elif place.is_dir():
            found += map(str, files_in(place, EXTENSIONS))
        elif place.suffix.lower() in EXTENSIONS:
            raise UserError(f"{place} is no text file that lists images: mend {description}.")
        else:
            lines = [line for line in read_lines(place, mend=f"mend {description}") if line]
            located = locate(lines, [place.parent, *bases], problems.note)
            found += [path or os.path.join(place.parent, line) for line, path in zip(lines, located, strict=True)]
    if not found:
        raise UserError(f"{description}: {split} has no images ({preview(list(map(str, entries)))}).")
    return list(dict.fromkeys(map(os.path.normpath, found)))


def _bases(root: Any, description: Path) -> list[Path]:
    named = [description.parent / str(root), Path(str(root)).expanduser()] if root else []
    return [*named, description.parent]


def _place(entry: str, bases: Sequence[Path], description: Path, problems: Problems) -> Path | None:
    """Where an entry of a data.yaml lies; None of a pattern."""
    plain = entry.strip().replace("\\", "/")
    tries = [base / written for written in dict.fromkeys((entry.strip(), plain)) for base in bases]
    tries.append(description.parent / plain.removeprefix("../"))
    for place in tries:
        try:
            if place.exists():
                return place
        except (OSError, ValueError):  # a name that no file can have
            continue
    if glob.has_magic(entry):
        return None
    parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
    for names in (parts[start:] for start in range(len(parts))):
        if found := next(filter(None, (_below(base, names) for base in bases)), None):
            problems.note("entries that are spelled otherwise in the data.yaml", f"{entry} is {found}")
            return found
    named = entry if entry.isprintable() else shown(entry)
    raise UserError(f"{description} names {named}, but there is no {tries[0]}: check the path.")


def _label_folders(folder: str) -> tuple[str, ...]:
    """Where the text files of the images in a folder may lie, the likeliest first."""
    parts = Path(folder).parts
    tries: list[tuple[Path, Sequence[str]]] = []
    for index in reversed(range(len(parts))):
        if parts[index].lower() == "images":
            tries.append((Path(*parts[:index]), ("labels", *parts[index + 1 :])))
    parent = Path(folder).parent
    tries += [(Path(folder), ()), (Path(folder), ("labels",)), (parent, ("labels", parts[-1])), (parent, ("labels",))]
    return tuple(dict.fromkeys(str(found) for base, rest in tries if (found := _below(base, rest))))


def _below(folder: Path, names: Sequence[str]) -> Path | None:
    """What has these names inside a folder, in upper or lower case; None where there is nothing."""
    for name in names:
        try:
            alike = sorted(child for child in folder.iterdir() if child.name.lower() == name.lower())
        except OSError:
            return None
        if not alike:
            return None
        folder = folder / name if folder / name in alike else alike[0]
    return folder


def find_label_files(images: Sequence[str]) -> list[str | None]:
    """The text file of each image; None where there is none."""
    folders = cache(_label_folders)
    found: list[str | None] = []
    for folder, name in map(os.path.split, images):
        tries = (os.path.join(place, f"{os.path.splitext(name)[0]}.txt") for place in folders(folder))
        found.append(next((path for path in tries if os.path.isfile(path)), None))
    return found


def image_ids(files: Sequence[str]) -> list[str]:
    """The names of files without their endings, with the folders that tell them apart where names repeat."""
    stems = [os.path.splitext(os.path.basename(file))[0] for file in files]
    if len(set(stems)) == len(files):
        return stems
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    paths = [os.path.relpath(file, root).replace(os.sep, "/") for file in files]
    bare = [os.path.splitext(path)[0] for path in paths]
    return bare if len(set(bare)) == len(files) else paths
