"""What COCO's formats share: the JSON file of a split, its categories, its images, and where all of them lie.

annotations/instances_train2017.json beside train2017/, any year     COCO
train/_annotations.coco.json, valid/_annotations.coco.json           a Roboflow export
a .json file                         the images lie beside it, in images/, or where its paths say
"""

import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from focalnet.data.base import Openers, Split
from focalnet.data.formats.unread import refuse_unread
from focalnet.data.problems import Problems, preview, some, whole
from focalnet.data.sizes import fit_sizes, read_size
from focalnet.data.splits import choose_splits, split_of
from focalnet.errors import UserError
from focalnet.inputs.folders import folders_in, is_file, is_ignored, locate
from focalnet.reading import DATA, parse_json, read_text, shown

Files = tuple[Path, list[Path]]
"""A JSON file, and the folders where its images may lie."""

ROBOFLOW = "_annotations.coco.json"
OTHERS = ("instances", "panoptic", "stuff", "captions", "person_keypoints", "image_info")
"""What the names of COCO's own files begin with."""
IMAGE_FOLDERS = ("images", "imgs", "img", "data", "jpegimages")
"""Folders of images, in lower case."""


def is_json(source: str, stem: str) -> bool:
    """Whether a source is a JSON file, or a folder with one for `stem`: "instances" or "panoptic"."""
    path = Path(source).expanduser()
    if path.is_dir():
        return bool(_by_folder(path, stem) or _json_files(path, stem))
    return path.suffix == ".json" and path.is_file()


def find_json(source: str, stem: str, open_file: Callable[..., Split]) -> Openers:
    """Find the JSON files of the splits.

    Args:
        source: an existing JSON file or folder.
        stem: what the names in annotations/ begin with: "instances" or "panoptic".
        open_file: (JSON file, folders where its images may lie) -> the split.

    Raises:
        UserError: no JSON file, or several among which there is no choice.
    """
    path = Path(source).expanduser()
    train, val, test = _files(path, stem)

    def open_train() -> Split:
        if train is None:
            raise UserError(f"{path.absolute()} has a validation split only; add annotations/{stem}_train2017.json.")
        return open_file(*train)

    second, third = (partial(open_file, *files) if files else None for files in (val, test))
    return Openers(open_train, second, third)


def _by_folder(path: Path, stem: str) -> dict[str, Path]:
    """The JSON file of each folder that has one: Roboflow's; else in a folder called as a split the only one."""
    folders = folders_in(path)
    found = {folder.name: folder / ROBOFLOW for folder in folders if (folder / ROBOFLOW).is_file()}
    if found or _json_files(path, stem):
        return found
    inside = {folder.name: _json_files(folder, stem) for folder in folders if split_of(folder.name)}
    return {name: files[0] for name, files in inside.items() if len(files) == 1}


def _json_files(path: Path, stem: str) -> list[Path]:
    files = sorted([*path.glob("*.json"), *path.glob("annotations/*.json")])
    files = [file for file in files if not is_ignored(file.name)]
    named = [file for file in files if file.name.startswith(stem)]
    return named or [file for file in files if not file.name.startswith(OTHERS)]


def _files(path: Path, stem: str) -> tuple[Files | None, Files | None, Files | None]:
    """The files of training, validation and test."""
    if path.is_file():
        return (path, _image_folders(path, stem)), None, None
    found = _by_folder(path, stem)
    if any(chosen := choose_splits(found, place=path)):
        first, second, third = ((found[name], _image_folders(found[name], stem)) if name else None for name in chosen)
        return first, second, third
    files = _json_files(path, stem)
    named = [file for file in files if split_of(file.stem)] or files
    by_split = {name: [file for file in named if split_of(file.stem) == name] for name in ("train", "val", "test")}
    if len(named) == 1 and not any(by_split.values()):
        by_split["train"] = named
    if not named or any(len(found) > 1 for found in by_split.values()) or not any(by_split.values()):
        refuse_unread(path)
        what = f"the JSON files {preview([file.name for file in files])}" if files else "no JSON file of annotations"
        raise UserError(
            f"{path.absolute()} has {what}; wanted are annotations/{stem}_train2017.json and, if there is one, "
            f"annotations/{stem}_val2017.json: give such a folder, or one JSON file."
        )
    first, second, third = (
        (found[0], _image_folders(found[0], stem)) if found else None for found in by_split.values()
    )
    return first, second or third, third


