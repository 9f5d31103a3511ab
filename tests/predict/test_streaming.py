"""Many sources, read by threads ahead of the network: in order, a few at a time, with the same answers as in turn."""

import itertools
import threading
import time
import warnings
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

import focalnet
from focalnet import inputs
from focalnet.errors import UserError
from focalnet.inputs import image as image_input
from focalnet.inputs import streaming
from focalnet.inputs.ahead import MOST_THREADS, in_order
from focalnet.inputs.streaming import LIKE, Item, by_likeness, usual_batch
from focalnet.inputs.values import Bands
from focalnet.predict import Predictor, progress
from focalnet.predict.progress import Progress

THREADS = 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return focalnet.create_model("minifocal_32", classes=["cat", "dog", "emu"]).eval()


def noise(number, size=(40, 36)):
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def test_results_come_in_the_order_of_the_jobs():
    def work(number):
        time.sleep(0.002 * (number % 3 == 0))
        return number, threading.current_thread().name

    results = list(in_order(range(40), work, threads=THREADS, ahead=8))
    assert [number for number, _ in results] == list(range(40))
    assert 2 <= len({name for _, name in results}) <= THREADS
    here = threading.current_thread().name
    assert list(in_order(range(3), work, threads=0, ahead=8)) == [(number, here) for number in range(3)]


def test_jobs_are_taken_only_as_they_are_needed():
    taken = []
    results = in_order(map(taken.append, itertools.count()), lambda job: job, threads=THREADS, ahead=5)
    next(results)
    next(results)
    results.close()  # of a generator without an end
    assert len(taken) == 6


@pytest.mark.parametrize("threads", [0, THREADS])
def test_what_a_job_raises_comes_after_the_results_before_it(threads):
    def jobs():
        yield from range(3)
        raise UserError("no more")

    results = in_order(jobs(), lambda job: job, threads=threads, ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="no more"):
        next(results)


@pytest.mark.parametrize(("overlap", "taken_before_each_call"), [(False, [4, 4, 6]), (True, [4, 6, 6])])
def test_a_gpu_gets_what_comes_next_before_each_call_and_a_cpu_when_it_has_nothing_left(
    overlap, taken_before_each_call
):
    taken, counts = [], []

    def items():
        for number in range(6):
            taken.append(number)
            yield Item(number, prepared=np.zeros(3))

    def predict(batch):
        counts.append(len(taken))
        for item in batch:
            item.prediction = item.tag

    found = by_likeness(items(), predict, batch_size=2, window=4, overlap=overlap)
    assert [item.prediction for item in found] == list(range(6))
    assert counts == taken_before_each_call


@pytest.mark.parametrize("overlap", [False, True])
def test_large_images_are_held_one_by_one(monkeypatch, overlap):
    monkeypatch.setattr(streaming, "HELD", 2000)
    large, small = Image.new("RGB", (30, 20)), Image.new("RGB", (10, 10))
    assert [Item(0, image).nbytes for image in (large, small)] == [2400, 400]
    assert Item(0, Bands(np.zeros((5, 4, 7), np.uint8)), torch.zeros(3)).nbytes == 5 * 4 * 7 + 12
    signals = [small, small, large, large, *[small] * 7]
    sizes = []

    def predict(batch):
        sizes.append(len(batch))
        for item in batch:
            item.prediction = item.tag

    items = (Item(number, signal) for number, signal in enumerate(signals))
    found = by_likeness(items, predict, batch_size=8, window=16, overlap=overlap)
    assert [item.prediction for item in found] == list(range(11))
    assert sizes == [3, 1, 5, 2]


def test_small_images_share_larger_batches():
    sides = {32: 64, 96: 64, 112: 64, 160: 31, 224: 16, 384: 16}
    assert {side: usual_batch(inputs.Image(input_size=side)) for side in sides} == sides
    assert usual_batch(inputs.Image(input_size=(112, 224))) == 32
    assert usual_batch(inputs.Audio()) == 16


def test_like_items_are_predicted_together_and_come_out_in_order():
    shapes = "aabacbba"
    items = [Item(place, prepared=torch.empty(ord(letter) % 8)) for place, letter in enumerate(shapes)]
    calls = []

    def predict(batch):
        calls.append([item.tag for item in batch])
        for item in batch:
            item.prediction = item.tag

    found = by_likeness(items, predict, batch_size=2, window=4, overlap=True)
    assert [item.prediction for item in found] == list(range(8))
    assert calls == [[0, 1], [2, 5], [3], [4], [6], [7]]


