"""Annotations in formats that are not read, told by the names of their files: what else would be missed in such a
folder says nothing to who has it."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from focalnet.errors import UserError
from focalnet.inputs.folders import folders_in, is_ignored
from focalnet.inputs.image import EXTENSIONS

LOOKED_AT = 8
"""Folders inside a folder, at most."""


def refuse_unread(root: Path) -> None:
    """Refuse a folder of annotations that are not read.

    Raises:
        UserError: it has Pascal VOC's XML files, or JSON files beside images, as LabelMe writes them.
    """
    for folder in [root, *islice(folders_in(root), LOOKED_AT)]:
        paths = [path for path in folder.glob("*") if not is_ignored(path.name)]
        images = _stems(path for path in paths if path.suffix.lower() in EXTENSIONS)
        for ending, what in ((".xml", "XML files, as in Pascal VOC"), (".json", "a JSON file per image, of LabelMe")):
            files = _stems(path for path in paths if path.suffix.lower() == ending)
            if files & images or (files and folder.name.lower() == "annotations" and ending == ".xml"):
                raise UserError(
                    f"{folder.absolute()} has {what}, which are not read: export to COCO's or YOLO's format instead, "
                    "which labelling tools know."
                )


def _stems(paths: Iterable[Path]) -> set[str]:
    return {path.stem for path in paths}
