"""What COCO's formats share: the JSON file of a split, its categories, its images, and where all of them lie.

annotations/instances_train2017.json beside train2017/, any year     COCO
train/_annotations.coco.json, valid/_annotations.coco.json           a Roboflow export
a .json file                         the images lie beside it, in images/, or where its paths say
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from focalnet.data.base import Openers, Split
from focalnet.data.problems import Problems, preview, some
from focalnet.data.sizes import fit_sizes, read_size
from focalnet.data.splits import choose_splits, split_of
from focalnet.errors import UserError
from focalnet.inputs.folders import is_file, is_ignored, locate

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
    train, val, test = _files(path, stem)

    def open_train() -> Split:
        if train is None:
            raise UserError(f"{path.absolute()} has a validation split only; add annotations/{stem}_train2017.json.")
        return open_file(*train)

    second, third = (partial(open_file, *files) if files else None for files in (val, test))
    return Openers(open_train, second, third)


def _roboflow(path: Path) -> dict[str, Path]:
    return {folder.name: folder for folder in path.iterdir() if (folder / ROBOFLOW).is_file()}


def _json_files(path: Path, stem: str) -> list[Path]:
    files = sorted([*path.glob("*.json"), *path.glob("annotations/*.json")])
    files = [file for file in files if not is_ignored(file.name)]
    named = [file for file in files if file.name.startswith(stem)]
    return named or [file for file in files if not file.name.startswith(OTHERS)]


def _files(path: Path, stem: str) -> tuple[Files | None, Files | None, Files | None]:
    """The files of training, validation and test."""
    if path.is_file():
        return (path, _image_folders(path, stem)), None, None
    folders = _roboflow(path)
    chosen = choose_splits(folders)
    if any(chosen):
        first, second, third = ((folders[name] / ROBOFLOW, [folders[name]]) if name else None for name in chosen)
        return first, second, third
    files = _json_files(path, stem)
    named = [file for file in files if split_of(file.stem)] or files
    by_split = {name: [file for file in named if split_of(file.stem) == name] for name in ("train", "val", "test")}
    if len(named) == 1 and not any(by_split.values()):
        by_split["train"] = named
    if not named or any(len(found) > 1 for found in by_split.values()) or not any(by_split.values()):
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


class Found(NamedTuple):
    """An image that is there: its file, the (height, width) that the annotations mean, and EXIF's orientation where
    they are still to be turned by it, else 1; see `sizes.py`."""

    path: str
    size: tuple[int, int]
    orientation: int


def find_images(
    content: Mapping[str, Any], path: Path, folders: Sequence[Path], problems: Problems
) -> dict[int | str, Found]:
    """Image id to file and size, for the images that are there, in the order of the file.

    Names are read as `locate` does; sizes that are not said are those of the files, the others are compared with them.
    """
    entries: dict[int | str, Mapping[str, Any]] = {}
    for entry in content["images"]:
        if not isinstance(entry, dict) or not is_id(entry.get("id")) or not isinstance(entry.get("file_name"), str):
            problems.add("images without id or file_name, left out", str(entry)[:80], lost="images")
        elif entry["id"] in entries:
            example = f"{entry['file_name']} ({entry['id']})"
            problems.add("images of an id that another has, left out", example, lost="images")
        else:
            entries[entry["id"]] = entry
    names = [entry["file_name"] for entry in entries.values()]
    looked_at = some(names)
    hits = [sum(is_file(folder, name) for name in looked_at) for folder in folders]
    likeliest = sorted(zip(hits, folders, strict=True), key=lambda pair: -pair[0])
    files = locate(names, [folder for _, folder in likeliest], problems.note)
    for name, file in zip(names, files, strict=True):
        if file is None:
            problems.add("missing images, left out", name, lost="images")
    if names and not any(files):
        places = " or ".join(str(folder.absolute()) for folder in folders)
        raise UserError(f"No image of {path.absolute()} is in {places}; the first is {names[0]}: put them there.")
    there = [(number, file) for number, file in zip(entries, files, strict=True) if file is not None]
    sizes = [read_size(entries[number].get("height"), entries[number].get("width")) for number, _ in there]
    for (number, file), size in zip(there, sizes, strict=True):
        if size is None:
            problems.note("images without width or height, which the file tells", f"{file} ({number})")
    reach = _reach(content)
    fits = fit_sizes([file for _, file in there], sizes, problems, reach=lambda index: reach(there[index][0]))
    return {number: Found(file, *fit) for (number, file), fit in zip(there, fits, strict=True) if fit}


def _reach(content: Mapping[str, Any]) -> Callable[[int | str], tuple[float, float] | None]:
    """How far down and to the right the boxes of an image reach; they are read when somebody asks."""

    @cache
    def known() -> dict[Any, tuple[float, float]]:
        found: dict[Any, tuple[float, float]] = {}
        for note in content["annotations"]:
            box = note.get("bbox") if isinstance(note, dict) else None
            if isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box):
                number = note.get("image_id")
                if is_id(number):
                    down, right = found.get(number, (0.0, 0.0))
                    found[number] = max(down, box[1] + box[3]), max(right, box[0] + box[2])
        return found

    return lambda image_id: known().get(image_id)


def listed(content: Mapping[str, Any]) -> set[int | str]:
    """The ids of all images in the file, be they there or not."""
    return {entry["id"] for entry in content["images"] if isinstance(entry, dict) and is_id(entry.get("id"))}


def is_id(value: Any) -> bool:
    """Whether a value of JSON can name something."""
    return isinstance(value, int | str)
