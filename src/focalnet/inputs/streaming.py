"""Sources on their way to their predictions: read by threads, like ones in one batch, told in order.

    sources -> threads read -> held: alike ones share a forward pass -> in order

On a GPU the threads read while the network computes. On a CPU both would want the same cores and wait for each other:
a few batches are read, with all cores, then computed, with all cores.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import PIL.Image

from focalnet.errors import UserError
from focalnet.inputs.ahead import in_order
from focalnet.inputs.image import Image
from focalnet.inputs.quiet import quiet_decoders

if TYPE_CHECKING:
    import torch

LIKE = 4
"""Batches that are held: images of one size are found among them, and each change from reading to computing takes a CPU
time."""
HELD = 2**28
"""Bytes of sources from which on no more are taken; a single one may have more."""
BATCH, LARGEST_BATCH = 16, 64


@dataclass(eq=False)
class Item:
    """A source on its way to its prediction.

    Attributes:
        tag: what the caller knows it by.
        signal: what was read.
        prepared: what the task made of it.
        prediction: None until the network has seen it.
        error: why it could not be read.
    """

    tag: Any
    signal: Any = None
    prepared: Any = None
    prediction: Any = None
    error: UserError | None = None

    def alike(self, other: "Item") -> bool:
        """Whether both can share a forward pass."""
        shapes = [getattr(item.prepared, "shape", None) for item in (self, other)]
        return shapes[0] == shapes[1]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return sum(map(_bytes, (self.signal, self.prepared)))


def usual_batch(how: Any) -> int:
    """Sources per forward pass where nobody says how many: 16, and up to 64 where the network's images are smaller than
    224 x 224, so that its steps have enough to do."""
    if not isinstance(how, Image):
        return BATCH
    height, width = how.size
    return min(LARGEST_BATCH, max(BATCH, BATCH * 224 * 224 // (height * width)))


def predicted(
    sources: Iterable[tuple[Any, Any]],
    read: Callable[[Any], tuple[Any, Any]],
    predict: Callable[[list[Item]], None],
    *,
    batch_size: int,
    threads: int,
    device: "torch.device",
    unreadable: dict[str, UserError] | None = None,
) -> Iterator[Item]:
    """Sources with their predictions, in order; never more than a few batches are in memory.

    Args:
        sources: tags, and what they stand for. They are taken as they are needed; with a batch size of 1, when the one
            before has its prediction.
        read: the signal of a source and what is made of it for the network; called in threads.
        predict: sets the predictions of items, which are alike.
        batch_size: items per call, at most.
        threads: that read; 0 reads in this thread.
        device: where the network computes.
        unreadable: takes in, by its tag, what cannot be read, and why.

    Raises:
        UserError: a batch size below 1, or, without `unreadable`, a source that cannot be read, after what came before.
    """
    if batch_size < 1:
        raise UserError(f"--batch-size is {batch_size}; give 1 or more.")
    overlap = batch_size > 1 and device.type != "cpu"
    window = 1 if batch_size == 1 else batch_size * LIKE
    ahead = 1 if batch_size == 1 else 2 * threads + batch_size * overlap

    def work(named: tuple[Any, Any]) -> Item:
        try:
            return Item(named[0], *read(named[1]))
        except UserError as error:
            return Item(named[0], error=error)

    def items() -> Iterator[Item]:
        for item in in_order(sources, work, threads=threads, ahead=ahead):
            if item.error is None:
                yield item
            elif unreadable is None:
                raise item.error
            else:
                unreadable[item.tag] = item.error

    with quiet_decoders():
        yield from by_likeness(items(), predict, batch_size=batch_size, window=window, overlap=overlap)


def by_likeness(
    items: Iterable[Item], predict: Callable[[list[Item]], None], *, batch_size: int, window: int, overlap: bool
) -> Iterator[Item]:
    """Have batches of like items predicted; the items come out in the order in which they came.

    Args:
        items: in order; an error that they raise is told when what came before has its predictions.
        predict: sets the predictions of items.
        batch_size: items per call, at most.
        window: items that are held, at most, to find like ones among them; fewer of those that take much memory.
        overlap: take more before each call, not only when none is left.
    """
    items, held, broken = iter(items), deque[Item](), None

    def hold() -> None:
        nonlocal broken
        taken = sum(item.nbytes for item in held)
        while broken is None and len(held) < window and taken < HELD:
            try:
                held.append(next(items))
            except StopIteration:
                return
            except UserError as error:
                broken = error
            else:
                taken += held[-1].nbytes

    while True:
        if overlap or not held:
            hold()
        if not held:
            break
        predict([item for item in held if item.prediction is None and item.alike(held[0])][:batch_size])
        while held and held[0].prediction is not None:
            yield held.popleft()
    if broken is not None:
        raise broken


def _bytes(value: Any) -> int:
    if isinstance(value, PIL.Image.Image):
        return 4 * value.width * value.height
    return getattr(value, "nbytes", 0)
