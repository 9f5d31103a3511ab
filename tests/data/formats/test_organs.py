"""Phantoms of organs, painted on the fly."""

import numpy as np
import torch

from focalnet.data import open_data
from focalnet.data.formats.organs import CLASSES, ORGANS

OPEN = {"val_fraction": 0.2, "seed": 0, "on_bad_image": "stop"}


def test_slices_are_the_same_every_time_and_differ_between_splits():
    data, again = (open_data("semantic", "organs", **OPEN) for _ in range(2))
    assert data.classes == CLASSES
    assert len(CLASSES) == 9
    assert (len(data.train), len(data.val)) == (2000, 100)
    for index in (0, 7):
        one, same, other = data.train[index], again.train[index], data.val[index]
        assert np.array_equal(np.asarray(one.image), np.asarray(same.image))
        assert torch.equal(one.semantic, same.semantic)
        assert not torch.equal(one.semantic, other.semantic)


def test_every_organ_occurs_and_is_missing_at_times():
    val = open_data("semantic", "organs", **OPEN).val
    there = np.array([[(val[index].semantic == label).any() for label in range(1, 9)] for index in range(40)])
    assert (there.mean(0) > 0.6).all()
    assert not there.all()


def test_grey_does_not_tell_organs_apart():
    """Of each organ's pixels, most are as grey as half of the pixels of another organ."""
    val = open_data("semantic", "organs", **OPEN).val
    greys: dict[int, list[np.ndarray]] = {label: [] for label in range(1, 9)}
    for index in range(20):
        pixels, labels = np.asarray(val[index].image)[..., 0], val[index].semantic.numpy()
        for label, found in greys.items():
            found.append(pixels[labels == label])
    ranges = {label: np.percentile(np.concatenate(found), [25, 75]) for label, found in greys.items()}
    names = dict(enumerate(ORGANS, start=1))
    for label, found in greys.items():
        rivals = [ranges[k] for k in names if k != label and ORGANS[names[k]].grey == ORGANS[names[label]].grey]
        assert rivals
        mine = np.concatenate(found)
        assert max(((low <= mine) & (mine <= high)).mean() for low, high in rivals) > 0.3
