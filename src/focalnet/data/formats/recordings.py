"""Folders of recordings of which nothing needs to be known: sounds at any depth, whatever the folders are called.

Folders that are called like splits are these, one or several for each: train-clean-100 and train-clean-360 beside
dev-clean and test-clean, as LibriTTS has them. Without such folders, all files are one split.
"""

import logging
import os
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from focalnet.data.base import Opener, Openers, Request, Split
from focalnet.data.formats.folder import Files
from focalnet.data.kinds import SUFFIXES, input_of, noun_of
from focalnet.data.problems import endings
from focalnet.data.splits import split_of
from focalnet.errors import UserError, counted
from focalnet.inputs.folders import folders_in, walk

log = logging.getLogger(__name__)

LOOKED_AT = 1000
"""Files of a folder whose endings tell what it holds."""


def is_recordings(source: str) -> bool:
    """Whether a source is a folder that does not look like one of images or films: these are among its first files, and
    no sound is."""
    root = Path(source).expanduser()
    files = islice((name for _, _, names in os.walk(root) for name in names), LOOKED_AT)
    found = {Path(name).suffix.lower() for name in files}
    sounds = input_of("speech").suffixes
    return root.is_dir() and (not found & (SUFFIXES - sounds) or bool(found & sounds))


def find_recordings(source: str, request: Request) -> Openers:
    """Find the sounds of a source, an existing path.

    Returns:
        what opens the splits.

    Raises:
        UserError: it is a file.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise UserError(f"{root.absolute()} is a file; give a folder of {noun_of(request.kind)}s.")
    named: dict[str | None, list[Path]] = {}
    for folder in folders_in(root):
        named.setdefault(split_of(folder.name), []).append(folder)
    if not named.keys() & {"train", "val", "test"}:
        return Openers(partial(_recordings, root, [root], request), None)

    def opener(split: str) -> Opener | None:
        return partial(_recordings, root, named[split], request) if split in named else None

    def open_train() -> Split:
        if "train" not in named:
            raise UserError(f"{root.absolute()} has no folder of training {noun_of(request.kind)}s; call one train.")
        return _recordings(root, named["train"], request)

    return Openers(open_train, opener("val") or opener("test"), opener("test"))


def _recordings(root: Path, folders: Sequence[Path], request: Request) -> Split:
    noun, suffixes = noun_of(request.kind), input_of(request.kind).suffixes
    left_out: list[str] = []
    files = sorted(os.path.join(*place) for folder in folders for place in walk(folder, suffixes, left_out.append))
    if left_out:
        lost = counted(len(left_out), f"files that are hidden or no {noun}s")
        log.info("%s: left out %s: %s", root, lost, endings(sorted(map(os.path.basename, left_out))))
    return Split(reader=Files(), entries=files, classes=())
