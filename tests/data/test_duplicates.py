"""Images that are there twice are found: by their pixels, saved again, resized, brighter; others are not taken for
them, also among thousands."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from focalnet.data.duplicates import Twins, find_twins, fingerprint
from focalnet.inputs.image import Bands


def picture(seed: int, side: int = 64) -> Image.Image:
    """Smooth noise with some detail."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3)).astype(np.uint8)).resize((side, side), 3)
    noise = rng.integers(-12, 13, (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8))


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def twins_of(images):
    hashes, thumbnails = zip(*map(fingerprint, images), strict=True)
    return find_twins(np.array(hashes, "V16"), np.stack(thumbnails))


def test_the_same_pixels():
    images = [picture(seed) for seed in range(5)]
    copies = [*images, images[3].copy(), images[1].copy(), images[3].copy()]
    assert twins_of(copies) == [Twins(3, 5, True), Twins(1, 6, True), Twins(3, 7, True)]
    one_off = np.array(images[0])
    one_off[5, 5, 0] ^= 1
    assert twins_of([images[0], Image.fromarray(one_off)]) == [Twins(0, 1, False)]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: as_jpeg(image, 70),
        lambda image: image.resize((96, 96)),
        lambda image: image.resize((40, 32)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    ],
    ids=["jpeg", "larger", "smaller", "darker"],
)
def test_the_same_image_saved_otherwise(change):
    images = [picture(seed) for seed in range(8)]
    assert twins_of([*images, change(images[6])]) == [Twins(6, 8, False)]


def test_what_only_looks_alike_is_apart():
    images = [picture(seed) for seed in range(8)]
    mirrored = images[2].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    cut = images[3].crop((8, 8, 64, 64))
    assert twins_of([*images, mirrored, cut]) == []
    shades = [Image.new("RGB", (8, 8), (grey,) * 3) for grey in (10, 20, 200)]
    assert twins_of(shades) == []  # one shade is near to nothing


def test_a_pair_among_thousands_and_crowds_of_alike_ones():
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (1500, 16, 16)).astype(np.uint8)
    again = np.clip(thumbnails[:100].astype(int) + rng.integers(-6, 7, (100, 16, 16)), 0, 255).astype(np.uint8)
    whole = np.concatenate((thumbnails, again))
    hashes = np.array([index.to_bytes(16, "little") for index in range(len(whole))], "V16")
    found = {(pair.first, pair.second) for pair in find_twins(hashes, whole)}
    assert found == {(index, 1500 + index) for index in range(100)}
    # of many that are alike each is compared with some, which is enough to tell nearly all
    crowd = np.clip(thumbnails[:1].astype(int) + rng.integers(-6, 7, (500, 16, 16)), 0, 255).astype(np.uint8)
    assert len(find_twins(hashes[:500], crowd)) >= 475


def test_images_with_bands():
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 5)).astype(np.uint8)
    other = values.copy()
    other[..., 4] ^= 255  # a band that is not shown
    assert twins_of([Bands(values), Bands(values.copy()), Bands(other)]) == [Twins(0, 1, True), Twins(0, 2, False)]
