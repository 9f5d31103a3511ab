"""Images with a PNG mask each: a class per pixel.

    ADE20K       images/training + annotations/training, images/validation + annotations/validation; 150 classes;
                 0 is none (255 here), id i is class i - 1
    Cityscapes   leftImg8bit/train + gtFine/train and val; the ids of *_labelTrainIds.png, or those of *_labelIds.png
                 mapped to the 19 classes that are scored, everything else 255
    folders      images/train + masks/train, or train/images + train/masks, and val likewise; or images/ + masks/,
                 split here. "annotations" and "labels" are other names for masks. classes.txt lists the class names,
                 one per line: line 1 is id 0

A mask holds ids: grey, palette (its index is the id, whatever the colors), 16-bit or 1-bit. 255 is not trained on and
not scored. Refused: colors instead of ids, and masks of 0 and 255 alone where there are two classes, which are black
and white and not ids. Ids without a class become 255. All masks are compared with their images in size; what they
hold is looked at in some masks of each split when the data is opened, and in every mask when it is read.
"""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from focalnet.data.base import IGNORE, DenseSample, Load, Openers, Request, Split
from focalnet.data.problems import Problems, preview, some
from focalnet.data.sizes import fit_sizes
from focalnet.data.splits import choose_splits, split_of
from focalnet.errors import UserError, counted
from focalnet.inputs.folders import files_in, folders_in, is_ignored
from focalnet.inputs.image import EXTENSIONS, BadImageError, NotIdsError, load_image, size_of
from focalnet.labels import ADE20K_CLASSES, CITYSCAPES_CLASSES, CITYSCAPES_IDS
from focalnet.reading import read_lines
from focalnet.structures import turn_pixels

log = logging.getLogger(__name__)

MASK_FOLDERS = ("masks", "annotations", "labels")


class Pair(NamedTuple):
    """An image and its mask; EXIF's orientation of the image, where the mask is still to be turned by it, else 1."""

    path: str
    mask: str
    orientation: int = 1


@dataclass(frozen=True)
class MaskFiles:
    """Reads images with masks; an entry is a `Pair`.

    Attributes:
        table: (T,), uint8, the class of each id; an id from T on has none.
        known: (T,), bool, whether an id means something, be it "ignore".
    """

    table: np.ndarray
    known: np.ndarray

    def name(self, entry: Pair) -> str:
        return entry.path

    def read(self, entry: Pair, load: Load = load_image) -> DenseSample:
        image = load(entry.path)
        ids = turn_pixels(torch.from_numpy(read_mask(entry.mask)), entry.orientation).numpy()
        if ids.shape != (image.height, image.width):
            height, width = ids.shape
            raise BadImageError(
                f"{entry.path} is {image.width} x {image.height} pixels, its mask {entry.mask} {width} x {height}."
            )
        labels = np.where(ids < len(self.table), self.table[np.minimum(ids, len(self.table) - 1)], IGNORE)
        none = torch.zeros(0)
        return DenseSample(
            image=image,
            path=entry.path,
            boxes=none.reshape(0, 4),
            labels=none.long(),
            masks=None,
            crowd=none.bool(),
            area=none,
            semantic=torch.from_numpy(labels.astype(np.uint8)),
            image_id=Path(entry.path).stem,
        )

    def unknown(self, entry: Pair) -> list[int]:
        """The ids of the mask of an entry that mean nothing."""
        return self.strange(read_mask(entry.mask))

    def strange(self, ids: np.ndarray) -> list[int]:
        """The ids that mean nothing."""
        return [i for i in np.unique(ids).tolist() if i >= len(self.known) or not self.known[i]]


def read_mask(path: str) -> np.ndarray:
    """The ids of a mask: (H, W), int64.

    Raises:
        BadImageError: it is missing, broken, or has colors instead of ids.
    """
    try:
        with Image.open(path) as mask:
            if mask.mode in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
                return np.asarray(mask).astype(np.int64)
            pixels = np.asarray(mask.convert("RGB")).astype(np.int64)
    except Exception as error:  # a decoder fed with garbage may raise anything
        raise BadImageError(f"The mask {path} cannot be read ({error}): replace or remove it.") from error
    if (pixels != pixels[..., :1]).any():
        raise NotIdsError(
            f"The mask {path} has colors, not ids: write a PNG whose grey value or palette index is the class."
        )
    return pixels[..., 0]


def is_label_maps(source: str) -> bool:
    """Whether a source has folders of images and of masks, in one of the layouts."""
    root = Path(source).expanduser()
    return root.is_dir() and ((root / "gtFine").is_dir() or bool(_layout(root, Problems())))


