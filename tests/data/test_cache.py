"""Images that are kept decoded are those that their files hold, in every process, and no more than fit."""

import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image

from focalnet.data import open_data
from focalnet.data.base import Datasets
from focalnet.data.cache import Cache, CachedSamples, cached
from focalnet.inputs.image import Bands, load_image


class Counted:
    """`load_image`, which counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, source, **options):
        self.calls += 1
        return load_image(source, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("cached")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        for number in range(5):
            pixels = rng.integers(0, 256, (20 + number, 30, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def opened(folder) -> Datasets:
    return open_data("class", str(folder), val_fraction=0.2, seed=0, on_bad_image="stop")


def test_a_kept_image_is_read_once_and_equals_its_file(folder):
    data = opened(folder)
    kept = cached(data, 10**6).train
    assert isinstance(kept, CachedSamples)
    kept.load = load = Counted()
    for _ in range(2):
        for index in range(len(kept)):
            one, other = kept[index], data.train[index]
            assert one.path == other.path
            assert one.label == other.label
            assert np.array_equal(one.signal, other.signal)
    assert load.calls == len(kept)


def test_what_does_not_fit_is_decoded_each_time(folder):
    data = opened(folder)
    sizes = [data.train[index].signal.height * 30 * 3 for index in range(len(data.train))]
    kept = CachedSamples(data.train, sizes[0] + sizes[1] + 10)
    kept.load = load = Counted()
    for _ in range(3):
        for index in range(len(kept)):
            assert np.array_equal(kept[index].signal, data.train[index].signal)
    assert load.calls == 3 * len(kept) - 2 * 2


def test_no_limit_keeps_nothing_and_bands_are_passed_on(folder):
    data = opened(folder)
    assert cached(data, 0).train is data.train
    cache, bands = Cache(1, 1000), Bands(np.zeros((2, 2, 5), np.uint8))
    assert cache.read(0, lambda source: bands, "x") is bands
    assert cache.read(0, lambda source: bands, "x") is bands


def _fill(kept, indices):
    for index in indices:
        kept[index]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_share_what_one_of_them_decoded(folder, method):
    kept = cached(opened(folder), 10**6).train
    process = multiprocessing.get_context(method).Process(target=_fill, args=(kept, [0, 2]))
    process.start()
    process.join()
    assert process.exitcode == 0
    kept.load = load = Counted()
    for index in range(len(kept)):
        kept[index]
    assert load.calls == len(kept) - 2
    assert torch.utils.data.get_worker_info() is None
