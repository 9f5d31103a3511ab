"""The page that `focalnet check --out` writes: what is wrong, what is there, labels drawn, augmentation, doubles."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from focalnet.data.base import Datasets
from focalnet.data.check import UNREADABLE, Facts, SplitFacts
from focalnet.data.faults import Check
from focalnet.data.problems import WORDS
from focalnet.engine.run import write_atomically
from focalnet.inputs.image import BadImageError
from focalnet.tasks.base import ImageTask
from focalnet.visualize.data_plots import class_bars, size_plot
from focalnet.visualize.draw import side_by_side
from focalnet.visualize.page import Group, Section, Shot, Value, page
from focalnet.weights.spec import ModelSpec

SHOWN = {"train": 24, "val": 8}
"""Images whose labels are drawn."""
AUGMENTED, DRAWS = 10, 3
"""Images whose augmentation is shown, and how often each."""
DOUBLES = 12
"""Images that are there twice that are shown."""
ROWS = 200
"""Reasons that are listed."""


def write_page(path: Path, check: Check, task: ImageTask, spec: ModelSpec, data: Datasets) -> None:
    """Write the page of a check.

    Args:
        path: the HTML file.
        check: what was found.
        task: draws samples.
        spec: of the network that would be trained.
        data: whose images are shown.

    Raises:
        UserError: it cannot be written, or is larger than the disk.
    """
    facts = check.facts
    counts = [(len(texts), word) for texts, word in ((check.errors, "error"), (check.warnings, "warning")) if texts]
    verdict = ", ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in counts) or "nothing is wrong"
    sections = [
        *_faults(check), _splits(facts), *_classes(facts), *_sizes(facts), _labels(task, data),
        _augmentation(task, spec, data), *_doubles(task, facts, data),
    ]  # fmt: skip
    title = f"{Path(check.data).name}: {verdict}"
    lead = f"{check.description}. Checked for --task {check.task}."
    write_atomically(path, page(title, sections, lead=lead))


def _faults(check: Check) -> Iterator[Section]:
    left_out = [str(finding) for finding in check.left_out]
    for title, texts, what in (
        ("Errors", check.errors, "a training would be wrong"),
        ("Warnings", check.warnings, "worth knowing"),
        ("Left out or mended", left_out, "when the data was opened"),
    ):
        if texts:
            yield Section(title, table=[(what,), *((text,) for text in texts)])
    reasons = [(WORDS[split.split], reason) for split in check.facts.splits for reason in split.unreadable[:ROWS]]
    if reasons:
        yield Section("Images that cannot be read", table=[("split", "why"), *reasons], folded=len(reasons) > 10)


def spread(values: Sequence[int]) -> str:
    """Least, median and greatest of numbers, for a line."""
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}, median {statistics.median_low(values)}"


def _splits(facts: Facts) -> Section:
    groups = []
    for split in facts.splits:
        values = [
            Value("images", split.images),
            Value("unreadable", split.found.get(UNREADABLE, (0, ""))[0]),
            Value("width", spread([width for width, _ in split.sizes])),
            Value("height", spread([height for _, height in split.sizes])),
            *(Value(f"files: {kind}", count) for kind, count in list(split.kinds.items())[:6]),
            Value("values", "–" if split.values is None else "{:g} to {:g}".format(*split.values)),
        ]
        groups.append(Group(WORDS[split.split], values))
    return Section("Images", groups=groups)


def class_table(facts: Facts) -> list[list[Any]]:
    """Classes as rows, the head first: images, objects and share of the pixels in each split."""
    columns: list[tuple[str, str, Any]] = [("images", "{} images", lambda row, _: row.images)]
    if any(row.objects for split in facts.splits for row in split.classes):
        columns.append(("objects", "{} objects", lambda row, _: row.objects))
    totals = {split.split: max(1, sum(row.pixels for row in split.classes)) for split in facts.splits}
    if facts.kind == "semantic":
        columns.append(("pixels", "{} pixels", lambda row, split: f"{row.pixels / totals[split]:.2%}"))
    head = ["class", *(text.format(WORDS[split.split]) for split in facts.splits for _, text, _ in columns)]
    names = [row.name for row in facts.splits[0].classes]
    body = [
        [name, *(value(split.classes[index], split.split) for split in facts.splits for _, _, value in columns)]
        for index, name in enumerate(names)
    ]
    return [head, *body]


def _classes(facts: Facts) -> Iterator[Section]:
    names = [row.name for row in facts.splits[0].classes]
    unit = "objects" if any(row.objects for split in facts.splits for row in split.classes) else "images"
    counts = {WORDS[split.split]: [getattr(row, unit) for row in split.classes] for split in facts.splits}
    yield Section("Classes", png=class_bars(names, counts, unit), table=class_table(facts), folded=len(names) > 30)


def _sizes(facts: Facts) -> Iterator[Section]:
    sizes = {WORDS[split.split]: split.sizes for split in facts.splits}
    if len({size for pairs in sizes.values() for size in pairs}) > 1:
        yield Section("Sizes", "The dotted line is a square.", png=size_plot(sizes))


def _some(dataset: Any, most: int) -> Iterator[Any]:
    """Samples evenly spread that can be read."""
    for index in range(0, len(dataset), max(1, -(-len(dataset) // most))):
        try:
            yield dataset.read(index)
        except BadImageError:
            continue


def _labels(task: ImageTask, data: Datasets) -> Section:
    shots = [
        Shot(task.draw_truth(sample, data.classes), note=f"{WORDS[split]}: {_short(sample.path)}")
        for split, dataset in (("train", data.train), ("val", data.val))
        for sample in _some(dataset, SHOWN[split])
    ]
    return Section("Labels", "Images evenly spread over both splits, with what is known of them.", gallery=shots)


def _augmentation(task: ImageTask, spec: ModelSpec, data: Datasets) -> Section:
    torch.manual_seed(0)
    shots, height, width = [], *spec.preprocessing.size
    for sample in _some(data.train, AUGMENTED):
        shots.append(Shot(task.draw_truth(sample, data.classes), "as it is", _short(sample.path)))
        for _ in range(DRAWS):
            shots.append(Shot(task.draw_truth(task.augmented(spec, sample), data.classes), "as it is trained on"))
    how = getattr(task, "augment", "none")
    text = f"Images as {task.model} sees them in training: --augment {how}, for {width} x {height} pixels."
    return Section("What the augmentation makes of them", text, gallery=shots)


def _doubles(task: ImageTask, facts: Facts, data: Datasets) -> Iterator[Section]:
    order = ("same both", "near both", "same train", "near train", "same val", "near val")
    twins = sorted(facts.twins, key=lambda twin: (not twin.contradict, order.index(twin.kind)))
    shots = []
    for twin in twins[:DOUBLES]:
        first, second = ("train", "val") if twin.kind.endswith("both") else (twin.kind.split()[1],) * 2
        samples = [getattr(data, split).read(place) for split, place in zip((first, second), twin.places, strict=True)]
        one, other = (task.draw_truth(sample, data.classes) for sample in samples)
        drawn = side_by_side(one, other, (WORDS[first], WORDS[second]))
        caption = f"{'the same pixels' if twin.kind.startswith('same') else 'nearly the same'}"
        caption += ", of different classes" if twin.contradict else ""
        shots.append(Shot(drawn, caption, " and ".join(map(_short, twin.names))))
    if shots:
        total = sum(count for kind, count in facts.repeats.items() if kind != "same classes")
        text = f"{len(shots)} of {total}; check.json names {min(total, len(facts.twins))}."
        yield Section("Images that are there twice", text, gallery=shots, columns=3)


def _short(path: str) -> str:
    """The last parts of a path."""
    return "/".join(Path(path).parts[-3:])


def split_line(split: SplitFacts) -> str:
    """A split in one line."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in list(split.kinds.items())[:4])
    size = f"{spread([w for w, _ in split.sizes])} wide, {spread([h for _, h in split.sizes])} high"
    values = "" if split.values is None else "; values {:g} to {:g}".format(*split.values)
    return f"{WORDS[split.split]}: {split.images} images, {size}; {kinds}{values}"
