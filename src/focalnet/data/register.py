"""The formats that data may have, and which one a source is in.

A row says what a source of the format looks like, how it is recognized by a cheap look, and how it is opened. The
order of the rows is the order in which they are tried; where two fit, the log says so in one sentence. Where none
does, the last row of the kind opens the source and says what it misses. A new format is a file in `formats/` and a row
here, or a `register` from outside.
"""

import difflib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from focalnet.data.base import Openers, Request
from focalnet.data.formats import (
    coco,
    coco_panoptic,
    digit_groups,
    digit_scenes,
    digits,
    folder,
    hub,
    label_maps,
    moving_digits,
    organs,
    recordings,
    sentences,
    shards,
    sound_scenes,
    table,
    yolo,
)
from focalnet.errors import UserError, unknown

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format of data.

    Attributes:
        name: what the log calls it.
        kinds: of the data that it may hold, see `kinds.py`.
        words: what a source of it is, for messages.
        fits: whether a source looks like one; None for data inside a package, whose source is the name.
        open: finds the splits of a source. It raises UserError where the source is none of this format.
    """

    name: str
    kinds: tuple[str, ...]
    words: str
    fits: Callable[[str], bool] | None
    open: Callable[[str, Request], Openers]


CLASS, MULTILABEL = ("class",), ("multilabel",)
SOUND, VIDEO, SPEECH = ("sound",), ("video",), ("speech",)
DETECTION, SEMANTIC, PANOPTIC = ("detection",), ("semantic",), ("panoptic",)

FORMATS = [
    Format(
        name="digits",
        kinds=CLASS,
        words="the digits inside scikit-learn",
        fits=None,
        open=digits.find_digits,
    ),
    Format(
        name="organs",
        kinds=SEMANTIC,
        words="phantoms of organs",
        fits=None,
        open=organs.find_organs,
    ),
    Format(
        name="digit_groups",
        kinds=MULTILABEL,
        words="groups of digits",
        fits=None,
        open=digit_groups.find_digit_groups,
    ),
    Format(
        name="sound_scenes",
        kinds=SOUND,
        words="synthetic sounds",
        fits=None,
        open=sound_scenes.find_sound_scenes,
    ),
    Format(
        name="formants",
        kinds=SPEECH,
        words="synthetic vowels and hisses",
        fits=None,
        open=sentences.find_formants,
    ),
    Format(
        name="spoken",
        kinds=SPEECH,
        words="sentences spoken by espeak-ng",
        fits=None,
        open=sentences.find_spoken,
    ),
    Format(
        name="moving_digits",
        kinds=VIDEO,
        words="films of moving digits",
        fits=None,
        open=moving_digits.find_moving_digits,
    ),
    Format(
        name="digit_scenes",
        kinds=DETECTION + SEMANTIC + PANOPTIC,
        words="the scenes of digits",
        fits=None,
        open=digit_scenes.find_digit_scenes,
    ),
    Format(
        name="hub",
        kinds=CLASS + SOUND,
        words="org/name or hf:name, a data set of the hub",
        fits=hub.is_name,
        open=hub.find_hub,
    ),
    Format(
        name="datasets",
        kinds=CLASS + SOUND,
        words="a folder of the datasets package (save_to_disk, parquet files, a metadata file)",
        fits=hub.is_saved,
        open=hub.find_saved,
    ),
    Format(
        name="shards",
        kinds=CLASS + SOUND,
        words=".tar shards in webdataset's layout (a folder, pattern or file)",
        fits=shards.is_shards,
        open=shards.find_shards,
    ),
    Format(
        name="table",
        kinds=CLASS + MULTILABEL + SOUND + VIDEO,
        words="a CSV file with a column of files and one of labels, a list of files and labels, or its folder",
        fits=table.is_table,
        open=table.find_table,
    ),
    Format(
        name="folder",
        kinds=CLASS + SOUND + VIDEO,
        words="a folder of class folders, or one with train/ and val/",
        fits=lambda source: folder.is_class_folders(source) and not table.is_table(source),
        open=folder.find_class_folders,
    ),
    Format(
        name="recordings",
        kinds=SPEECH,
        words="a folder of sounds, at any depth, or one with train/ and val/",
        fits=recordings.is_recordings,
        open=recordings.find_recordings,
    ),
    Format(
        name="yolo",
        kinds=DETECTION,
        words="a YOLO data.yaml, or its folder",
        fits=yolo.is_yolo,
        open=yolo.find_yolo,
    ),
    Format(
        name="coco",
        kinds=DETECTION,
        words="a COCO folder (annotations/instances_train2017.json beside train2017/), a Roboflow export, a .json file",
        fits=coco.is_coco,
        open=coco.find_coco,
    ),
    Format(
        name="coco_panoptic",
        kinds=PANOPTIC,
        words="a COCO folder (annotations/panoptic_train2017.json and panoptic_train2017/), or a .json file",
        fits=coco_panoptic.is_panoptic,
        open=coco_panoptic.find_panoptic,
    ),
    Format(
        name="label_maps",
        kinds=SEMANTIC,
        words="ADE20K, Cityscapes, or images/ and masks/ with classes.txt",
        fits=label_maps.is_label_maps,
        open=label_maps.find_label_maps,
    ),
]
"""Every format, in the order in which they are tried."""


def register(row: Format) -> Format:
    """Make a format known; it is tried before those that are."""
    FORMATS.insert(0, row)
    return row


def formats_at(source: str | None, kind: str) -> list[Format]:
    """Formats of another kind that a file or folder looks like, where none of this kind or only class folders fit."""
    if source is None or not Path(source).expanduser().exists():
        return []
    fitting = [row for row in FORMATS if row.fits and row.fits(source)]
    own = [row for row in fitting if kind in row.kinds]
    others = [row for row in fitting if row not in own]
    return others if not own or [row.name for row in own] == ["folder"] else []


def find_format(kind: str, source: str | None) -> tuple[Format, str]:
    """The format of a source, and the source itself.

    Args:
        kind: of the data.
        source: None for the library's own data, made of the digits inside scikit-learn.

    Raises:
        UserError: no format serves the kind, or there is nothing at the source.
    """
    rows = [row for row in FORMATS if kind in row.kinds]
    if not rows:
        raise unknown("kind of data", kind, {kind for row in FORMATS for kind in row.kinds})
    inside, outside = [row for row in rows if row.fits is None], [row for row in rows if row.fits is not None]
    if source is None:
        if not inside:
            raise UserError(f"There is no {kind} data inside the package: give --data.")
        return inside[-1], inside[-1].name
    for row in inside:
        if row.name == source:
            if Path(source).exists():
                raise UserError(f'"{source}" means {row.words}; for the folder here write ./{source}.')
            return row, source
    fitting = [row for row in outside if row.fits and row.fits(source)]
    if len(fitting) > 1:
        others = "; ".join(f"{row.name}: {row.words}" for row in fitting[1:])
        log.warning("%s is read as %s; it could also be %s", source, fitting[0].name, others)
    if not fitting and not (outside and Path(source).expanduser().exists()):
        raise _missing(Path(source).expanduser().absolute(), outside, inside)
    return (fitting or outside[-1:])[0], source


def locate_source(kind: str, source: str | None, *, recorded: bool = False) -> str | None:
    """What a source means here, so that it means the same in any other folder.

    Args:
        kind: of the data.
        source: as for `find_format`.
        recorded: it was kept with a run. A name is then one of the hub only where "hf:" marks it, as it does from here
            on: in another folder, what was a folder here would look like a name.

    Returns:
        an absolute path, "hf:" and a name of the hub, the name of data inside the package, or None for the usual one.
    """
    rows = [row for row in FORMATS if kind in row.kinds]
    inside = [row.name for row in rows if row.fits is None]
    if source is None or source.startswith(hub.MARK) or source in inside:
        return None if source in inside[-1:] else source
    path = os.path.abspath(os.path.expanduser(source))
    if os.path.exists(path):
        return path
    fitting = [row for row in rows if row.fits and row.fits(source)]
    if fitting and fitting[0].fits is hub.is_name:
        return path if recorded else hub.MARK + source
    return source if fitting and not any(row.fits and row.fits(path) for row in fitting) else path


def _missing(path: Path, outside: list[Format], inside: list[Format]) -> UserError:
    parent = next(folder for folder in path.parents if folder.is_dir())
    wanted = path.relative_to(parent).parts[0]
    near = difflib.get_close_matches(wanted, [entry.name for entry in parent.iterdir()], n=1)
    hint = f"did you mean {parent / near[0]}?" if near else f"the nearest folder that exists is {parent}."
    known = "; ".join(row.words for row in outside)
    mend = f" Leave --data out for {inside[-1].words}." if inside else ""
    return UserError(f"There is no {path} (known: {known}); {hint}{mend}")
