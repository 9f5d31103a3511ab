"""The kinds of data differ in what a sample holds, and in what messages call it.

class       `Sample`: one class for the whole, an image
sound       the same of a sound
video       the same of a film
detection   `DenseSample`: objects with boxes and, where they were annotated, masks; `semantic` is None
semantic    `DenseSample`: no objects; `semantic` has a class per pixel, 255 where none is trained on or scored
panoptic    `DenseSample`: every segment is an object, one per thing, one per kind of stuff; masks do not overlap,
            what no mask covers is void; `semantic` says the same by class, 255 where void or crowd
"""

from typing import Any, Literal

from focalnet import inputs

Kind = Literal["class", "multilabel", "sound", "video", "detection", "semantic", "panoptic"]
SIGNALS: dict[str, tuple[str, type[Any]]] = {"sound": ("sound", inputs.Audio), "video": ("video", inputs.Video)}
"""What the samples of some kinds of data are, and the input that reads them; those of all others are images."""


def noun_of(kind: str) -> str:
    """What a sample of this kind of data is called, in the singular."""
    return SIGNALS.get(kind, ("image", inputs.Image))[0]


def option_of(kind: str) -> str:
    """The option that says what becomes of samples that cannot be read."""
    return "--on-bad-file" if kind in SIGNALS else "--on-bad-image"


def suffixes_of(kind: str) -> frozenset[str]:
    """Endings of the files of this kind of data."""
    return SIGNALS.get(kind, ("image", inputs.Image))[1].suffixes
