"""Images that are there more than once: with the same pixels, or nearly.

    same     the pixels of both have one hash (BLAKE2b), whatever files they were written to
    near     their thumbnails of 16 x 16 grey values, each less its mean and divided by its length, have a product of
             0.995 or more: the image saved again, resized, a little brighter; the next frame of a film

Every pair within that distance cannot be compared where there are a million images. Those that may be near are found by
random projections (SimHash, Charikar 2002): 16 words of 24 bits, each bit the sign of a product with a fixed random
vector, of half of the words after the mean of all thumbnails is taken off. Two near thumbnails differ in one word of 24
bits about every second time, so in all of 16 almost never; of images with one word in common, neighbours in its order
are compared. Thumbnails of one shade are near to nothing.

An image costs 272 bytes.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import PIL.Image

from focalnet.inputs.image import Bands, Signal

SIDE = 16
"""Of a thumbnail, in pixels."""
NEAR = 0.995
FLAT = 3.0
"""Standard deviation of grey values, of 0 to 255, below which a thumbnail is one shade."""
WORDS, BITS = 16, 24
NEIGHBOURS = 16
"""Images with one word in common that are compared with each."""
ROWS = 65536
"""Images that are worked on at once."""


class Twins(NamedTuple):
    """Two images, by their places, that are the same or nearly."""

    first: int
    second: int
    same: bool


def fingerprint(signal: Signal) -> tuple[bytes, np.ndarray]:
    """The hash of the pixels of an image, 16 bytes, and its thumbnail, (16, 16), uint8."""
    pixels = signal.values if isinstance(signal, Bands) else np.asarray(signal)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    image = signal.convert("RGB") if isinstance(signal, Bands) else signal
    small = image.resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
    return digest.digest(), np.asarray(small.convert("L"))


def find_twins(hashes: np.ndarray, thumbnails: np.ndarray) -> list[Twins]:
    """Images that are there twice: of each the first one that it repeats, or is near to.

    Args:
        hashes: (N,), "S16" or void, of the pixels.
        thumbnails: (N, 16, 16), uint8.

    Returns:
        at most one pair for every image, in their order; those that are the same are not told as near too.
    """
    count = len(hashes)
    firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)[1:]
    earliest = firsts[inverse]
    twins = [Twins(int(earliest[i]), i, True) for i in np.flatnonzero(earliest != np.arange(count)).tolist()]
    distinct = np.sort(firsts)
    near = _near(thumbnails[distinct])
    twins += [Twins(int(distinct[first]), int(distinct[second]), False) for second, first in near.items()]
    return sorted(twins, key=lambda pair: pair.second)


def _near(thumbnails: np.ndarray) -> dict[int, int]:
    """Place of an image -> that of an earlier one that it is near to."""
    flat = thumbnails.reshape(len(thumbnails), -1)
    places = np.flatnonzero(flat.std(1) >= FLAT)
    if len(places) < 2:
        return {}
    flat = flat[places]
    vectors = np.random.default_rng(0).standard_normal((flat.shape[1], WORDS * BITS), np.float32)
    mean = np.mean([_unit(flat[start : start + ROWS]).mean(0) for start in range(0, len(flat), ROWS)], 0)
    shift = mean @ vectors
    shift[: WORDS * BITS // 2] = 0  # half of the words about the mean: images of one kind are all alike about nothing
    words = np.empty((len(flat), WORDS), np.int32)
    powers = 1 << np.arange(BITS, dtype=np.int32)
    for start in range(0, len(flat), ROWS):
        signs = _unit(flat[start : start + ROWS]) @ vectors > shift
        words[start : start + ROWS] = signs.reshape(-1, WORDS, BITS) @ powers
    found: dict[int, int] = {}
    for word in words.T:
        order = np.argsort(word, kind="stable")
        for step in range(1, NEIGHBOURS + 1):
            earlier, later = order[:-step], order[step:]
            alike = np.flatnonzero(word[earlier] == word[later])
            if not len(alike):
                break
            for start in range(0, len(alike), ROWS):
                pairs = np.sort((earlier[alike[start : start + ROWS]], later[alike[start : start + ROWS]]), 0)
                close = (_unit(flat[pairs[0]]) * _unit(flat[pairs[1]])).sum(1) >= NEAR
                for first, second in zip(*places[pairs[:, close]].tolist(), strict=True):
                    found[second] = min(first, found.get(second, first))
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows (N, K), uint8, less their means, of length 1; float32."""
    centred = rows.astype(np.float32)
    centred -= centred.mean(1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
