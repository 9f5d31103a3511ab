"""From a source, one string, to data sets: both splits for training, or one for evaluation.

What a source may be is the table in `register.py`. Where it has no validation split of its own, a share is set aside
at random: of each class where every sample has one or several, else of all samples.
"""

import logging
from collections import Counter
from collections.abc import Sequence

from focalnet.data.base import Crowd, Datasets, OnBadImage, Opener, Request, Samples, Split, SplitName
from focalnet.data.kinds import UNLABELED, noun_of
from focalnet.data.problems import WORDS, Finding, OnBadAnnotation, Problems, preview, settle
from focalnet.data.register import find_format
from focalnet.data.splits import identities, multilabel_split, random_split, stratified_split
from focalnet.errors import UserError, agreeing, counted
from focalnet.labels import COCO_CLASSES, COCO_RAW_CLASSES

log = logging.getLogger(__name__)


def open_data(
    kind: str,
    source: str | None,
    *,
    val_fraction: float,
    seed: int,
    on_bad_image: OnBadImage,
    on_bad_annotation: OnBadAnnotation = "skip",
    masks: bool = True,
    crowd: Crowd | None = None,
) -> Datasets:
    """Open data for training.

    Args:
        kind: "class", "multilabel", "detection", "semantic", "panoptic", …; `kinds.py` says what their samples hold.
        source: see `register.py`; None for what is made of the digits inside scikit-learn.
        val_fraction: share of the samples set aside where the source has no validation split of its own.
        seed: of that split. The digits are always split the same way.
        on_bad_image: an image that cannot be read stops the run, or is skipped (`Samples`).
        on_bad_annotation: broken annotations are mended or left out, and counted in one line of the log, or stop.
        masks, crowd: of detection, see `Request`.

    Returns:
        both splits, as `Samples`; no image is decoded yet.

    Raises:
        UserError: nothing there, fewer than two classes to tell apart, other classes in validation than in training,
            less than half of a split left, the same images in both, or broken annotations with "stop". The message
            names the place.
    """
    row, place = find_format(kind, source)
    problems = Problems()
    openers = row.open(place, Request(kind, problems, masks, crowd))
    train, found = _open(openers.train, problems, place, kind)
    val, val_found = _open(openers.val, problems, place, kind) if openers.val else (None, ())
    opened = [train.findings("train", found)] + ([val.findings("val", val_found)] if val else [])
    settle(place, opened, on_bad_annotation)
    if kind == "detection" and crowd is None:
        _check_crowds(train, place)
    classes = train.classes
    if train.names is not None and len(classes) < 2:
        raise UserError(
            f"{place} has {counted(len(classes), 'classes')} ({preview(classes)}); a classifier needs two or more."
        )
    if val is None:
        if train.names is not None:
            kept, held_out = stratified_split(train.names, val_fraction, seed, noun_of(kind))
        elif train.whole:
            kept, held_out = multilabel_split(train.labels or (), val_fraction, seed, place)
        else:
            kept, held_out = random_split(len(train), val_fraction, seed, place, noun_of(kind))
        train, val = train.take(kept), train.take(held_out)
        how = f"set aside, share {val_fraction}, seed {seed}"
    else:
        _check_classes(val, classes, f"the validation split of {place}", "the training split")
        if val.names is not None and (missing := _missing(classes, val)):
            log.warning("%s: no validation %s for %s; validated without", place, noun_of(kind), preview(missing))
        _check_objects(val, place, "validation", "evaluate on")
        how = "its own split"
    val, twice = _apart(train, val, place, noun_of(kind))
    _check_objects(train, place, "training", "train on")
    if unseen := _missing(classes, train):
        log.warning("%s: nothing to train on for %s", place, preview(unseen))
    told = "" if kind in UNLABELED else f"{counted(len(classes), 'classes')}, "
    description = (
        f"{place}: {told}{len(train)} training and {counted(len(val), f'validation {noun_of(kind)}s')} ({how})"
    )
    findings = train.findings("train", found), val.findings("val", (*val_found, *twice))
    first, second = (
        Samples(split, classes, on_bad_image, told, kind) for split, told in zip((train, val), findings, strict=True)
    )
    return Datasets(classes, first, second, description, first.things, findings, openers.val is None)


