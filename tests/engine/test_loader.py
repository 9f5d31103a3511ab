"""Batches depend on the seed, the epoch and the step only: not on workers, processes, parts or where a run began."""

from dataclasses import dataclass

import pytest
import torch

from focalnet.engine.loader import EvalSampler, Examples, TrainSampler, build_loader, stable_seed
from focalnet.errors import UserError


@dataclass
class Sample:
    value: int
    skipped: tuple[str, ...] = ()


class Numbers:
    def __init__(self, length: int, bad: tuple[int, ...] = ()) -> None:
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return Sample(index, (f"{index}.png",) if index in self.bad else ())


class NoisyTask:
    """Adds noise to a number, and noise to a batch."""

    def example(self, spec, sample, *, train):
        return sample.value + (torch.rand(()).item() if train else 0.0)

    def collate(self, spec, examples, *, train):
        return {"x": torch.tensor(examples), "noise": torch.rand(2)}


def batches(*, workers=0, rank=0, world=1, parts=1, epoch=0, start=0, length=50, batch_size=12, seed=3):
    sampler = TrainSampler(length, batch_size, parts, seed, rank, world)
    sampler.epoch, sampler.start = epoch, start
    examples = Examples(NoisyTask(), None, Numbers(length), train=True, seed=seed)
    return list(build_loader(examples, sampler, workers=workers, pin_memory=False))


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in ("x", "noise")
    )


def test_workers_do_not_matter():
    assert same(batches(), batches(workers=2))


def test_batches_of_one_group_first_and_each_sample_once():
    groups = [index % 3 == 0 for index in range(50)]  # 17 and 33 samples
    sampler = TrainSampler(50, 8, 1, 3, 0, 1, groups)
    rows = [[index for _, index in batch] for batch in sampler]
    assert len(rows) == len(sampler) == 6
    for row in rows:
        assert len(row) == 8
    assert sum(len({groups[index] for index in row}) == 1 for row in rows) >= 5
    seen = [index for row in rows for index in row]
    assert len(seen) == len(set(seen))
    assert {groups[row[0]] for row in rows[:-1]} == {True, False}
    sampler.epoch = 1
    assert rows != [[index for _, index in batch] for batch in sampler]
    sampler.epoch, sampler.start = 0, 4
    assert [[index for _, index in batch] for batch in sampler] == rows[4:]


def test_no_sample_of_a_small_group_is_left_out_for_ever():
    sampler = TrainSampler(22, 4, 1, 3, 0, 1, [0] * 20 + [1] * 2)  # 20 fill whole batches, 2 are always left over
    seen = set()
    for sampler.epoch in range(6):
        rows = [[index for _, index in batch] for batch in sampler]
        assert [len(set(row)) for row in rows] == [4] * 5
        seen |= {index for row in rows for index in row}
    assert seen == set(range(22))


def test_groups_do_not_depend_on_processes_and_parts():
    groups = [index % 3 == 0 for index in range(50)]
    one = [[i for _, i in batch] for batch in TrainSampler(50, 8, 1, 3, 0, 1, groups)]
    ranks = [[[i for _, i in batch] for batch in TrainSampler(50, 8, 2, 3, rank, 2, groups)] for rank in (0, 1)]
    for step, row in enumerate(one):
        parts = [index for part in (0, 1) for rank in (0, 1) for index in ranks[rank][2 * step + part]]
        assert parts == row


def test_the_callers_generator_is_neither_used_nor_moved():
    one = batches()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert same(one, batches())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_generator_of_an_accelerator_is_left_alone(monkeypatch):
    """Without workers it would be seeded by an image after a step had seeded it, so that workers would matter."""
    seeded = []
    for device in ("cuda", "mps", "xpu"):
        monkeypatch.setattr(f"torch.{device}.manual_seed{'' if device == 'mps' else '_all'}", seeded.append)
    batches()
    assert seeded == []


def test_an_epoch_that_begins_in_the_middle_goes_on_as_the_whole_one_would():
    assert same(batches(epoch=2)[3:], batches(epoch=2, start=3))


def test_epochs_and_seeds_differ():
    assert not same(batches(), batches(epoch=1))
    assert not same(batches(), batches(seed=4))


@pytest.mark.parametrize(("world", "parts"), [(2, 1), (1, 3), (2, 2), (3, 2)])
def test_processes_and_parts_share_the_same_global_batch(world, parts):
    whole = batches()
    shared = [batches(rank=rank, world=world, parts=parts) for rank in range(world)]
    for step, batch in enumerate(whole):
        pieces = [shared[rank][step * parts + part]["x"] for part in range(parts) for rank in range(world)]
        assert torch.equal(torch.cat(pieces), batch["x"])


def test_every_sample_at_most_once_an_epoch_and_the_rest_left_out():
    seen = torch.cat([batch["index"] for batch in batches()]).tolist()
    assert len(seen) == len(set(seen)) == 48


@pytest.mark.parametrize(("options", "message"), [
    ({"batch_size": 51}, "more than the 50 training samples"),
    ({"batch_size": 10, "world": 4}, "does not divide into 4 processes x 1 accumulated parts; take a multiple of 4"),
])  # fmt: skip
def test_impossible_batches(options, message):
    with pytest.raises(UserError, match=message):
        batches(**options)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_sample_once_and_every_process_equally_many_batches(length, world):
    examples = Examples(NoisyTask(), None, Numbers(length), train=False, seed=0)
    loaders = [
        build_loader(examples, EvalSampler(length, 4, rank, world), workers=0, pin_memory=False)
        for rank in range(world)
    ]
    lists = [list(loader) for loader in loaders]
    assert len({len(batches) for batches in lists}) == 1
    seen = [index for batches in lists for batch in batches for index in batch["index"].tolist() if index >= 0]
    assert sorted(seen) == list(range(length))


def test_samples_that_stand_in_for_bad_pictures_are_named_and_not_measured():
    examples = Examples(NoisyTask(), None, Numbers(6, bad=(1, 4)), train=False, seed=0)
    batch = next(iter(build_loader(examples, EvalSampler(6, 6, 0, 1), workers=0, pin_memory=False)))
    assert batch["skipped"] == ["1.png", "4.png"]
    assert batch["index"].tolist() == [0, -1, 2, 3, -1, 5]


def test_stable_seed_is_the_same_on_every_machine():
    assert stable_seed(0, 1, 2) == 1772749440416956875
    assert stable_seed(0, "order", 2) != stable_seed(0, "batch", 2)
