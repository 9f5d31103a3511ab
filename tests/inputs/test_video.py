"""Videos: what is written is read again, frame by frame, and what is no video is said in one sentence."""

import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from focalnet.errors import UserError
from focalnet.inputs.files import find_images
from focalnet.inputs.image import BadImageError, load_image
from focalnet.inputs.video import VideoWriter, frame_rate, is_video, read_frames

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
    assert all(map(is_video, ("a.mpg", "a.WMV", "a.3gp", "a.flv", "a.m4v", "a.ts")))
    with pytest.raises(BadImageError, match="is a video, not an image"):
        load_image(clip)


def test_a_program_in_typescript_is_no_video(tmp_path):
    (tmp_path / "app.ts").write_text("let x = 1")
    (tmp_path / "clip.ts").write_bytes(b"G" + bytes(187))
    assert find_images([str(tmp_path)]) == [str(tmp_path / "clip.ts")]


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), Image.Transpose.ROTATE_270),  # as phones write it: a quarter turn to the right
        ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
        ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
        ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
        ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
        ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
        ((1, 0, 0, 1), None),
    ],
)
def test_frames_are_upright(tmp_path, matrix, turn):
    """The case: the track says how a phone was held."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:16, :32] = (255, 0, 0)
    with VideoWriter(tmp_path / "plain.mp4", Fraction(5)) as writer:
        writer.write(Image.fromarray(pixels))
    ((_, plain),) = read_frames(tmp_path / "plain.mp4")
    data = bytearray((tmp_path / "plain.mp4").read_bytes())
    a, b, c, d = (65536 * number for number in matrix)
    place = data.find(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(data)
    ((_, upright),) = read_frames(tmp_path / "phone.mp4")
    expected = plain if turn is None else plain.transpose(turn)
    assert upright.size == expected.size
    assert np.array_equal(np.asarray(upright), np.asarray(expected))
    with VideoWriter(tmp_path / "drawn.mp4", Fraction(5)) as writer:
        writer.write(upright)
    ((_, drawn),) = read_frames(tmp_path / "drawn.mp4")
    assert np.abs(np.asarray(drawn).astype(int) - np.asarray(expected)).mean() < 12


def test_what_is_no_video(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    for function in (frame_rate, lambda path: list(read_frames(path))):
        with pytest.raises(UserError, match=r"broken.mp4 cannot be read as a video"):
            function(broken)
        with pytest.raises(UserError, match=r"missing.mp4 cannot be read as a video"):
            function(tmp_path / "missing.mp4")
