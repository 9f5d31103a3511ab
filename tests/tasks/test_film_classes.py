"""Classification of films as a task: real files, training, views, and the demonstration's films."""

import dataclasses
import json
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import run
from focalnet.data import open_data
from focalnet.data.formats.moving_digits import CLASSES, DIRECTIONS, FRAMES, SIDE, SPEED, direction
from focalnet.data.transforms.films import train_film
from focalnet.engine.recipes import get_recipe
from focalnet.inputs.films import Film, Video
from focalnet.inputs.video import VideoWriter
from focalnet.modulation import capture
from focalnet.tasks import get_task
from focalnet.tasks.video import explain_film, views

TINY = ("--task", "video", "--model", "video_focalnet_minifocal_32", "--frames", "4", "--image-size", "16",
        "--epochs", "1", "--batch-size", "4", "--workers", "0", "--weights", "None")  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two classes of five films, of several lengths and sizes, one of a single frame."""
    folder = tmp_path_factory.mktemp("films")
    kinds = ((1, (32, 32)), (5, (48, 32)), (9, (32, 48)), (8, (32, 32)), (6, (64, 64)))
    for name, step in (("brighter", 20), ("darker", -20)):
        (folder / name).mkdir()
        for number, (length, size) in enumerate(kinds):
            with VideoWriter(folder / name / f"{number}.mp4", Fraction(10)) as writer:
                for frame in range(length):
                    writer.write(Image.new("RGB", size, (128 + step * (frame - length // 2),) * 3))
    return folder


def test_a_folder_of_films_is_learned_evaluated_and_seen(films, tmp_path, capsys):
    out = tmp_path / "run"
    code, _, err = run(capsys, "train", "--data", films, "--out", out, *TINY, "--mixing", "0.8", "1.0")
    assert code == 0, err
    spec = json.loads((out / "best/config.json").read_text())
    assert (spec["preprocessing"]["kind"], spec["preprocessing"]["frames"]) == ("video", 4)
    assert "Where and when it looks" in (out / "report.html").read_text()
    code, printed, _ = run(capsys, "evaluate", out, "--tta")
    assert code == 0
    assert "top1" in printed
    code, printed, _ = run(capsys, "predict", out, films / "brighter", "--draw", tmp_path / "drawn", "--json")
    assert code == 0
    assert len(printed.splitlines()) == 5
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 5


def test_a_film_that_cannot_be_read_is_said_by_name(films, tmp_path, capsys):
    for name in ("brighter", "darker"):
        (tmp_path / name).mkdir()
        for file in (films / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    whole = (tmp_path / "darker" / "3.mp4").read_bytes()
    (tmp_path / "darker" / "3.mp4").write_bytes(whole[: len(whole) // 3])
    code, _, err = run(capsys, "train", "--data", tmp_path, "--out", tmp_path / "run", *TINY)
    assert code == 2
    assert "3.mp4 " in err
    assert "--on-bad-file skip" in err
    code, _, err = run(capsys, "train", "--data", tmp_path, "--out", tmp_path / "run2", *TINY, "--on-bad-file", "skip")
    assert code == 0, err


def test_views_are_four_draws_of_three_crops():
    frames = np.zeros((24, 16, 32, 3), np.uint8)
    frames[..., 0] = np.arange(24)[:, None, None] * 10
    frames[:, :, 24:, 1] = 255
    how = Video(frames=2, input_size=16, crop_pct=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    seen = views(how, Film(frames, "film"))
    assert seen.shape == (12, 2, 3, 16, 16)
    reds = (seen[::3, :, 0, 0, 0] * 25.5).round().int()
    assert reds.tolist() == [[1, 11], [3, 14], [6, 17], [9, 19]]
    assert seen[:3, 0, 1].mean((1, 2)).tolist() == pytest.approx([0, 0, 0.5])


def test_training_draws_frames_and_one_crop_for_all():
    frames = np.repeat(np.random.default_rng(0).integers(0, 255, (1, 20, 20, 3), np.uint8), 30, 0)
    how = Video(frames=4, input_size=8)
    torch.manual_seed(0)
    for augment in ("none", "light", "kinetics"):
        tensor = train_film(how, Film(frames, "film"), augment)
        assert tensor.shape == (4, 3, 8, 8)
        assert torch.equal(tensor[0], tensor[3]), augment


def test_digits_move_as_their_class_says():
    data = open_data("video", "moving_digits", val_fraction=0.2, seed=0, on_bad_image="stop")
    assert data.classes == CLASSES == tuple(sorted(DIRECTIONS))
    assert (len(data.train), len(data.val)) == (4800, 320)
    for index in (0, 3, 13):
        film = data.val[index].signal
        assert len(film) == FRAMES
        frames = np.stack([np.asarray(frame)[..., 0] for frame in film.take(range(FRAMES))]).astype(float)
        step = SPEED * np.array(DIRECTIONS[direction(index)])
        follow, back = (
            np.mean([np.corrcoef(np.roll(a, way * step, (0, 1)).ravel(), b.ravel())[0, 1] for a, b in pairwise(frames)])
            for way in (1, -1)
        )
        assert follow > 0.3 > back
        assert frames.shape[1:] == (SIDE, SIDE)


def test_the_demonstration_begins_with_open_gates_over_time(tmp_path):
    recipe = get_recipe("moving_digits", "video_focalnet_minifocal_32")
    task = get_task("video")(model="video_focalnet_minifocal_32", **recipe.task)
    data = task.datasets(0)
    model = task.build_model(data).eval()
    film = task.example(model.spec, data.val[0], train=False)[0][None]
    with torch.no_grad(), capture(model) as parts:
        model(film)
    assert all((part.temporal.gates - 1).abs().max() < 0.6 for part in parts.values())
    assert all(part.gates.abs().max() < 0.6 for part in parts.values())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    torch.save({"model": model.state_dict()}, tmp_path / "trained.pth")
    trained = dataclasses.replace(task, weights=str(tmp_path / "trained.pth")).build_model(data).eval()
    with torch.no_grad():
        assert torch.equal(trained(film), model(film))


def test_an_explanation_has_a_row_for_space_and_one_for_time():
    task = get_task("video")(model="video_focalnet_minifocal_32", frames=6, image_size=16)
    data = task.datasets(0)
    model = task.build_model(data).eval()
    strip = explain_film(model, data.val[0].signal)
    assert strip.size == (6 * 114 - 2, 3 * 114 - 2)
    assert len(np.unique(np.asarray(strip)[114:].reshape(-1, 3), axis=0)) > 6
