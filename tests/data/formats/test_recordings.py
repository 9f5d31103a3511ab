"""Speech without labels: folders of recordings, sentences of espeak-ng, and what resembles them."""

import logging

import numpy as np
import pytest

from focalnet.data import open_data, open_evaluation
from focalnet.data.formats import recordings, sentences
from focalnet.errors import BadFileError, UserError
from focalnet.inputs import Audio


def write(path, seconds=0.1, rate=16000, **options):
    soundfile = pytest.importorskip("soundfile")
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(np.arange(round(seconds * rate)) * (0.05 + 0.01 * len(path.name)))
    soundfile.write(path, wave, rate, **options)


def opened(source, **options):
    return open_data("speech", str(source), val_fraction=0.25, seed=0, on_bad_image="stop", **options)


def names(samples):
    return [samples.reader.name(entry) for entry in samples.entries]


def test_folders_of_images_or_films_are_no_recordings(tmp_path):
    for number in range(3):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{number}.txt").write_text("what is said")
    assert recordings.is_recordings(str(tmp_path))
    for name in ("cover.jpg", "clip.mp4"):
        (tmp_path / name).write_bytes(b"")
        assert not recordings.is_recordings(str(tmp_path))
        (tmp_path / "said.wav").write_bytes(b"")
        assert recordings.is_recordings(str(tmp_path))
        (tmp_path / "said.wav").unlink()
        (tmp_path / name).unlink()
    assert not recordings.is_recordings(str(tmp_path / "texts" / "0.txt"))


def test_any_folders_are_one_set_of_which_a_share_is_set_aside(tmp_path, caplog):
    for number in range(8):
        write(tmp_path / f"speaker {number % 2}" / "deep" / f"{number}.{'flac' if number % 3 else 'wav'}")
    (tmp_path / "speaker 0" / "0.txt").write_text("what is said")
    (tmp_path / "speaker 0" / "._0.wav").write_bytes(b"left by a Mac")
    with caplog.at_level(logging.INFO):
        data = opened(tmp_path)
    assert (len(data.train), len(data.val), data.set_aside, data.classes) == (6, 2, True, ())
    assert data.description == f"{tmp_path}: 6 training and 2 validation sounds (set aside, share 0.25, seed 0)"
    assert "left out 2 files that are hidden or no sounds: .wav 1, .txt 1" in caplog.text
    sample = data.train[0]
    assert (sample.signal.shape, sample.signal.dtype, sample.label) == ((1600,), np.float32, None)
    assert len(open_evaluation("speech", str(tmp_path), None, 0, on_bad_image="stop")) == 8


def test_splits_may_have_several_folders(tmp_path):
    for folder in ("train-clean-100/19", "train-clean-360/26", "dev-clean/84", "test-clean/61", "notes"):
        write(tmp_path / folder / f"{folder[:7]}.wav")
    data = opened(tmp_path)
    assert [name.split("/")[-3] for name in names(data.train)] == ["train-clean-100", "train-clean-360"]
    assert [name.split("/")[-3] for name in names(data.val)] == ["dev-clean"]
    test = open_evaluation("speech", str(tmp_path), None, 0, on_bad_image="stop", split="test")
    assert len(test) == 1


def test_what_is_missing_is_a_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "one" / "a.wav")
    write(tmp_path / "val only" / "val" / "a.wav")
    (tmp_path / "bad").mkdir()
    for number in range(4):
        (tmp_path / "bad" / f"{number}.wav").write_bytes(b"RIFF")
    for source, sentence in (
        ("empty", "has a split without sounds"),
        ("one", "has 1 sound, so none can be set aside for validation; add sounds"),
        ("one/a.wav", "is a file; give a folder of sounds"),
        ("val only", "has no folder of training sounds; call one train"),
        ("nothing", "There is no .*nothing"),
    ):
        with pytest.raises(UserError, match=sentence):
            opened(tmp_path / source)
    with pytest.raises(BadFileError, match=r"cannot be read as a sound.*--on-bad-file skip"):
        opened(tmp_path / "bad").train[0]


@pytest.mark.parametrize("reader", [sentences.Formants, sentences.Spoken])
def test_a_sentence_is_always_the_same(reader, tmp_path, monkeypatch):
    if reader is sentences.Spoken and not sentences.can_speak():
        pytest.skip("espeak-ng is not installed")
    load = Audio().read
    first = reader(0).read(3, load)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is kept there
    assert np.array_equal(first, reader(0).read(3, load))
    assert np.array_equal(first, reader(0).read(3, load))
    assert 16000 < len(first) < 100_000
    assert 0.3 < np.abs(first).max() <= 1
    assert len(reader(1).read(3, load)) != len(first)
    assert sum(1 for _ in tmp_path.rglob("*.wav")) == (2 if reader is sentences.Spoken else 0)


def test_one_voice_is_not_trained_on(monkeypatch):
    voices = [{sentences.voice_of(stream, entry) for entry in range(24)} for stream in (0, 1)]
    assert voices[1] - voices[0] == {len(sentences.VOICES) - 1}
    assert (
        len({sentences.text_of(0, entry) for entry in range(160)} & {sentences.text_of(1, e) for e in range(24)}) == 0
    )
    monkeypatch.setattr(sentences, "PROGRAM", "no-such-program")
    sentences._version.cache_clear()
    with pytest.raises(UserError, match="no-such-program, which speaks the sentences, does not run"):
        opened("spoken")
    sentences._version.cache_clear()
    assert len(opened("formants").train) == sentences.TRAIN_SENTENCES
