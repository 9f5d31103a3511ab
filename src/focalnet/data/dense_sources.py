"""Where detection and segmentation data come from: one string in, a training and a validation side out.

    nothing, or "digit_scenes"      scenes of scikit-learn's handwritten digits (`digit_scenes.py`), for every kind

    detection   a COCO folder       annotations/instances_train2017.json beside train2017/ (`coco.py`), any year
                a Roboflow export   train/_annotations.coco.json, valid/_annotations.coco.json
                a .json file        COCO's format; the images lie beside it, in images/, or where its paths say
                a .yaml, its folder YOLO's text files (`yolo.py`)
    panoptic    a COCO folder       annotations/panoptic_train2017.json, its PNG files in panoptic_train2017/
    semantic    ADE20K              images/training beside annotations/training (`semantic.py`)
                Cityscapes          leftImg8bit/train beside gtFine/train
                folders             images/ and masks/ with classes.txt

Where there is no validation side, a share of the images is set aside at random. A measurement needs the validation
side alone.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from focalnet.data.base import OnBadImage, choose_splits, preview
from focalnet.data.dense import Complaints, Kind, OnBadAnnotation, Opener, SceneData, Scenes, Side
from focalnet.data.formats import coco, coco_panoptic, digit_scenes, yolo
from focalnet.data.formats import label_maps as semantic
from focalnet.errors import UserError
from focalnet.labels import COCO_CLASSES, COCO_RAW_CLASSES

log = logging.getLogger(__name__)

Files = tuple[Path, list[Path]]
"""A JSON file, and the folders where its images may lie."""

ROBOFLOW = "_annotations.coco.json"
OTHERS = ("instances", "panoptic", "stuff", "captions", "person_keypoints", "image_info")
"""What the names of COCO's own files begin with."""


def open_scenes(
    kind: Kind,
    source: str | None,
    *,
    val_fraction: float,
    seed: int,
    on_bad_image: OnBadImage,
    on_bad_annotation: OnBadAnnotation,
    masks: bool = True,
) -> SceneData:
    """Open images with objects, or with a class or a segment per pixel, for training.

    Args:
        kind: "detection", "semantic" or "panoptic".
        source: see the table on top of this module; None for the scenes of digits.
        val_fraction: share of the images set aside where the source has no validation side of its own.
        seed: of that split. The scenes of digits are always split the same way.
        on_bad_image: an image that cannot be read stops the run, or is skipped (`Scenes`).
        on_bad_annotation: broken annotations are mended or left out, and counted in one line of the log, or stop.
        masks: of detection; False leaves the outlines alone: faster, and objects without one stay.

    Returns:
        both sides; no image is decoded yet.

    Raises:
        UserError: nothing there, other classes in validation than in training, or broken annotations with "stop".
    """
    train, val = _open(kind, source, on_bad_annotation, masks)
    assert train is not None
    classes, place = train.classes, source or "digit_scenes"
    if train.used is not None and (unseen := [name for name in classes if name not in train.used]):
        log.warning("%s: nothing to train on for %s", place, preview(unseen))
    if val is None:
        kept, held_out = _split(len(train.where), val_fraction, seed, place)
        train, val = train.take(kept), train.take(held_out)
        how = f"set aside, share {val_fraction}, seed {seed}"
    else:
        _check_classes(val, classes, f"the validation side of {place}", "the training side")
        how = "its own split"
    description = (
        f"{place}: {len(classes)} classes, {len(train.where)} training and {len(val.where)} validation images ({how})"
    )
    sides = (Scenes(train, classes, on_bad_image), Scenes(val, classes, on_bad_image))
    return SceneData(classes, sides[0].things, *sides, description)


def open_scene_evaluation(
    kind: Kind,
    source: str | None,
    classes: Sequence[str] | None,
    num_classes: int,
    *,
    on_bad_image: OnBadImage,
    on_bad_annotation: OnBadAnnotation,
    masks: bool = True,
) -> Scenes:
    """Open scenes to measure a trained model on: the validation side if the source has one, else everything.

    Labels follow the names of the model's classes, whatever their order in the source. Where the model has no names,
    the classes of the source count in their order, and there must be `num_classes` of them. A model of 91 classes
    without names that meets COCO's 80 counts by COCO's raw ids, as the released DINO does.

    Args:
        kind, source, on_bad_image, on_bad_annotation, masks: as in `open_scenes`.
        classes: names of the model's classes in the order of its labels, or None.
        num_classes: of the model.

    Raises:
        UserError: nothing there, or classes that the model does not have.
    """
    train, val = _open(kind, source, on_bad_annotation, masks, evaluation=True)
    side, place = val or train, source or "digit_scenes"
    assert side is not None
    if classes is None and num_classes == len(COCO_RAW_CLASSES) and side.classes == COCO_CLASSES:
        classes = COCO_RAW_CLASSES
    if len(side.classes) == num_classes and not set(side.classes) & set(classes or ()):
        if classes is not None:
            log.warning("%s: no class is called as in the model; taken for the same %d in order", place, num_classes)
        classes = side.classes
    if classes is None:
        raise UserError(
            f"{place} has {len(side.classes)} classes, the model {num_classes} without names: give as many."
        )
    _check_classes(side, classes, place, "the model")
    return Scenes(side, classes, on_bad_image)


