"""Decoded images in memory that all processes which prepare samples share.

    header   bytes in use; of each sample its first byte, height and width (height 0: not here)
    pixels   RGB, image after image, in the order in which they were first asked for

What is full stays as it is: later images are decoded each time. An image out of it has the pixels that its file has.
"""

from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.heap import BufferWrapper
from typing import Any

import numpy as np
import PIL.Image

from focalnet.data.base import Datasets, Load, Samples


class Cache:
    """The images of a data set, as far as they fit.

    Args:
        samples: how many there are.
        limit: bytes of pixels.
    """

    def __init__(self, samples: int, limit: int) -> None:
        self.samples, self.limit = samples, limit
        self.header = 8 * (1 + 3 * samples)
        self.buffer = BufferWrapper(self.header + limit)  # pages count from their first use
        self.lock = get_context().Lock()
        self._numbers()[:] = 0

    def _numbers(self) -> np.ndarray:
        return np.frombuffer(self.buffer.create_memoryview()[: self.header], np.int64)

    def _pixels(self, first: int, height: int, width: int) -> np.ndarray:
        begin = self.header + first
        part = self.buffer.create_memoryview()[begin : begin + height * width * 3]
        return np.frombuffer(part, np.uint8).reshape(height, width, 3)

    def read(self, place: int, load: Load, source: Any, **options: Any) -> Any:
        """The signal of the sample at `place`: from here, or from its source, which is then kept here."""
        with self.lock:
            first, height, width = self._numbers()[1 + 3 * place : 4 + 3 * place].tolist()
        if height:
            return PIL.Image.fromarray(self._pixels(first, height, width))
        signal = load(source, **options)
        if isinstance(signal, PIL.Image.Image) and signal.mode == "RGB":
            self._keep(place, signal)
        return signal

    def _keep(self, place: int, image: PIL.Image.Image) -> None:
        size = image.width * image.height * 3
        with self.lock:
            numbers = self._numbers()
            first = int(numbers[0])
            if first + size > self.limit or numbers[2 + 3 * place]:
                return
            self._pixels(first, image.height, image.width)[:] = np.asarray(image)
            numbers[0] = first + size
            numbers[1 + 3 * place : 4 + 3 * place] = first, image.height, image.width


class CachedSamples(Samples):
    """`Samples` whose images are kept once they are decoded.

    Args:
        samples: what is kept.
        limit: bytes of pixels.
    """

    def __init__(self, samples: Samples, limit: int) -> None:
        self.__dict__.update(samples.__dict__)
        self.cache = Cache(len(samples), limit)

    def read(self, index: int, load: Load | None = None) -> Any:
        return super().read(index, load or partial(self.cache.read, index, self.load))


def cached(data: Datasets, limit: int) -> Datasets:
    """Datasets, as far as they are `Samples`, with at most `limit` bytes of pixels in memory, shared out by the number
    of samples."""
    total = len(data.train) + len(data.val)

    def kept(split: Any) -> Any:
        share = limit * len(split) // total
        return CachedSamples(split, share) if limit and isinstance(split, Samples) else split

    return replace(data, train=kept(data.train), val=kept(data.val))
