"""How data is split, and that the split depends on nothing but the arguments."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from class_files import fill, open_classes, refuse
from focalnet.data import splits
from focalnet.data.splits import choose_splits, identities, split_of, stratified_split
from focalnet.errors import UserError


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


NAMES = {
    "train": "train Training TRAIN train2017 seg_train training_set Train_data trainset TrainImages my-train trainval",
    "val": "val valid VALID validation Validation_set valset dev Dev_data validation_matched flowers.val minival",
    "test": "test Test testing TESTING test_set seg_test testset testA Test-Images imagenet-test-00012",
}  # fmt: skip


@pytest.mark.parametrize("split", NAMES)
def test_names_of_splits(split):
    for name in NAMES[split].split():
        assert split_of(name) == split, name


@pytest.mark.parametrize(
    "name", ["contest", "restrained", "valley", "invalid", "devil", "cat", "", "2017", "train_test"]
)
def test_other_names(name):
    assert split_of(name) is None


def test_splits_are_chosen():
    assert choose_splits(["Training", "Testing"]) == ("Training", "Testing", "Testing")
    assert choose_splits(["train", "train_extra", "test", "val_b", "val_a"]) == ("train", "val_a", "test")
    assert choose_splits(["validation", "dev", "val"]) == (None, "val", None)
    with pytest.raises(UserError, match="train_a, train_b of x are all called training splits"):
        choose_splits(["train_a", "train_b", "val"], place="x")


def test_classes_are_no_splits():
    assert choose_splits(["training shoes", "test tube"], among_classes=True) == (None, None, None)
    assert choose_splits(["flowers_train", "flowers_val"], among_classes=True)[:2] == ("flowers_train", "flowers_val")
    assert choose_splits(["seg_train", "pred"], among_classes=True).train == "seg_train"


def test_files_on_both_splits(tmp_path, monkeypatch):
    """Through links of every kind and in any spelling; what is no file is compared by name."""
    for name in ("a.png", "b.png", "c.png", "d.png"):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "c.png").symlink_to(tmp_path / "c.png")
    (tmp_path / "inner" / "d.png").hardlink_to(tmp_path / "d.png")
    train = [str(tmp_path / name) for name in ("a.png", "c.png", "d.png")]
    val = [f"{tmp_path}/{name}" for name in ("b.png", "inner/../a.png", "inner/c.png", "inner/d.png", "gone.png")]
    for limit in (9, 3):
        monkeypatch.setattr(splits, "STAT_ALL", limit)
        first, second = identities(train, val)
        assert [key in first for key in second] == [False, True, True, True, False]
        assert len(set(second)) == 5
    assert identities(["x.tar:a"], ["y.tar:a", "x.tar:a"]) == [["x.tar:a"], ["y.tar:a", "x.tar:a"]]
    assert identities([], ["a"]) == [[], ["a"]]
