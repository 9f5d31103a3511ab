"""`focalnet check`."""

from pathlib import Path
from typing import Any, Literal

import tyro

from focalnet.errors import UserError
from focalnet.inputs.image import Range
from focalnet.reading import write_json


def check(
    data: tyro.conf.Positional[str],
    task: str | None = None,
    out: Path | None = None,
    model: str | None = None,
    augment: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    range: Range | None = None,  # noqa: A002
    val_fraction: float = 0.2,
    seed: int = 0,
    on_bad_image: Literal["stop", "skip"] = "stop",
    on_bad_annotation: Literal["skip", "stop"] = "skip",
    json: bool = False,
) -> None:
    """Look at all images and labels of a data set before anything is trained on it.

    Tells images per class and split, sizes, files that cannot be read, images that are there twice or on both splits,
    boxes and label maps that are wrong. Exits with 2 where a training would be wrong. `focalnet train` begins with it.

    Args:
        data: What `focalnet train --data` takes.
        task: What to train for: classify, detect, segment or panoptic; without it, what the data looks like.
        out: A folder for check.html (labels drawn, what the augmentation makes of ten images) and check.json.
        model: The network whose input and augmentation are shown; without it, the one that is trained by default.
        augment: As in `focalnet train`.
        image_size: As in `focalnet train`.
        channels: As in `focalnet train`.
        range: As in `focalnet train`.
        val_fraction: Share set aside for validation where the data has no split of its own.
        seed: Of that split.
        on_bad_image: "skip" where training is to go on without what cannot be read.
        on_bad_annotation: As in `focalnet train`.
        json: Print everything as JSON.
    """
    from focalnet.engine.check import check as look

    found = look(
        data, task=task, out=out, model=model, augment=augment, image_size=image_size, channels=channels, range=range,
        val_fraction=val_fraction, seed=seed, on_bad_image=on_bad_image, on_bad_annotation=on_bad_annotation,
    )  # fmt: skip
    if json:
        print(write_json(found.to_dict(), 2))
    else:
        _tell(found)
    if out is not None and not json:
        print(out / "check.html")
    if found.errors:
        count = len(found.errors)
        raise UserError(f"{data}: {count} {'error' if count == 1 else 'errors'}, see above; a training would be wrong.")


def _tell(found: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from focalnet.engine.check_page import class_table, split_line

    print(f"{found.description}; --task {found.task}")
    for split in found.facts.splits:
        print(split_line(split))
    head, *rows = class_table(found.facts)
    table = Table()
    for column, name in enumerate(head):
        table.add_column(name, no_wrap=column == 0, justify="left" if column == 0 else "right")
    for row in rows[:MOST_ROWS]:
        table.add_row(*map(str, row))
    Console().print(table)
    if len(rows) > MOST_ROWS:
        print(f"and {len(rows) - MOST_ROWS} more classes; --json tells all")
    for kind, texts in (("warning", found.warnings), ("error", found.errors)):
        for text in texts:
            print(f"{kind}: {text}")
    if not found.faults:
        print("nothing is wrong")


MOST_ROWS = 40
"""Classes in the table of a terminal."""