def _image_folders(file: Path, stem: str) -> list[Path]:
    split = file.stem.removeprefix(f"{stem}_")
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    usual = [root / split, root / "images" / split, root / "images", root, file.parent]
    inside = [folder for folder in folders_in(root) if folder.name.lower() in IMAGE_FOLDERS]
    alike = [
        folder
        for place in (root, *inside)
        for folder in folders_in(place)
        if split_of(folder.name) is not None
        and split_of(folder.name) == split_of(split)
        and not folder.name.startswith(OTHERS)
    ]
    return list(dict.fromkeys([*usual, *alike, *inside]))


def load_json(path: Path, fields: Sequence[str]) -> dict[str, Any]:
    """The content of a JSON file, which must be an object with lists under `fields`.

    Raises:
        UserError: it is none.
    """
    mend = "was it copied completely?"
    content = parse_json(read_text(path, most=DATA, mend=mend), path.absolute(), undefined=True, mend=mend)
    if missing := [name for name in fields if not isinstance(content, dict) or not isinstance(content.get(name), list)]:
        raise UserError(f"{path.absolute()} has no list {missing[0]!r}: give a COCO file with {', '.join(fields)}.")
    return content


class Ids:
    """The ids of a file, found as they are or in another spelling: 7, 7.0, "7" and "007" are one, unless two have it.

    Args:
        ids: whole numbers or texts.
    """

    def __init__(self, ids: Iterable[int | str]) -> None:
        self._exact = set(ids)
        self._spelled: dict[str, int | str | None] = {}
        for one in self._exact:
            spelling = _spelling(one)
            self._spelled[spelling] = None if spelling in self._spelled else one

    def find(self, value: Any) -> int | str | None:
        """The id that a value of JSON means; None where it means none."""
        value = read_id(value)
        if value is None or value in self._exact:
            return value
        return self._spelled.get(_spelling(value))