def find_label_maps(source: str, request: Request) -> Openers:
    """Find the images and masks of a folder; see the table on top of this module.

    Returns:
        what opens the splits. It raises UserError where there are no pairs, or masks that hold no ids.

    Raises:
        UserError: none of the layouts, or no list of classes.
    """
    root, problems = Path(source).expanduser(), request.problems
    if not root.is_dir():
        raise UserError(f"{root.absolute()} is a file; give a folder of images and masks.")
    if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir():
        return _cityscapes(root, problems)
    layout = _layout(root, problems)
    inner = next((folder for folder in root.iterdir() if (folder / "images" / "training").is_dir()), None)
    if inner:
        raise UserError(f"{root.absolute()} is the folder around the data: give {inner.absolute()}.")
    if not layout:
        raise UserError(
            f"{root.absolute()} has no images/ beside masks/, no train/ with these two, and is neither ADE20K "
            f"(images/training, annotations/training) nor Cityscapes (leftImg8bit, gtFine): arrange it like one."
        )
    if _is_ade20k(root, layout):
        classes = ADE20K_CLASSES
        table = np.concatenate(([IGNORE], np.arange(len(classes)))).astype(np.uint8)
        reader = MaskFiles(table, np.ones(len(table), bool))
    else:
        classes = _class_list(root)
        reader = _plain(len(classes))
    train, val, test = choose_splits(layout, place=root)
    if len(layout) == 1:
        train, val, test = next(iter(layout)), None, None

    def open_split(name: str | None) -> Split:
        if name is None:
            raise UserError(f"{root.absolute()} has {', '.join(layout)} but no train: add it, or give one of them.")
        if name == train and (left := [other for other in layout if other not in (train, val)]):
            log.info("%s: left out %s", root.absolute(), ", ".join(left))
        return _split(_pairs(*layout[name], problems), reader, classes, problems)

    val, test = (partial(open_split, name) if name else None for name in (val, test))
    return Openers(partial(open_split, train), val, test)


def _is_ade20k(root: Path, layout: Mapping[str, tuple[Path, Path]]) -> bool:
    """Others have such folders too (converters of DRIVE, STARE), but not its list of classes or names of images."""
    if "training" not in layout or not (root / "annotations").is_dir() or (root / "classes.txt").exists():
        return False
    lists = ("objectInfo150.txt", "sceneCategories.txt")
    return any((root / name).is_file() for name in lists) or any(layout["training"][0].glob("ADE_*"))


def _layout(root: Path, problems: Problems) -> dict[str, tuple[Path, Path]]:
    """Folders of images and masks, by split; "" where they are not split."""
    for masks in MASK_FOLDERS:
        if (root / "images").is_dir() and (root / masks).is_dir():
            beside = {folder.name: folder for folder in folders_in(root / masks)}
            spelled = {split_of(name): folder for name, folder in beside.items() if split_of(name)}
            found = {
                folder.name: (folder, twin)
                for folder in folders_in(root / "images")
                if (twin := beside.get(folder.name) or spelled.get(split_of(folder.name)))
            }
            for path in sorted((root / "images").iterdir()) if found else ():
                if path.suffix.lower() in EXTENSIONS and path.is_file() and not is_ignored(path.name):
                    problems.add("images beside the folders of the splits, left out", str(path), lost="images")
            return found or {"": (root / "images", root / masks)}
    found = {}
    for folder in folders_in(root):
        for masks in MASK_FOLDERS:
            if (folder / "images").is_dir() and (folder / masks).is_dir():
                found.setdefault(folder.name, (folder / "images", folder / masks))
    return found