@pytest.mark.parametrize("threads", [0, THREADS])
def test_answers_are_those_of_batches_in_turn_to_the_bit(model, threads):
    """As before there were threads: 16 images in a row, each made a tensor of floats, then stacked."""
    images = [noise(number, (40 + number % 5, 36)) for number in range(37)]
    expected = []
    for first in range(0, len(images), 16):
        batch = torch.stack([model.spec.preprocessing(image) for image in images[first : first + 16]])
        with torch.inference_mode():
            expected += model(batch).softmax(-1).sort(descending=True).values.tolist()
    answers = [[score for _, score in answer.top] for _, answer in Predictor(model, threads=threads).stream(images, 16)]
    assert answers == expected


def test_a_million_images_need_no_more_memory_than_a_few(model, monkeypatch):
    """The number of decoded images that are alive, while a slow reader takes predictions of an endless source."""
    alive, most, lock = 0, 0, threading.Lock()

    def gone():
        nonlocal alive
        with lock:
            alive -= 1

    def load_image(source, **options):
        nonlocal alive, most
        image = noise(source)
        with lock:
            alive += 1
            most = max(most, alive)
        weakref.finalize(image, gone)
        return image

    monkeypatch.setattr(image_input, "load_image", load_image)
    sources = itertools.count()
    answers = Predictor(model, threads=THREADS).stream(sources, batch_size=8)
    for _ in range(100):
        assert next(answers)[1].label
    answers.close()
    few = LIKE * 8 + 2 * THREADS
    assert most <= few
    assert next(sources) <= 100 + few


def test_a_bad_image_is_told_after_those_before_it_and_ends_the_threads(model):
    answers = Predictor(model, threads=THREADS).stream([noise(0), noise(1), b"no image", noise(2)], batch_size=16)
    assert [next(answers)[1].label for _ in range(2)]
    with pytest.raises(UserError, match="cannot be read as an image"):
        next(answers)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("focalnet-read")]


@pytest.mark.parametrize("threads", [0, THREADS])
def test_drawings_are_those_of_their_rows(model, tmp_path, threads):
    """Names, numbers and pixels; a row comes when its drawing is whole, and a bad image after the rows before it."""
    images = [(f"{number}.jpg", noise(number, (90, 60 + number))) for number in range(13)]
    predictor = Predictor(model, threads=threads)
    found = predictor.predictions([*images, ("x.jpg", b"no image")], tmp_path)
    for number, (name, image) in enumerate(images):
        row, _ = next(found)
        assert (row["source"], row["drawn"]) == (name, f"{number:04d}_{number}.png")
        with Image.open(tmp_path / row["drawn"]) as drawing:
            assert (np.asarray(drawing) == np.asarray(predictor(image).draw(image))).all()
    with pytest.raises(UserError, match="cannot be read as an image"):
        next(found)


def test_threads_leave_the_filters_of_warnings_as_they_were(model):
    before = list(warnings.filters)
    assert len(list(Predictor(model, threads=THREADS).stream(map(noise, range(20)), batch_size=4))) == 20
    assert warnings.filters == before


def test_precision(model):
    image = noise(0)
    scores = {precision: Predictor(model, precision=precision)(image).score for precision in ("fp32", "bf16")}
    assert scores["bf16"] == pytest.approx(scores["fp32"], rel=0.05)
    assert scores["bf16"] != scores["fp32"]
    assert next(model.parameters()).dtype == torch.float32
    for precision, sentence in (("tf32", "arithmetic of NVIDIA's GPUs"), ("int3", "--precision is int3; give fp32,")):
        with pytest.raises(UserError, match=sentence):
            Predictor(model, device="cpu", precision=precision)
    for threads in (-1, MOST_THREADS + 1):
        with pytest.raises(UserError, match=f"--threads is {threads}; give 0 to 16"):
            Predictor(model, threads=threads)


def test_progress_tells_the_time_that_is_left(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(100_000, 1000) as told:
        for number in range(61):
            now[0] += 1
            told.step(f"{number}.png")
        assert told.line() == "1,061 of 100,000  1.0/s  27:28:59 left"
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["1,031 of 100,000  1.0/s  27:29:29 left"]
    with Progress(None, shown=False) as told:
        for _ in range(3):
            now[0] += 0.5
            told.step("webcam:0")
    assert told.line() == "3 predictions  2.0/s"
    assert capsys.readouterr().err == ""
