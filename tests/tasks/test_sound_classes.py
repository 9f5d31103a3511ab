"""Classification of sounds as a task: real files of every kind, training, and what was listened to."""

import json
import wave

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from command_line import run
from focalnet.data import open_data
from focalnet.data.formats.sound_scenes import CLASSES, LENGTH, SoundScenes
from focalnet.data.transforms.sounds import drop_bands, drop_chunks, train_clip
from focalnet.errors import UserError
from focalnet.inputs.audio import Audio
from focalnet.inputs.files import find_files
from focalnet.models.create import create_model
from focalnet.models.publish import save_pretrained
from focalnet.tasks import get_task

RATE = 16000
TINY = ("--task", "sound", "--model", "sound_minifocal_32", "--seconds", "0.2", "--epochs", "1", "--batch-size", "4",
        "--workers", "0", "--weights", "None", "--recipe", "sound_scenes", "--size", "32")  # fmt: skip


def tone(frequency: float, seconds: float = 0.3, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Two classes of six sounds, of several kinds and lengths."""
    folder = tmp_path_factory.mktemp("sounds")
    kinds = [("wav", "PCM_U8"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("ogg", "VORBIS")]
    for name, frequency in (("high", 3000), ("low", 300)):
        (folder / name).mkdir()
        for number, (ending, subtype) in enumerate(kinds):
            clip = tone(frequency + 10 * number, 0.15 + 0.1 * number)
            soundfile.write(folder / name / f"{number}.{ending}", clip, RATE, subtype=subtype)
        fast = tone(frequency, rate=96000)
        soundfile.write(folder / name / "stereo.wav", np.stack([fast, fast], 1), 96000)
        (folder / name / "notes.txt").write_text("not a sound")
    return folder


def test_a_folder_of_sounds_is_learned_evaluated_and_heard(sounds, tmp_path, capsys):
    out = tmp_path / "run"
    code, _, err = run(capsys, "train", "--data", sounds, "--out", out, *TINY)
    assert code == 0, err
    spec = json.loads((out / "best/config.json").read_text())
    assert spec["preprocessing"]["seconds"] == 0.2
    report = (out / "report.html").read_text()
    assert report.count("<audio") == 2 * 2
    code, printed, _ = run(capsys, "evaluate", out)
    assert code == 0
    assert "top1" in printed
    code, printed, _ = run(capsys, "predict", out, sounds / "high", "--draw", tmp_path / "drawn", "--json")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert len(rows) == 6
    assert {row["label"] for row in rows} <= {"high", "low"}
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.suffix for path in drawn] == [".png", ".wav"] * 6 + [".jsonl"]
    with wave.open(str(drawn[1])) as heard:
        assert heard.getframerate() == RATE
        assert 0.15 < heard.getnframes() / RATE <= 0.2
    with Image.open(drawn[0]) as image:
        assert image.size[1] >= 256


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("broken.wav", b"RIFF\x00\x00\x00\x00WAVE", "cannot be read as a sound"),
        ("empty.flac", b"", "cannot be read as a sound"),
        ("none.wav", None, "holds no samples"),
    ],
)
def test_a_sound_that_cannot_be_read_stops_or_is_skipped(sounds, tmp_path, name, content, says):
    for folder in ("high", "low"):
        (tmp_path / folder).mkdir()
        for file in (sounds / folder).glob("[0-9].*"):
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    bad = tmp_path / "high" / name
    if content is None:
        soundfile.write(bad, np.zeros(0, np.float32), RATE)
    else:
        bad.write_bytes(content)
    task = get_task("sound")(data=str(tmp_path), model="sound_minifocal_32")
    data = task.datasets(0)
    with pytest.raises(UserError, match=f"{name}.*{says}.*--on-bad-file skip"):
        _ = [half[index] for half in (data.train, data.val) for index in range(len(half))]
    skipping = get_task("sound")(data=str(tmp_path), model="sound_minifocal_32", on_bad_file="skip").datasets(0)
    samples = [half[index] for half in (skipping.train, skipping.val) for index in range(len(half))]
    assert [sample.skipped for sample in samples if sample.skipped] == [(str(bad),)]


def test_the_check_of_images_is_for_images(sounds, capsys):
    code, _, err = run(capsys, "check", sounds, "--task", "sound")
    assert code == 2
    assert "the check looks at images" in err


def test_words_are_those_of_sounds(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "image.png")
    with pytest.raises(UserError, match="holds no sound, only other files"):
        open_data("sound", str(tmp_path), val_fraction=0.2, seed=0, on_bad_image="stop")


@pytest.mark.parametrize("samples", [1, 100, 3200, 50000])
def test_clips_have_one_length(samples):
    how = Audio(seconds=0.2)
    signal = np.arange(1, samples + 1, dtype=np.float32)
    for clip in (how(signal), train_clip(how, signal, drop=False)):
        assert clip.shape == (3200,)
        assert clip.count_nonzero() == min(samples, 3200)
    if samples == 50000:
        assert how(signal)[0] == 1 + (50000 - 3200) // 2


def test_what_is_dropped():
    torch.manual_seed(0)
    samples = torch.randn(16000)
    for _ in range(5):
        silent = (torch.fft.rfft(drop_bands(samples)).abs() < 1e-3).float().mean()
        assert 0.045 < silent < 0.16  # one to three bands, which may lie over each other
        zeros = (drop_chunks(samples) == 0).sum()
        assert 1000 < zeros < 10000
    assert torch.equal(drop_chunks(torch.ones(1)), torch.zeros(1))


def test_interpretation_is_measured_where_it_is_asked_for():
    task = get_task("sound")(model="sound_minifocal_32", seconds=0.2, size=32, interpretation=True)
    data = task.datasets(0)
    model = task.build_model(data).eval()
    metric = task.metric(model.spec)
    examples = [task.example(model.spec, data.val[index], train=False) for index in range(4)]
    batch = task.collate(model.spec, examples, train=False) | {"index": torch.tensor([0, 1, 2, -1])}
    with torch.inference_mode():
        metric.update(model, batch)
    got = metric.compute()
    assert got["sparseness"] == pytest.approx(0.9, abs=0.01)
    assert {"top1", "fidelity", "faithfulness", "average_drop", "complexity"} <= set(got)


def test_scenes_are_the_same_every_time_and_the_event_is_known():
    scenes = SoundScenes(1)
    for entry in range(8):
        clip, event = scenes.read(entry), scenes.event(entry)
        assert clip.shape == event.shape == (LENGTH,)
        assert np.array_equal(clip, SoundScenes(1).read(entry))
        assert not np.array_equal(clip, SoundScenes(0).read(entry))
        assert 0.03 < (event != 0).mean() < 0.41
        hum = clip - event
        assert (hum**2).mean() > (event**2).mean() * 0.8  # the hum is louder, where both sound less so
    assert len(CLASSES) == 8


def test_what_is_no_sound_file_is_called_one(tmp_path):
    (tmp_path / "pipe.wav").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match="not a file of a sound"):
        find_files([str(tmp_path / "pipe.wav")], "audio")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no sounds"):
        find_files([str(tmp_path / "empty")], "audio")


def test_sounds_of_unequal_length_are_measured_one_by_one(sounds, tmp_path, capsys):
    made = create_model("sound_minifocal_32", classes=["high", "low"], embedding=8)
    save_pretrained(made, tmp_path / "model")  # never trained, so it knows no length
    words = ["evaluate", tmp_path / "model", "--data", sounds, "--workers", "0"]
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "takes every audio as a whole, and these differ in length; give --batch-size 1." in err
    code, out, err = run(capsys, *words, "--batch-size", "1")
    assert code == 0, err
    assert "top1" in out
    soundfile.write(tmp_path / "click.wav", tone(300)[:5], RATE)
    code, out, err = run(capsys, "predict", tmp_path / "model", tmp_path / "click.wav", "--draw", tmp_path / "drawn")
    assert code == 0, err
    assert soundfile.read(tmp_path / "drawn" / "0000_click_heard.wav")[0].shape == (0,)
