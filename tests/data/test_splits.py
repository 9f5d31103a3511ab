"""How data is split, and that the split depends on nothing but the arguments."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from class_files import fill, open_classes, refuse
from focalnet.data.splits import stratified_split


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6).filter(lambda counts: max(counts) > 1),
    val_fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_split_is_stratified(counts, val_fraction, seed):
    names = [str(label) for label, count in enumerate(counts) for _ in range(count)]
    train, val = stratified_split(names, val_fraction, seed)
    assert sorted(train + val) == list(range(len(names)))
    assert (train, val) == (sorted(train), sorted(val))
    held_out = Counter(names[index] for index in val)
    for label, count in enumerate(counts):
        assert held_out[str(label)] <= max(count - 1, 0)
        assert abs(held_out[str(label)] - count * val_fraction) <= (
            0.5 if 1 <= count * val_fraction <= count - 1 else 1
        )
        assert held_out[str(label)] >= (count >= 2)
    assert stratified_split(names, val_fraction, seed) == (train, val)


def test_split_follows_the_seed_and_leaves_the_generator_alone():
    names = ["a"] * 40 + ["b"] * 40
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert stratified_split(names, 0.5, 0) != stratified_split(names, 0.5, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_single_pictures_are_trained_on(tmp_path, caplog):
    data = open_classes(fill(tmp_path, one=1, two=2))
    assert [data.classes[label] for label in data.train.labels] == ["one", "two"]
    assert [data.classes[label] for label in data.val.labels] == ["two"]
    assert [record.getMessage() for record in caplog.records] == [
        "not validated, because they have a single image: one"
    ]


@pytest.mark.parametrize("val_fraction", [0, 1, -0.5, 20])
def test_senseless_fractions_are_refused(tmp_path, val_fraction):
    refuse(fill(tmp_path, a=2, b=2), "--val-fraction is", val_fraction=val_fraction)


def test_nothing_to_set_aside(tmp_path):
    refuse(fill(tmp_path, a=1, b=1), "No class has two images")
