"""Runs on sounds, films and phantoms of organs: killed and resumed, and on two processes."""

from fractions import Fraction

import numpy as np
import pytest
import soundfile
from PIL import Image
from test_scene_runs import assert_a_killed_run_resumes, assert_two_processes_are_as_one

from focalnet.data.formats.organs import CLASSES, paint
from focalnet.inputs.video import VideoWriter

pytestmark = pytest.mark.slow
OPTIONS = "--epochs 2 --batch-size 4 --ema 0.9 --warmup-epochs 0 --lr 1e-3 --workers 0 --weights None --precision fp32"
TASKS = {
    "sound": "--task sound --model sound_minifocal_32 --recipe sound_scenes --size 32 --seconds 0.2 --augment drop",
    "video": "--task video --model video_focalnet_minifocal_32 --recipe moving_digits --frames 4 --augment kinetics "
    "--mixing 0.8 1.0",
    "organs": "--task segment --model focal_unet_minifocal_64 --recipe organs --image-size 32",
}


def write_sounds(folder):
    noise = np.random.default_rng(0)
    for name, frequency in (("high", 3000), ("low", 300)):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            clip = np.sin(2 * np.pi * frequency * np.arange(4000) / 16000) + noise.normal(0, 0.3, 4000)
            soundfile.write(folder / name / f"{number}.wav", 0.4 * clip, 16000)
    return folder


def write_films(folder):
    for name, step in (("brighter", 20), ("darker", -20)):
        for number in range(10):
            with VideoWriter(folder / name / f"{number}.mp4", Fraction(10)) as writer:
                for frame in range(8):
                    writer.write(Image.new("RGB", (32, 32), (128 + step * (frame - 4) + number,) * 3))
    return folder


def write_organs(folder):
    noise = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels, labels = paint(noise, 32)
            Image.fromarray(pixels).save(folder / "images" / split / f"{number}.png")
            Image.fromarray(labels).save(folder / "masks" / split / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    writers = {"sound": write_sounds, "video": write_films, "organs": write_organs}
    return {name: write(tmp_path_factory.mktemp(name) / "data") for name, write in writers.items()}


def arguments(data, out, task):
    return ["train", "--data", data[task], "--out", out, *TASKS[task].split(), *OPTIONS.split()]


@pytest.mark.parametrize("task", TASKS)
def test_kill_9_and_resume(data, tmp_path, task):
    assert_a_killed_run_resumes(tmp_path, lambda out: arguments(data, out, task))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_train_and_measure_as_one(data, tmp_path, task, strategy):
    words = [*arguments(data, tmp_path / "two", task), "--strategy", strategy]
    assert_two_processes_are_as_one(words, tmp_path / "two", 1e-4)
