"""Films as a network sees them: which frames, in time and out of any file."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from focalnet import inputs
from focalnet.errors import BadFileError, UserError
from focalnet.inputs.films import Film, Video
from focalnet.inputs.video import VideoWriter, count_frames


def official(length: int, frames: int = 8) -> list[int]:
    """mmaction's `SampleFrames(clip_len=1, frame_interval=4, num_clips=frames, test_mode=True)`."""
    part = (length - 3) / frames
    return [int(index * part + part / 2) for index in range(frames)]


@pytest.mark.parametrize("length", [11, 12, 40, 250, 301])
def test_the_middle_frames_are_those_of_the_original(length):
    assert Video().numbers(length) == official(length)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 11, 250])
def test_every_part_gives_one_frame_that_there_is(length):
    how = Video()
    torch.manual_seed(0)
    for _ in range(20):
        numbers = how.numbers(length, lambda: float(torch.rand(())))
        assert numbers == sorted(numbers)
        assert len(numbers) == 8
        assert 0 <= numbers[0] <= numbers[-1] < length
    if length == 8:
        assert how.numbers(8) == list(range(8))


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.mp4"
    with VideoWriter(path, Fraction(10)) as writer:
        for grey in range(0, 240, 20):
            writer.write(Image.new("RGB", (64, 48), (grey,) * 3))
    return path


def test_frames_of_a_file_are_taken_by_number(film):
    assert count_frames(film) == 12
    read = Video(frames=4).read(str(film))
    assert len(read) == 12
    greys = [np.asarray(frame).mean() for frame in read.take([0, 5, 5, 11])]
    assert greys == pytest.approx([0, 100, 100, 220], abs=6)
    late = read.take([3, 400])  # a file that says more frames than it has
    assert np.asarray(late[1]).mean() == pytest.approx(220, abs=6)


def test_a_film_becomes_a_tensor(film):
    how = Video(frames=4, input_size=32, crop_pct=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    tensor = how(how.read(film))
    assert tensor.shape == (4, 3, 32, 32)
    assert (tensor.mean((1, 2, 3)) * 255).tolist() == pytest.approx([20, 60, 100, 140], abs=6)
    assert inputs.from_dict(inputs.to_dict(how)) == how


def test_what_is_no_film(tmp_path):
    how = Video()
    for name, content, says in (
        ("empty.mp4", b"", "cannot be read as a video"),
        ("text.mp4", b"a text " * 50, "cannot be read as a video"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadFileError, match=says):
            how.read(tmp_path / name)
    with pytest.raises(BadFileError, match="no file"):
        how.read(tmp_path / "nothing.mp4")
    with pytest.raises(UserError, match="float64 of shape"):
        how.read(np.zeros((2, 4, 4, 3)))
    with pytest.raises(UserError, match="type int"):
        how.read(3)
    with pytest.raises(UserError, match="frames=0"):
        Video(frames=0)
    assert isinstance(how.read(np.zeros((2, 4, 4, 3), np.uint8)), Film)
