"""The digits inside scikit-learn."""

from collections import Counter

import numpy as np
import pytest

from class_files import fill, open_classes, paths, refuse
from focalnet.errors import MissingExtraError


def test_digits():
    data = open_classes(None)
    assert data.classes == tuple("0123456789")
    assert (len(data.train), len(data.val)) == (1352, 445)
    assert set(paths(data.train)).isdisjoint(paths(data.val))
    counts = Counter(data.train.labels), Counter(data.val.labels)
    assert all(abs(counts[1][label] / (counts[0][label] + counts[1][label]) - 0.25) < 0.01 for label in range(10))
    from sklearn.datasets import load_digits

    digits = load_digits()
    for sample in (data.train[0], data.val[17]):
        row = int(sample.path.removeprefix("digits[").removesuffix("]"))
        assert sample.label == digits.target[row]
        assert sample.signal.mode == "RGB"
        assert np.abs(np.asarray(sample.signal)[..., 1] / 255 * 16 - digits.images[row]).max() < 0.04


def test_the_digits_are_always_split_the_same_way():
    one, other = open_classes("digits", seed=1, val_fraction=0.1), open_classes(None, seed=2, val_fraction=0.7)
    assert paths(one.val) == paths(other.val)
    assert paths(one.val)[:4] == ["digits[30]", "digits[31]", "digits[32]", "digits[34]"]


def test_a_folder_called_digits(tmp_path, monkeypatch):
    fill(tmp_path / "digits", a=2, b=2)
    monkeypatch.chdir(tmp_path)
    refuse("digits", "for the folder here write ./digits")
    assert open_classes("./digits").classes == ("a", "b")
    assert len(open_classes(None).classes) == 10


@pytest.mark.parametrize(("package", "source"), [("sklearn.datasets", None), ("datasets", "hf:someone/something")])
def test_missing_packages_are_named(package, source, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'focalnet\[train\]'"):
        open_classes(source)
