"""Small sets of labelled images, and how tests open them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focalnet.data import Datasets, Samples, open_data, open_evaluation
from focalnet.errors import UserError


def open_classes(source, *, val_fraction=0.25, seed=0, on_bad_image="stop") -> Datasets:
    source = None if source is None else str(source)
    return open_data("class", source, val_fraction=val_fraction, seed=seed, on_bad_image=on_bad_image)


def open_everything(source, classes, num_classes=None, *, on_bad_image="stop", split=None) -> Samples:
    source, count = None if source is None else str(source), num_classes or len(classes)
    return open_evaluation("class", source, classes, count, on_bad_image=on_bad_image, split=split)


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Path, **classes: int) -> Path:
    """Class folders with the given numbers of images."""
    for label, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index}.png").write_bytes(png(16 * label + index))
    return root


def dark_and_light(root: Path, shape: tuple[int, int], *, dark: int, light: int, seed=0, suffix="png") -> Path:
    """Two classes of noisy images of a height and a width, which a network tells apart in a few steps."""
    rng = np.random.default_rng(seed)
    for start, name, count in ((0, "dark", dark), (127, "light", light)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 128, (*shape, 3)) + start
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.{suffix}")
    return root


def paths(samples: Samples) -> list[str]:
    return [sample.path for sample in samples]


def refuse(source, message: str, **options) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_classes(source, **options)
    assert "\n" not in str(caught.value)
