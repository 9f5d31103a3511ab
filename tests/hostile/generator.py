"""Hostile inputs by kind and number: the same kind and number are the same input, on every machine.

`build` fills a folder and says which commands to run in it. What is good stands in `base/` beside the inputs: `prepare`
makes it once, out of the kept runs of the tests.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import annotations
import checkpoints
import commands
import files
import networks
import runs
import sounds
import tables
from bases import prepare

Build = Callable[[random.Random, int, Path, Path], tuple[list[list[str]], bytes]]

KINDS: dict[str, tuple[int, Build]] = {
    "image": (320, files.image),
    "folder": (110, files.folder),
    "shard": (150, files.shard),
    "video": (80, files.video),
    "coco": (220, annotations.coco),
    "panoptic": (120, annotations.panoptic),
    "yolo": (150, annotations.yolo),
    "masks": (90, annotations.masks),
    "table": (180, tables.table),
    "saved": (90, tables.saved),
    "sound": (150, sounds.sound),
    "sounds": (90, sounds.sounds),
    "films": (70, sounds.films),
    "detector": (150, networks.detector),
    "network": (180, networks.network),
    "export": (60, networks.export),
    "exported": (180, networks.exported),
    "embedding": (120, networks.embedding),
    "checkpoint": (260, checkpoints.checkpoint),
    "run": (320, runs.run),
    "command": (320, commands.command),
}
"""Kind -> how many inputs there are, and what makes one."""


def build(kind: str, rng: random.Random, index: int, folder: Path) -> tuple[list[list[str]], bytes]:
    """Fill `folder` with the input; returns the commands to run there, and what stands on standard input."""
    return KINDS[kind][1](rng, index, folder, folder.parent.parent / "base")


def every(kind: str) -> range:
    return range(KINDS[kind][0])


__all__ = ["KINDS", "build", "every", "prepare", "shutil"]