def read_id(value: Any) -> int | str | None:
    """What names something in JSON: a whole number or a text; None of anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def read_flag(value: Any) -> bool:
    """Whether a value of JSON says yes: true, 1, 1.0 or "1"."""
    return value is True or bool(whole(value))


def _spelling(value: int | str) -> str:
    text = str(value).strip()
    return str(int(text)) if text.isascii() and text.isdecimal() else text


class Category(NamedTuple):
    """One row of `categories`."""

    id: int | str
    name: str
    entry: Mapping[str, Any]


def categories(content: Mapping[str, Any], path: Path, problems: Problems, owners: Iterable[Any]) -> list[Category]:
    """The categories in the order of their ids, which are the classes in the order of their labels.

    What only groups others is none of them: a category that owns nothing and is the supercategory of others (Roboflow
    writes one), or has the name of one that does.

    Args:
        content: of the file.
        path: of the file.
        problems: takes in what was left out.
        owners: the ids of categories in the annotations.

    Raises:
        UserError: a category without id or name, or two of one id or name.
    """
    rows: list[Category] = []
    seen: dict[int | str, list[Any]] = {}
    for entry in content["categories"]:
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        number = read_id(number)
        if number is None or not isinstance(name, str):
            raise UserError(f"{path.absolute()} has a category without an id or a name: mend categories[].")
        if entry not in seen.setdefault(number, []):
            rows.append(Category(number, name, entry))
            seen[number].append(entry)
    known = Ids(row.id for row in rows)
    owning = {known.find(owner) for owner in owners}
    rows = _without_groups(rows, owning, problems)
    for what, values in (("id", [row.id for row in rows]), ("name", [row.name for row in rows])):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise UserError(f"{path.absolute()} has two categories of the {what} {twice[0]!r}: rename or merge them.")
    if not rows:
        raise UserError(f"{path.absolute()} has no categories: add them with their ids and names.")
    return sorted(rows, key=lambda row: _order(row.id))


def _without_groups(rows: list[Category], owning: Container[Any], problems: Problems) -> list[Category]:
    """Without the categories that own nothing and only group or repeat others."""
    parents = Counter(row.entry.get("supercategory") for row in rows if isinstance(row.entry.get("supercategory"), str))
    owned = {row.name for row in rows if row.id in owning}

    def groups(row: Category) -> bool:
        return parents[row.name] > (row.entry.get("supercategory") == row.name) or row.name in owned

    kept = [row for row in rows if row.id in owning or not groups(row)]
    for row in rows if kept else ():
        if row not in kept:
            kind = "categories that only group others, left out"
            problems.note(kind, f"{row.name} ({row.id})")
    return kept or rows


def _order(value: int | str) -> tuple[bool, int, str]:
    """A key that sorts ids: numbers, then texts, those of digits as numbers."""
    text = _spelling(value)
    number = text.removeprefix("-").isdecimal() and text.isascii()
    return not number, int(text) if number else 0, text


class Found(NamedTuple):
    """An image that is there: its file, the (height, width) that the annotations mean, and EXIF's orientation where
    they are still to be turned by it, else 1; see `sizes.py`. `also` are other ids of the same file."""

    path: str
    size: tuple[int, int]
    orientation: int
    also: tuple[int | str, ...] = ()


def find_images(
    content: Mapping[str, Any], path: Path, folders: Sequence[Path], problems: Problems
) -> dict[int | str, Found]:
    """Image id to file and size, for the images that are there, in the order of the file; each file has one id.

    Names are read as `locate` does; sizes that are not said are those of the files, the others are compared with them.
    """
    entries: dict[int | str, Mapping[str, Any]] = {}
    for entry in content["images"]:
        number = read_id(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not isinstance(entry.get("file_name"), str):
            problems.add("images without id or file_name, left out", str(entry)[:80], lost="images")
        elif number in entries and entries[number]["file_name"] == entry["file_name"]:
            problems.note("images that are listed twice, once left out", shown(entry["file_name"]))
        elif number in entries:
            example = f"{shown(entry['file_name'])} ({number})"
            problems.add("images of an id that another has, left out", example, lost="images")
        else:
            entries[number] = entry
    names = [entry["file_name"] for entry in entries.values()]
    looked_at = some(names)
    hits = [sum(is_file(folder, name) for name in looked_at) for folder in folders]
    likeliest = sorted(zip(hits, folders, strict=True), key=lambda pair: -pair[0])
    files = locate(names, [folder for _, folder in likeliest], problems.note)
    for name, file in zip(names, files, strict=True):
        if file is None:
            problems.add("missing images, left out", name[:100], lost="images")
    if names and not any(files):
        places = " or ".join(str(folder.absolute()) for folder in folders)
        raise UserError(f"No image of {path.absolute()} is in {places}; the first is {names[0]}: put them there.")
    by_file: dict[str, list[int | str]] = {}
    for number, file in zip(entries, files, strict=True):
        if file is not None:
            by_file.setdefault(os.path.normpath(file), []).append(number)
    there = [(numbers[0], file) for file, numbers in by_file.items()]
    sizes = [read_size(entries[number].get("height"), entries[number].get("width")) for number, _ in there]
    for (number, file), size in zip(there, sizes, strict=True):
        if size is None:
            problems.note("images without width or height, which the file tells", f"{file} ({number})")
    reach = _reach(content, Ids(entries))
    fits = fit_sizes([file for _, file in there], sizes, problems, reach=lambda index: reach(there[index][0]))
    return {
        number: Found(file, *fit, also=tuple(by_file[file][1:]))
        for (number, file), fit in zip(there, fits, strict=True)
        if fit
    }


def _reach(content: Mapping[str, Any], ids: Ids) -> Callable[[int | str], tuple[float, float] | None]:
    """How far down and to the right the boxes of an image reach; they are read when somebody asks."""

    @cache
    def known() -> dict[Any, tuple[float, float]]:
        found: dict[Any, tuple[float, float]] = {}
        for note in content["annotations"]:
            box = note.get("bbox") if isinstance(note, dict) else None
            if isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box):
                number = ids.find(note.get("image_id"))
                down, right = found.get(number, (0.0, 0.0))
                found[number] = max(down, box[1] + box[3]), max(right, box[0] + box[2])
        return found

    return lambda image_id: known().get(image_id)


def listed(content: Mapping[str, Any]) -> Ids:
    """The ids of all images in the file, be they there or not."""
    ids = (read_id(entry.get("id")) for entry in content["images"] if isinstance(entry, dict))
    return Ids(one for one in ids if one is not None)