def _check_classes(side: Side, known: Sequence[str], place: str, owner: str) -> None:
    used = side.classes if side.used is None else [name for name in side.classes if name in side.used]
    if strange := [name for name in used if name not in set(known)]:
        raise UserError(
            f"{place} has classes that {owner} does not have: {preview(strange)}; known: {preview(known)}. "
            f"Give both the same class names."
        )


def _split(count: int, val_fraction: float, seed: int, place: str) -> tuple[list[int], list[int]]:
    if not 0 < val_fraction < 1:
        raise UserError(f"--val-fraction is {val_fraction}; give a share between 0 and 1, for example 0.2.")
    if count < 2:
        raise UserError(f"{place} has {count} image, so none can be set aside for validation; add images.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = min(max(int(count * val_fraction + 0.5), 1), count - 1)
    return sorted(order[held_out:]), sorted(order[:held_out])


def _open(
    kind: Kind, source: str | None, on_bad_annotation: OnBadAnnotation, masks: bool, *, evaluation: bool = False
) -> tuple[Side | None, Side | None]:
    """The training side and the validation side; `evaluation`: only the latter, if there is one."""
    if source is None or source == "digit_scenes":
        if source and Path(source).exists():
            raise UserError('"digit_scenes" means the scenes of digits; for the folder here write ./digit_scenes.')
        return digit_scenes.open_digit_scenes(kind)
    path, complaints = Path(source).expanduser(), Complaints()
    if not path.exists():
        raise UserError(f"There is no {path.absolute()}: check the path, or leave it out for the scenes of digits.")
    if kind == "semantic":
        open_train, open_val = semantic.find_masks(path, complaints)
    elif kind == "panoptic":
        open_train, open_val = _openers(path, "panoptic", partial(coco_panoptic.open_panoptic, complaints=complaints))
    elif path.suffix in (".yaml", ".yml") or (path / "data.yaml").is_file():
        description = path if path.is_file() else path / "data.yaml"
        sides = yolo.open_yolo(description, complaints, masks=masks)
        complaints.settle(source, on_bad_annotation)
        return sides
    else:
        open_train, open_val = _openers(path, "instances", partial(coco.open_coco, complaints=complaints, masks=masks))
    train = None if evaluation and open_val else open_train()
    val = open_val() if open_val else None
    complaints.settle(source, on_bad_annotation)
    return train, val


def _openers(path: Path, stem: str, open_file: Callable[..., Side]) -> tuple[Opener, Opener | None]:
    train, val = _coco_files(path, stem)

    def open_train() -> Side:
        if train is None:
            raise UserError(f"{path.absolute()} has a validation side only; add annotations/{stem}_train2017.json.")
        return open_file(*train)

    return open_train, partial(open_file, *val) if val else None


def _coco_files(path: Path, stem: str) -> tuple[Files | None, Files | None]:
    """The files of the training side and of the validation side, where there are such.

    Args:
        path: an existing JSON file or folder.
        stem: what the names in annotations/ begin with: "instances" or "panoptic".

    Raises:
        UserError: no JSON file, or several among which there is no choice.
    """
    if path.is_file():
        return (path, _picture_folders(path, stem)), None
    folders = {folder.name: folder for folder in path.iterdir() if (folder / ROBOFLOW).is_file()}
    train, val = choose_splits(folders)
    if train is not None or val is not None:
        first, second = ((folders[name] / ROBOFLOW, [folders[name]]) if name else None for name in (train, val))
        return first, second
    files = sorted([*path.glob("*.json"), *path.glob("annotations/*.json")])
    files = [file for file in files if file.name.startswith(stem)] or [
        file for file in files if not file.name.startswith(OTHERS)
    ]
    sides = [[file for file in files if word in file.stem.lower()] for word in ("train", "val")]
    if not any(sides):
        sides[0] = files
    if max(map(len, sides)) != 1:
        what = f"the JSON files {preview([file.name for file in files])}" if files else "no JSON file of annotations"
        raise UserError(
            f"{path.absolute()} has {what}; wanted are annotations/{stem}_train2017.json and, if there is one, "
            f"annotations/{stem}_val2017.json: give such a folder, or one JSON file."
        )
    first, second = ((side[0], _picture_folders(side[0], stem)) if side else None for side in sides)
    return first, second


def _picture_folders(file: Path, stem: str) -> list[Path]:
    split = file.stem.removeprefix(f"{stem}_")
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    return [root / split, root / "images" / split, root / "images", root, file.parent]
