"""Batches whose content depends on the seed, the epoch and the step, and on nothing else.

Every sample is transformed, and every batch mixed, with torch's generator freshly seeded from (seed, epoch, index).
So the number of workers does not matter, and a run that was killed continues in the middle of an epoch with the very
samples that it would have seen: there is no generator state to save.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from focalnet.engine.devices import worker_count
from focalnet.engine.signals import follow_parent, held_back
from focalnet.errors import UserError
from focalnet.tasks.base import Batch, MapDataset, Task
from focalnet.weights.spec import ModelSpec

Key = tuple[int, int]
"""(epoch, index of the sample); index -1 - i is sample i as padding, which a metric ignores."""


def stable_seed(*parts: int | str) -> int:
    """A seed of 63 bits from anything that prints, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


def _seeded(seed: int, function: Callable[[], Any]) -> Any:
    # not `torch.manual_seed`: without workers it would seed the accelerator too, between the seed of a step and its use
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return function()


def _seeded_all(seed: int, function: Callable[[], Any]) -> Any:
    """`_seeded`, with the generators of Python and NumPy too, which a function of the caller's may draw from."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - whatever a caller uses
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        return _seeded(seed, function)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class Examples(Dataset):
    """Samples of a task, transformed, addressed by (epoch, index); `transform` is a caller's own."""

    def __init__(
        self,
        task: Task,
        spec: ModelSpec,
        dataset: MapDataset,
        *,
        train: bool,
        seed: int,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        self.task, self.spec, self.dataset, self.train, self.seed = task, spec, dataset, train, seed
        self.transform = transform

    def __getitem__(self, key: Key) -> tuple[Key, Any, tuple[str, ...]]:
        epoch, index = key
        sample = self.dataset[index if index >= 0 else -1 - index]
        seed = stable_seed(self.seed, epoch, index)
        if self.transform is not None:
            sample = _seeded_all(seed, partial(self.task.transformed, self.spec, sample, self.transform))
        example = partial(self.task.example, self.spec, sample, train=self.train)
        return key, _seeded(seed, example), getattr(sample, "skipped", ())

    def collate(self, items: list[tuple[Key, Any, tuple[str, ...]]]) -> Batch:
        keys, examples, skipped = zip(*items, strict=True)
        collate = partial(self.task.collate, self.spec, examples, train=self.train)
        batch = _seeded(stable_seed(self.seed, "batch", *keys[0]), collate)
        index = [-1 if bad else max(index, -1) for (_, index), bad in zip(keys, skipped, strict=True)]
        batch["index"] = torch.tensor(index)
        batch["skipped"] = [path for paths in skipped for path in paths]
        return batch


class TrainSampler(Sampler[list[Key]]):
    """Shuffled batches of one epoch for one process, from any step on.

    Step s of an epoch is made of the same samples whatever the number of processes and accumulated parts.

    Args:
        length: samples in the data set.
        batch_size: samples per optimizer step, over all processes and parts.
        parts: accumulated parts per step.
        seed: where the order comes from.
        rank, world: this process, and how many there are.
        groups: a number per sample; a batch takes samples of one group as long as there are enough of them, so that
            what has one shape is padded little.

    Raises:
        UserError: the batch does not divide among processes and parts, or the data holds less than one batch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        parts: int,
        seed: int,
        rank: int,
        world: int,
        groups: Sequence[int] | None = None,
    ) -> None:
        if batch_size % (parts * world):
            raise UserError(
                f"--batch-size {batch_size} does not divide into {world} processes x {parts} accumulated parts; "
                f"take a multiple of {world * parts}."
            )
        if length < batch_size:
            raise UserError(
                f"--batch-size {batch_size} is more than the {length} training samples; take a smaller one."
            )
        self.length, self.batch_size, self.parts = length, batch_size, parts
        self.seed, self.rank, self.world = seed, rank, world
        self.groups = groups
        self.steps = length // batch_size
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return (self.steps - self.start) * self.parts

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(stable_seed(self.seed, "order", self.epoch))
        order = torch.randperm(self.length, generator=generator).tolist()
        if self.groups is not None:
            order = self._grouped(order, generator)
        size = self.batch_size // (self.parts * self.world)
        for step in range(self.start, self.steps):
            for part in range(self.parts):
                first = step * self.batch_size + (part * self.world + self.rank) * size
                yield [(self.epoch, index) for index in order[first : first + size]]

    def _grouped(self, order: list[int], generator: torch.Generator) -> list[int]:
        """`order` in whole batches of one group each, shuffled, and what is left over at the end."""
        assert self.groups is not None
        members: dict[int, list[int]] = {}
        for index in order:
            members.setdefault(self.groups[index], []).append(index)
        batches, left = [], []
        for indices in members.values():
            whole = len(indices) // self.batch_size * self.batch_size
            batches += [indices[first : first + self.batch_size] for first in range(0, whole, self.batch_size)]
            left += indices[whole:]
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        whole = [index for batch in shuffled for index in batches[batch]]
        least = min(map(len, members.values()))
        if whole and len(left) < self.batch_size and least < self.batch_size:
            # what is left over makes no step, and of a group smaller than a batch all is: no epoch would see it
            return [*whole[: -self.batch_size], *left, *whole[-self.batch_size :]]
        return whole + left


class EvalSampler(Sampler[list[Key]]):
    """All samples in order, split over processes; every process gets equally many batches, filled up with padding."""

    def __init__(self, length: int, batch_size: int, rank: int, world: int) -> None:
        self.length, self.batch_size, self.rank, self.world = length, batch_size, rank, world

    def __len__(self) -> int:
        return -(-self.length // (self.batch_size * self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in range(len(self)):
            first = (batch * self.world + self.rank) * self.batch_size
            indices = list(range(first, min(first + self.batch_size, self.length)))
            yield [(0, index) for index in indices] or [(0, -1 - min(first, self.length - 1))]


class Subset:
    """The samples of a data set at `indices`."""

    def __init__(self, dataset: MapDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    @property
    def sizes(self) -> list[tuple[int, int]] | None:
        sizes = getattr(self.dataset, "sizes", None)
        return None if sizes is None else [sizes[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


class TrainSample(Subset):
    """Some of the training samples, the same ones whenever the seed is the same, to measure on.

    Args:
        dataset: the training split.
        count: how many, at most.
        seed: of the run.
    """

    def __init__(self, dataset: MapDataset, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(stable_seed(seed, "train sample"))
        super().__init__(dataset, sorted(torch.randperm(len(dataset), generator=generator)[:count].tolist()))


def build_loader(examples: Examples, sampler: Sampler[list[Key]], *, workers: int, pin_memory: bool) -> DataLoader:
    """A loader over `examples` in the batches of `sampler`."""
    return _Loader(
        examples, batch_sampler=sampler, collate_fn=examples.collate, num_workers=workers,
        persistent_workers=workers > 0, pin_memory=pin_memory,
        worker_init_fn=_begin_worker, generator=torch.Generator(),
    )  # fmt: skip


def build_eval_loader(
    task: Task, spec: ModelSpec, dataset: MapDataset, wish: int, accelerator: Any, *, workers: int | None, seed: int = 0
) -> DataLoader:
    """A loader over all of `dataset`, shared by the processes, in batches of at most `wish`."""
    size = task.eval_batch_size(spec, dataset, wish)
    sampler = EvalSampler(len(dataset), size, accelerator.process_index, accelerator.num_processes)
    examples = Examples(task, spec, dataset, train=False, seed=seed)
    workers = worker_count(workers, len(sampler), accelerator.device)
    return build_loader(examples, sampler, workers=workers, pin_memory=accelerator.device.type == "cuda")


class _Loader(DataLoader):
    def __iter__(self) -> Any:
        with held_back():  # until its workers have learned what to do with a signal
            return super().__iter__()


def _begin_worker(worker: int) -> None:
    torch.set_num_threads(1)
    follow_parent()