def open_evaluation(
    kind: str,
    source: str | None,
    classes: Sequence[str] | None,
    num_classes: int,
    *,
    on_bad_image: OnBadImage,
    on_bad_annotation: OnBadAnnotation = "skip",
    masks: bool = True,
    crowd: Crowd | None = None,
    split: SplitName | None = None,
) -> Samples:
    """Open data to evaluate a trained model on: the validation split if the source has one, else everything.

    No other split needs to be there.

    Labels follow the names of the model's classes, whatever their order in the source. Where the model has no names,
    or none of them is in the source (English names, and ImageNet's folders n01440764 and so on), the classes of the
    source count in their order, and there must be `num_classes` of them. A model of 91 classes without names that
    meets COCO's 80 counts by COCO's raw ids, as the released DINO does.

    Args:
        kind, source, on_bad_image, on_bad_annotation, masks, crowd: as in `open_data`.
        classes: names of the model's classes in the order of its labels, or None.
        num_classes: of the model.
        split: "train", "val" or "test" to evaluate on that one.

    Raises:
        UserError: nothing there, no such split, too little of it left, or classes that the model does not have.
    """
    row, place = find_format(kind, source)
    problems = Problems()
    openers = row.open(place, Request(kind, problems, masks, crowd))
    opener = {"train": openers.train, "val": openers.val, "test": openers.test}[split] if split else openers.val
    if opener is None and split is not None:
        raise UserError(f"{place} has no {split} split; leave --split out, or give data that has one.")
    opened, found = _open(opener or openers.train, problems, place, kind)
    findings = opened.findings(split or ("val" if opener else "train"), found)
    settle(place, [findings], on_bad_annotation)
    _check_objects(opened, place, WORDS[findings.split], "evaluate on")
    if kind in UNLABELED:
        return Samples(opened, (), on_bad_image, findings, kind)
    theirs = opened.classes
    if opened.names is not None and len(theirs) != num_classes and not set(theirs) & set(classes or ()):
        theirs = openers.train().classes  # folders may lack some classes, and their order is to count
    if classes is None and num_classes == len(COCO_RAW_CLASSES) and theirs == COCO_CLASSES:
        classes = COCO_RAW_CLASSES
    if len(theirs) == num_classes and not set(theirs) & set(classes or ()):
        if classes is not None:
            log.warning("%s: no class is called as in the model; taken for the same %d in order", place, num_classes)
        classes = theirs
    if classes is None:
        raise UserError(
            f"{place} has {counted(len(theirs), 'classes')}, the model {num_classes} without names: give as many."
        )
    _check_classes(opened, classes, place, "the model")
    return Samples(opened, classes, on_bad_image, findings, kind)


def _open(opener: Opener, problems: Problems, place: str, kind: str) -> tuple[Split, tuple[Finding, ...]]:
    """A split, and what was found since the one before it; an error names the counted reasons first."""
    try:
        split = opener()
    except UserError as error:
        if not (found := problems.take()):
            raise
        raise UserError(f"{place}: {'; '.join(map(str, found))}. {error}") from error
    found = problems.take()
    if not len(split) and not any(finding.lost == "images" for finding in found):
        raise UserError(f"{place} has a split without {noun_of(kind)}s: add some, or take it out.")
    return split, found


def _apart(train: Split, val: Split, place: str, noun: str) -> tuple[Split, tuple[Finding, ...]]:
    """The validation split without the files that are trained on.

    Raises:
        UserError: less than half of it would be left.
    """
    names = [[split.reader.name(entry) for entry in split.entries] for split in (train, val)]
    first, second = identities(*names)
    known = set(first)
    if repeated := len(first) - len(known):
        there = f"{counted(repeated, f'training {noun}s')} {agreeing(repeated, 'are')}"
        log.warning("%s: %s there more than once", place, there)
    both = {index for index, key in enumerate(second) if key in known}
    if not both:
        return val, ()
    kind = f"{noun}s of the training split, left out of validation"
    finding = Finding(kind, len(both), names[1][min(both)], "images", broken=False)
    if 2 * len(both) > len(val):
        share = f"{len(both)} of {counted(len(val), f'validation {noun}s')} {agreeing(len(both), 'are')}"
        raise UserError(
            f"{place}: {share} in the training split too (first: {finding.first}): "
            f"an evaluation on them says nothing. Keep each {noun} in one split."
        )
    log.warning("%s: %s", place, finding)
    return val.take(index for index in range(len(val)) if index not in both), (finding,)


def _check_objects(split: Split, place: str, what: str, use: str) -> None:
    found = split.findings("")
    if found.annotations is not None and found.annotations == found.crowd:
        lack = f"crowd regions only ({found.crowd})" if found.crowd else f"no {'labels' if split.whole else 'objects'}"
        raise UserError(
            f"{place} has {lack} on its {counted(found.images, f'{what} images')}: there is nothing to {use}."
        )


def _check_crowds(train: Split, place: str) -> None:
    """Stop where one class, but not every one, has crowd regions only.

    Raises:
        UserError: one has.
    """
    regions: Counter[int] = Counter()
    objects: set[int] = set()
    for labels, flags in zip(train.labels or (), train.crowd or (), strict=False):
        for label, is_crowd in zip(labels, flags, strict=True):
            regions[label] += int(is_crowd)
            if not is_crowd:
                objects.add(label)
    bare = [f"{train.classes[label]} ({count})" for label, count in sorted(regions.items()) if label not in objects]
    if bare and objects:
        raise UserError(
            f"{place} has nothing but crowd regions (iscrowd 1) of {preview(bare)}, which are not learned: if they are "
            "single objects, painted with a brush, --crowd learn; --crowd ignore goes on without."
        )


def _missing(classes: Sequence[str], split: Split) -> list[str]:
    occurring = set(split.occurring())
    return [name for name in classes if name not in occurring]


def _check_classes(split: Split, known: Sequence[str], place: str, owner: str) -> None:
    if strange := [name for name in split.occurring() if name not in set(known)]:
        raise UserError(
            f"{place} has classes that {owner} does not have: {preview(strange)}; known: {preview(known)}. "
            f"Give both the same class names."
        )
