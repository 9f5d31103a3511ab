"""Sound files of every kind become one waveform; everything else is one clear sentence."""

import io

import numpy as np
import pytest
import soundfile

from focalnet import inputs
from focalnet.errors import UserError
from focalnet.inputs.audio import Audio

RATE = 16000


def tone(seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "FLOAT", 0.0),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 5e-2),
        ("MP3", "MPEG_LAYER_III", 5e-2),
    ],
)
def test_every_kind_of_file(tmp_path, kind, subtype, error):
    path = tmp_path / f"tone.{kind.lower()}"
    soundfile.write(path, tone(), RATE, format=kind, subtype=subtype)
    wave = Audio().read(path)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    middle = slice(2000, 6000)
    if kind == "MP3":  # its coder shifts
        assert abs(np.abs(wave[middle]).max() - 0.5) <= error
    else:
        assert np.abs(wave[middle] - tone()[middle]).max() <= error


def test_channels_are_averaged_and_other_rates_resampled(tmp_path):
    fast = tone(rate=96000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([fast, -fast / 2], 1), 96000, subtype="FLOAT")
    wave = Audio().read(tmp_path / "stereo.wav")
    assert len(wave) == len(tone())
    assert np.abs(wave - tone() / 4)[500:-500].max() <= 1e-3
    buffer = io.BytesIO((tmp_path / "stereo.wav").read_bytes())
    assert np.array_equal(Audio().read(buffer), wave)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read as a sound"),
        (b"RIFF\x00\x00\x00\x00WAVE", "cannot be read as a sound"),
        (b"no sound at all, but a text that goes on for a while", "cannot be read as a sound"),
    ],
)
def test_what_is_no_sound(tmp_path, content, says):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(UserError, match=says):
        Audio().read(tmp_path / "x.wav")


def test_files_without_a_sample_or_of_no_numbers(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), RATE)
    with pytest.raises(UserError, match="holds no samples"):
        Audio().read(tmp_path / "empty.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan, 1], np.float32), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="infinite or no numbers"):
        Audio().read(tmp_path / "nan.wav")
    with pytest.raises(UserError, match="is no file; check the path"):
        Audio().read(tmp_path / "nowhere.wav")


def test_it_travels_in_a_description():
    how = Audio(sample_rate=8000, antialias=False)
    assert inputs.from_dict(inputs.to_dict(how)) == how
    assert "8000 samples per second" in how.describe()
    with pytest.raises(UserError, match="win_length=2000 is more than n_fft=1024"):
        Audio(win_length=2000)
    with pytest.raises(UserError, match="hop_length=0; give 1 or more"):
        Audio(hop_length=0)


def test_sounds_that_take_all_memory_or_leave_nothing(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "slow.wav", tone(), 1)
    with pytest.raises(
        UserError, match=r"slow.wav has more than 134,217,728 samples .8000 x 1 channel at 1 per second"
    ):
        Audio(sample_rate=20000).read(tmp_path / "slow.wav")
    soundfile.write(tmp_path / "few.wav", tone()[:3000], 1)
    with pytest.raises(UserError, match=r"few.wav has 1 sample per second, no sound; remove it"):
        Audio().read(tmp_path / "few.wav")
    soundfile.write(tmp_path / "short.wav", tone()[:1], 192000)
    with pytest.raises(UserError, match=r"short.wav has too few samples .1 at 192000 per second"):
        Audio().read(tmp_path / "short.wav")
    soundfile.write(tmp_path / "one.wav", tone()[:1], RATE)
    assert len(Audio().read(tmp_path / "one.wav")) == 1
