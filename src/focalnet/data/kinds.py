"""The kinds of data differ in what a sample holds, and in what messages call it.

class       `Sample`: one class for the whole, an image
sound       the same of a sound
video       the same of a film
speech      `Sample`: a sound, of which nothing is known
detection   `DenseSample`: objects with boxes and, where they were annotated, masks; `semantic` is None
semantic    `DenseSample`: no objects; `semantic` has a class per pixel, 255 where none is trained on or scored
panoptic    `DenseSample`: every segment is an object, one per thing, one per kind of stuff; masks do not overlap,
            what no mask covers is void; `semantic` says the same by class, 255 where void or crowd
"""

from typing import Any, Literal

from focalnet import inputs

Kind = Literal["class", "multilabel", "sound", "video", "speech", "detection", "semantic", "panoptic"]
SIGNALS: dict[str, type[Any]] = {"sound": inputs.Audio, "video": inputs.Video, "speech": inputs.Audio}
"""The inputs that read the samples of some kinds of data; those of all others are images."""
SUFFIXES = frozenset[str]().union(*(each.suffixes for each in (inputs.Image, *SIGNALS.values())))
"""Endings of the files of any kind, in lower case."""
UNLABELED = ("speech",)
"""The kinds whose samples are all that there is: no classes."""


def input_of(kind: str) -> type[Any]:
    """The input that reads the samples of this kind of data."""
    return SIGNALS.get(kind, inputs.Image)


def noun_of(kind: str) -> str:
    """What a sample of this kind of data is called, in the singular."""
    return inputs.noun_of(input_of(kind))


def option_of(kind: str) -> str:
    """The option that says what becomes of samples that cannot be read."""
    return "--on-bad-file" if kind in SIGNALS else "--on-bad-image"
