"""Sources on their way to their predictions, like ones in one batch."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from focalnet.errors import UserError


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


def by_likeness(
    items: Iterable[Item], predict: Callable[[list[Item]], None], *, batch_size: int, window: int
) -> Iterator[Item]:
    """Have batches of like items predicted; the items come out in the order in which they came.

    Args:
        items: in order; an error that they raise is told when what came before has its predictions.
        predict: sets the predictions of items.
        batch_size: items per call, at most.
        window: items that are held, at most, to find like ones among them.
    """
    items, held, broken = iter(items), deque[Item](), None

    def hold(count: int) -> None:
        nonlocal broken
        while broken is None and len(held) < count:
            try:
                held.append(next(items))
            except StopIteration:
                return
            except UserError as error:
                broken = error

    while True:
        hold(window)
        if not held:
            break
        predict([item for item in held if item.prediction is None and item.alike(held[0])][:batch_size])
        done = list(itertools.takewhile(lambda item: item.prediction is not None, held))
        for _ in done:
            held.popleft()
        if window > 1:
            hold(1)  # the next ones are read while the caller works with these
        yield from done
    if broken is not None:
        raise broken
