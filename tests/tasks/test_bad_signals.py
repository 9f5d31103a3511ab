"""Sounds and films of every odd kind: each is predicted, or refused by one sentence; the tables say which."""

import io
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import torch

from focalnet.data.transforms.films import train_film
from focalnet.errors import UserError
from focalnet.inputs.films import Film
from focalnet.tasks.sound import Sound
from focalnet.tasks.video import VideoTask

RATE = 16000
TONE = (0.5 * np.sin(np.arange(8000) * 0.2)).astype(np.float32)


def encoded(samples, kind="WAV", subtype="PCM_16", rate=RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


UNREADABLE, EMPTY, NO_NUMBERS = "cannot be read as a sound", "holds no samples", "infinite or no numbers"
SOUNDS = {
    "broken.wav": (lambda: b"RIFF\x00\x00\x00\x00WAVE", UNREADABLE),
    "text.mp3": (lambda: b"no sound " * 20, UNREADABLE),
    "empty.ogg": (lambda: b"", UNREADABLE),
    "cut.flac": (lambda: half(encoded(TONE, "FLAC")), UNREADABLE),
    "cut.ogg": (lambda: half(encoded(TONE, "OGG", "VORBIS")), UNREADABLE),
    "cut.wav": (lambda: half(encoded(TONE)), 3989),  # as far as it goes
    "none.wav": (lambda: encoded(TONE[:0]), EMPTY),
    "nan.wav": (lambda: encoded(np.array([0, np.nan]), subtype="FLOAT"), NO_NUMBERS),
    "infinite.wav": (lambda: encoded(np.array([0, np.inf]), subtype="DOUBLE"), NO_NUMBERS),
    "silent.wav": (lambda: encoded(0 * TONE), 8000),
    "negative.wav": (lambda: encoded(np.full(8000, -0.5)), 8000),
    "lopsided.wav": (lambda: encoded(np.append(-1e30 * np.ones(99), 1e-30), subtype="FLOAT"), 100),
    "loud.wav": (lambda: encoded(1e30 * TONE, subtype="FLOAT"), 8000),
    "quiet.wav": (lambda: encoded(1e-30 * TONE, subtype="FLOAT"), 8000),
    "8bit.wav": (lambda: encoded(TONE, subtype="PCM_U8"), 8000),
    "24bit.wav": (lambda: encoded(TONE, subtype="PCM_24"), 8000),
    "24bit.flac": (lambda: encoded(TONE, "FLAC", "PCM_24"), 8000),
    "float.wav": (lambda: encoded(TONE, subtype="FLOAT"), 8000),
    "double.wav": (lambda: encoded(TONE, subtype="DOUBLE"), 8000),
    "telephone.wav": (lambda: encoded(TONE, subtype="ULAW"), 8000),
    "stereo.flac": (lambda: encoded(np.stack([TONE, -TONE], 1), "FLAC"), 8000),
    "six.wav": (lambda: encoded(np.stack([TONE] * 6, 1)), 8000),
    "96k.wav": (lambda: encoded(TONE, rate=96000), 1333),
    "8k.wav": (lambda: encoded(TONE, rate=8000), 16000),
    "one.wav": (lambda: encoded(TONE[:1]), 1),
    "one_at_192k.wav": (lambda: encoded(TONE[:1], rate=192000), "too few samples"),
}


@pytest.fixture(scope="module")
def listener():
    torch.manual_seed(0)
    task = Sound(model="sound_minifocal_32", seconds=0.2, size=32)
    return task, task.build_model(task.datasets(0)).eval()


def heard(listener, path):
    """The waveform of a file, and what is predicted of it."""
    task, model = listener
    wave = model.spec.preprocessing.read(path)
    (prediction,) = task.predict(model, [wave])
    assert all(0 <= probability <= 1 for _, probability in prediction.top)
    assert np.isfinite(prediction.spectrogram).all()
    assert np.isfinite(prediction.heard).all()
    assert prediction.draw(wave).size[1] >= 100
    return wave


@pytest.mark.parametrize("name", SOUNDS)
def test_every_sound_is_heard_or_refused(listener, tmp_path, name):
    make, outcome = SOUNDS[name]
    (tmp_path / name).write_bytes(make())
    if isinstance(outcome, str):
        with pytest.raises(UserError, match=f"{name} .*{outcome}") as caught:
            heard(listener, tmp_path / name)
        assert "\n" not in str(caught.value)
    else:
        assert len(heard(listener, tmp_path / name)) == outcome


@pytest.mark.slow
def test_an_hour_of_sound_is_heard_and_three_are_refused(listener, tmp_path):
    for name, hours in (("hour.flac", 1), ("hours.flac", 3)):
        with soundfile.SoundFile(tmp_path / name, "w", RATE, 1, "PCM_16") as file:
            for _ in range(hours * 60):
                file.write(np.zeros(60 * RATE, np.int16))
    assert len(heard(listener, tmp_path / "hour.flac")) == 3600 * RATE
    with pytest.raises(UserError, match=r"hours.flac has more than 134,217,728 samples .*; cut it into pieces"):
        heard(listener, tmp_path / "hours.flac")


def jpegs(path, sizes):
    """A film of JPEG images, each of a size of its own and brighter than the one before."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        container.start_encoding()
        for number, (width, height) in enumerate(sizes):
            pixels = np.full((height, width, 3), 20 + 18 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = 0
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuvj420p", Fraction(1)
            for packet in [*encoder.encode(frame), *encoder.encode(None)]:
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
                container.mux(packet)


def only_sound(path):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def cut(path):
    jpegs(path, [(32, 32)] * 12)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 4 // 5])


SQUARE, WIDE, TALL = (32, 32), (48, 32), (32, 64)
FILMS = {
    "broken.mp4": (lambda path: path.write_bytes(b"no film " * 50), "cannot be read as a video"),
    "empty.mkv": (lambda path: path.write_bytes(b""), "cannot be read as a video"),
    "cut.mp4": (cut, "cannot be read as a video"),
    "cut.avi": (cut, 8),  # as far as it goes
    "sound.mp4": (only_sound, "holds no images, only sound"),
    "without_frames.avi": (lambda path: jpegs(path, []), "has no frame that can be read"),
    "one_frame.avi": (lambda path: jpegs(path, [SQUARE]), 1),
    "changing.avi": (lambda path: jpegs(path, [SQUARE, SQUARE, WIDE, WIDE, TALL]), 5),
}


@pytest.fixture(scope="module")
def viewer():
    torch.manual_seed(0)
    task = VideoTask(model="video_focalnet_minifocal_32", frames=4, image_size=16)
    return task, task.build_model(task.datasets(0)).eval()


def seen(viewer, path) -> Film:
    """A film, and what is predicted of it and learned from it."""
    task, model = viewer
    how = model.spec.preprocessing
    film = how.read(path)
    for every in (task, type(task)(model=task.model, tta=True)):
        (prediction,) = every.predict(model, [film])
        assert all(0 <= probability <= 1 for _, probability in prediction.top)
        assert {frame.size for frame in prediction.frames} == {prediction.frames[0].size}
        assert prediction.draw(film).size[0] >= 100
    assert task.explained(model, film).size[0] >= 100
    for augment in ("none", "light", "kinetics"):
        assert train_film(how, film, augment).shape == (4, 3, 16, 16)
    return film


@pytest.mark.parametrize("name", FILMS)
def test_every_film_is_seen_or_refused(viewer, tmp_path, name):
    make, outcome = FILMS[name]
    make(tmp_path / name)
    if isinstance(outcome, str):
        with pytest.raises(UserError, match=f"{name} .*{outcome}") as caught:
            seen(viewer, tmp_path / name)
        assert "\n" not in str(caught.value)
    else:
        assert len(seen(viewer, tmp_path / name)) == outcome
