"""Signals that a run was not trained on."""

from collections.abc import Callable
from typing import Any

from focalnet.errors import UserError
from focalnet.inputs.image import load_image


def held_out(
    model: str,
    most: int = 16,
    load: Callable[..., Any] = load_image,
    unreadable: dict[str, UserError] | None = None,
) -> list[tuple[str, Any]]:
    """Names and signals (images) that a run was not trained on, spread over its validation split.

    Args:
        model: a run folder.
        most: how many, at most.
        load: reads an image.
        unreadable: takes in what cannot be read, and why; the others are then found all the same.

    Raises:
        UserError: `model` is no run folder.
    """
    from focalnet.data.survey import reading
    from focalnet.engine.evaluate import own_split
    from focalnet.engine.record import load_run
    from focalnet.engine.run import RunFolder, is_run
    from focalnet.models.create import load_model

    if not is_run(model):
        raise UserError(f"{model} is no run folder with images of its own; name an image, folder, glob or URL.")
    run = RunFolder.open(model)
    task, config = load_run(run)
    dataset = reading(own_split(run, task, config, lambda: load_model(model, None).spec)[0], load)
    step = max(1, len(dataset) // most)
    found = []
    for index in range(0, len(dataset), step)[:most]:
        try:
            found.append(task.signal(dataset[index]))
        except UserError as error:
            if unreadable is None:
                raise
            unreadable[f"sample {index}"] = error
    return found