def _class_list(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    lines = read_lines(path, mend="write the class names there, one per line; line 1 is id 0")
    if not 2 <= len(lines) <= IGNORE:
        raise UserError(
            f"{path.absolute()} has {counted(len(lines), 'classes')}; give 2 to {IGNORE}, one name per line."
        )
    for number, name in enumerate(lines, 1):
        if not name or name in lines[: number - 1]:
            raise UserError(f"{path.absolute()} line {number} {'repeats ' + name if name else 'is empty'}: mend it.")
    return tuple(lines)


def _plain(classes: int) -> MaskFiles:
    table = np.full(256, IGNORE, np.uint8)
    table[:classes] = np.arange(classes)
    known = np.arange(256) < classes
    known[IGNORE] = True
    return MaskFiles(table, known)


def _cityscapes(root: Path, problems: Problems) -> Openers:
    def open_split(split: str) -> Split:
        def ending(folder: str, ending: str) -> dict[str, Path]:
            files = files_in(root / folder / split, (".png",))
            return {path.name.removesuffix(ending): path for path in files if path.name.endswith(ending)}

        ids = ending("gtFine", "_gtFine_labelTrainIds.png")
        reader = _plain(len(CITYSCAPES_CLASSES))
        if not ids:
            ids = ending("gtFine", "_gtFine_labelIds.png")
            table = np.full(34, IGNORE, np.uint8)
            table[list(CITYSCAPES_IDS)] = np.arange(len(CITYSCAPES_CLASSES))
            reader = MaskFiles(table, np.ones(len(table), bool))
        images = ending("leftImg8bit", "_leftImg8bit.png")
        pairs = _match(images, ids, str(root / "leftImg8bit" / split), problems)
        return _split(pairs, reader, CITYSCAPES_CLASSES, problems)

    there = {folder.name for folder in folders_in(root / "leftImg8bit")}
    val, test = (partial(open_split, name) if name in there else None for name in ("val", "test"))
    return Openers(partial(open_split, "train"), val, test)


def _pairs(images: Path, masks: Path, problems: Problems) -> list[Pair]:
    def find(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in files_in(folder, suffixes):
            name = str(path.relative_to(folder).with_suffix(""))
            if name in found:
                example = f"{path}, beside {found[name].name}"
                problems.add("files of a name that another has, left out", example, lost="images")
            found.setdefault(name, path)
        return found

    return _match(find(images, EXTENSIONS), find(masks, (".png",)), str(images), problems)


def _match(images: dict[str, Path], masks: dict[str, Path], place: str, problems: Problems) -> list[Pair]:
    for name in sorted(images.keys() - masks.keys()):
        problems.add("images without a mask, left out", str(images[name]), lost="images")
    for name in sorted(masks.keys() - images.keys()):
        problems.add("masks without an image, left out", str(masks[name]), lost="images")
    pairs = [Pair(str(images[name]), str(masks[name])) for name in sorted(images.keys() & masks.keys())]
    if not pairs:
        raise UserError(
            f"No image in {place} has a PNG mask of its name ({counted(len(images), 'images')}, "
            f"{counted(len(masks), 'masks')}): call them alike, as a/x.jpg and a/x.png."
        )
    return pairs


def _split(pairs: list[Pair], reader: MaskFiles, classes: tuple[str, ...], problems: Problems) -> Split:
    masks = [size_of(pair.mask) for pair in pairs]
    kind = "masks of another size than the image, both left out"
    fits = fit_sizes([pair.path for pair in pairs], masks, problems, kind=kind, examples=[pair.mask for pair in pairs])
    fitting = [(pair, fit) for pair, fit in zip(pairs, fits, strict=True) if fit]
    kept = [pair._replace(orientation=fit.orientation) for pair, fit in fitting]
    sizes = [fit.upright for _, fit in fitting]
    if not kept:
        raise UserError(
            f"None of {counted(len(pairs), 'masks')} has the size of its image; the first is {pairs[0].mask}."
        )
    _look(some(kept), reader, len(classes), problems)
    return Split(reader=reader, entries=kept, classes=classes, things=(False,) * len(classes), sizes=sizes)


def _look(pairs: Sequence[Pair], reader: MaskFiles, classes: int, problems: Problems) -> None:
    """Look at the ids of some masks: unknown ids are counted; colors, black and white, and no class are refused."""
    seen: set[int] = set()
    for pair in pairs:
        try:
            ids = read_mask(pair.mask)
        except NotIdsError:
            raise
        except BadImageError:
            continue
        seen |= set(np.unique(ids).tolist())
        if strange := reader.strange(ids):
            kind = f"masks with ids that have no class ({len(pairs)} looked at), such pixels ignored"
            problems.add(kind, f"{pair.mask}, {preview([str(i) for i in strange])}")
    if seen and not any(i < len(reader.table) and reader.table[i] != IGNORE for i in seen):
        raise UserError(
            f"The masks beside {os.path.dirname(pairs[0].path)} have no pixel of a class, only the ids "
            f"{preview([str(i) for i in sorted(seen)])}: write the number of its class at every pixel."
        )
    if seen == {0, IGNORE} and classes == 2:
        raise UserError(
            f"The masks beside {os.path.dirname(pairs[0].path)} hold 0 and 255 only, and 255 means not scored: write "
            f"1 for the second class."
        )
