"""Work that threads do ahead, its results in the order in which it was given."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from focalnet.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

MOST_THREADS = 16
"""More do not help: Python itself runs in one at a time."""


def default_threads() -> int:
    """Threads that decode: one per core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


def in_order(jobs: Iterable[Job], work: Callable[[Job], Result], *, threads: int, ahead: int) -> Iterator[Result]:
    """The results of a piece of work that is done for every job, in the order of the jobs.

    Args:
        jobs: taken from this thread, and only as they are needed.
        work: is called in the threads; what it raises is raised where its result would come.
        threads: how many; 0 works in this thread.
        ahead: jobs begun before their result is asked for, at most: no more results than these wait.
    """
    if threads == 0:
        yield from map(work, jobs)
        return
    jobs, begun = iter(jobs), deque[Future[Result]]()
    with ThreadPoolExecutor(threads, "focalnet-read") as pool:
        try:
            while True:
                begun.extend(pool.submit(work, job) for job in itertools.islice(jobs, ahead - len(begun)))
                if not begun:
                    return
                yield begun.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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
    while True:
        while broken is None and len(held) < window:
            try:
                held.append(next(items))
            except StopIteration:
                break
            except UserError as error:
                broken = error
        if not held:
            break
        predict([item for item in held if item.prediction is None and item.alike(held[0])][:batch_size])
        while held and held[0].prediction is not None:
            yield held.popleft()
    if broken is not None:
        raise broken
