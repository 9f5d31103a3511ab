"""What COCO's formats share: the JSON file of a split, its categories, its images, and where all of them lie.

annotations/instances_train2017.json beside train2017/, any year     COCO
train/_annotations.coco.json, valid/_annotations.coco.json           a Roboflow export
a .json file                         the images lie beside it, in images/, or where its paths say
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from focalnet.data.base import Openers, Split
from focalnet.data.problems import Problems, preview, some
from focalnet.data.splits import choose_splits
from focalnet.errors import UserError

Files = tuple[Path, list[Path]]
"""A JSON file, and the folders where its images may lie."""

ROBOFLOW = "_annotations.coco.json"
OTHERS = ("instances", "panoptic", "stuff", "captions", "person_keypoints", "image_info")
"""What the names of COCO's own files begin with."""


def is_json(source: str, stem: str) -> bool:
    """Whether a source is a JSON file, or a folder with one for `stem`: "instances" or "panoptic"."""
    path = Path(source).expanduser()
    if path.is_dir():
        return bool(_roboflow(path) or _json_files(path, stem))
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
    train, val = _files(path, stem)

    def open_train() -> Split:
        if train is None:
            raise UserError(f"{path.absolute()} has a validation split only; add annotations/{stem}_train2017.json.")
        return open_file(*train)

    return Openers(open_train, partial(open_file, *val) if val else None)


def _roboflow(path: Path) -> dict[str, Path]:
    return {folder.name: folder for folder in path.iterdir() if (folder / ROBOFLOW).is_file()}


def _json_files(path: Path, stem: str) -> list[Path]:
    files = sorted([*path.glob("*.json"), *path.glob("annotations/*.json")])
    named = [file for file in files if file.name.startswith(stem)]
    return named or [file for file in files if not file.name.startswith(OTHERS)]


def _files(path: Path, stem: str) -> tuple[Files | None, Files | None]:
    if path.is_file():
        return (path, _image_folders(path, stem)), None
    folders = _roboflow(path)
    train, val, _ = choose_splits(folders)
    if train is not None or val is not None:
        first, second = ((folders[name] / ROBOFLOW, [folders[name]]) if name else None for name in (train, val))
        return first, second
    files = _json_files(path, stem)
    splits = [[file for file in files if word in file.stem.lower()] for word in ("train", "val")]
    if not any(splits):
        splits[0] = files
    if max(map(len, splits)) != 1:
        what = f"the JSON files {preview([file.name for file in files])}" if files else "no JSON file of annotations"
        raise UserError(
            f"{path.absolute()} has {what}; wanted are annotations/{stem}_train2017.json and, if there is one, "
            f"annotations/{stem}_val2017.json: give such a folder, or one JSON file."
        )
    first, second = ((found[0], _image_folders(found[0], stem)) if found else None for found in splits)
    return first, second


def _image_folders(file: Path, stem: str) -> list[Path]:
    split = file.stem.removeprefix(f"{stem}_")
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    return [root / split, root / "images" / split, root / "images", root, file.parent]


def load_json(path: Path, fields: Sequence[str]) -> dict[str, Any]:
    """The content of a JSON file, which must be an object with lists under `fields`."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path.absolute()} cannot be read ({error.strerror}): check the path.") from error
    except ValueError as error:
        raise UserError(f"{path.absolute()} is no JSON ({error}): was it copied completely?") from error
    if missing := [name for name in fields if not isinstance(content, dict) or not isinstance(content.get(name), list)]:
        raise UserError(f"{path.absolute()} has no list {missing[0]!r}: give a COCO file with {', '.join(fields)}.")
    return content


def categories(content: Mapping[str, Any], path: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    """Category id to label, and the class names: the categories in the order of their ids."""
    entries = content["categories"]
    sane = [
        e for e in entries if isinstance(e, dict) and isinstance(e.get("id"), int) and isinstance(e.get("name"), str)
    ]
    if len(sane) < len(entries):
        raise UserError(f"{path.absolute()} has a category without a whole number as id or a name: mend categories[].")
    entries = sorted(sane, key=lambda entry: entry["id"])
    ids, names = [entry["id"] for entry in entries], tuple(entry["name"] for entry in entries)
    for what, values in (("id", ids), ("name", names)):
        if twice := [value for value in values if values.count(value) > 1]:
            raise UserError(f"{path.absolute()} has two categories of the {what} {twice[0]!r}: rename or merge them.")
    if not names:
        raise UserError(f"{path.absolute()} has no categories: add them with their ids and names.")
    return {number: label for label, number in enumerate(ids)}, names


def find_images(
    content: Mapping[str, Any], path: Path, folders: Sequence[Path], problems: Problems
) -> dict[int | str, tuple[str, tuple[int, int]]]:
    """Image id to file and (height, width), for the images that are there, in the order of the file."""
    entries: dict[int | str, Mapping[str, Any]] = {}
    for entry in content["images"]:
        if not isinstance(entry, dict) or not _sane_image(entry):
            problems.add("images without id, file_name, width or height, left out", str(entry)[:80])
        elif entry["id"] in entries:
            problems.add("images of an id that another has, left out", f"{entry['file_name']} ({entry['id']})")
        else:
            entries[entry["id"]] = entry
    names = [entry["file_name"] for entry in entries.values()]
    looked_at = some(names)
    root = max(folders, key=lambda folder: sum((folder / name).is_file() for name in looked_at))
    found: dict[int | str, tuple[str, tuple[int, int]]] = {}
    for number, entry in entries.items():
        file = os.path.join(root, entry["file_name"])
        if os.path.isfile(file):
            found[number] = (file, (entry["height"], entry["width"]))
        else:
            problems.add("missing images, left out", entry["file_name"])
    if not found:
        places = " or ".join(str(folder.absolute()) for folder in folders)
        first = f"; the first is {names[0]}" if names else ""
        raise UserError(f"No image of {path.absolute()} is in {places}{first}: put them there.")
    return found


def listed(content: Mapping[str, Any]) -> set[int | str]:
    """The ids of all images in the file, be they there or not."""
    return {entry["id"] for entry in content["images"] if isinstance(entry, dict) and is_id(entry.get("id"))}


def is_id(value: Any) -> bool:
    """Whether a value of JSON can name something."""
    return isinstance(value, int | str)


def _sane_image(entry: Mapping[str, Any]) -> bool:
    sides = (entry.get("width"), entry.get("height"))
    return (
        is_id(entry.get("id"))
        and isinstance(entry.get("file_name"), str)
        and all(isinstance(side, int) and side > 0 for side in sides)
    )
