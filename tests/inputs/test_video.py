"""Videos: what is written is read again, frame by frame, and what is no video is said in one sentence."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from focalnet.errors import UserError
from focalnet.inputs.video import VideoWriter, frame_rate, read_frames
from focalnet.predict import is_video

COLORS = ("red", "green", "blue")


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "deep" / "clip.mp4"
    with VideoWriter(path, Fraction(5)) as writer:
        for color in COLORS:
            writer.write(Image.new("RGB", (65, 49), color))
    return path


def test_frames_come_back_in_order(clip):
    frames = list(read_frames(clip))
    assert [place for place, _ in frames] == [{"frame": i, "seconds": i / 5} for i in range(3)]
    for color, (_, image) in zip(COLORS, frames, strict=True):
        assert image.size == (64, 48)  # even sides: the format wants them
        expected = np.asarray(Image.new("RGB", image.size, color)).astype(int)
        assert np.abs(np.asarray(image).astype(int) - expected).mean() < 12
    assert frame_rate(clip) == 5


def test_a_video_is_known_by_its_suffix(clip):
    assert is_video(clip)
    assert is_video("CLIP.MOV")
    assert not is_video("clip.png")
    assert not is_video(Image.new("RGB", (2, 2)))


def test_what_is_no_video(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    for function in (frame_rate, lambda path: list(read_frames(path))):
        with pytest.raises(UserError, match=r"broken.mp4 cannot be read as a video"):
            function(broken)
        with pytest.raises(UserError, match=r"missing.mp4 cannot be read as a video"):
            function(tmp_path / "missing.mp4")
