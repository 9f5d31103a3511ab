"""Reading ahead: work that threads do before its results are asked for, in the order in which it was given.

Most of decoding an image runs outside of Python's lock.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

MOST_THREADS = 16
"""More do not help: Python itself runs in one at a time."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """Threads that decode: one per core."""
    return min(cores(), MOST_THREADS)


def in_order(jobs: Iterable[Job], work: Callable[[Job], Result], *, threads: int, ahead: int) -> Iterator[Result]:
    """The results of a piece of work that is done for every job, in the order of the jobs.

    Args:
        jobs: taken from this thread, and only as they are needed; what taking one raises is raised after the results
            of those before it.
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
                try:
                    while len(begun) < ahead:
                        begun.append(pool.submit(work, next(jobs)))
                except StopIteration:
                    pass
                except Exception as error:
                    begun.append(Future())
                    begun[-1].set_exception(error)
                    jobs = iter(())
                if not begun:
                    return
                yield begun.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
