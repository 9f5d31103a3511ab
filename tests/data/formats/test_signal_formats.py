"""Sounds and films in the formats of their data sets: ESC-50, Kinetics, lists of files, tar shards, the hub."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_shards import shard

from focalnet.data import open_data, open_evaluation
from focalnet.errors import BadFileError, UserError


def clip(number: int) -> bytes:
    """A sound whose number of samples is its name."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(100 + number, 0.5, np.float32), 16000, format="WAV")
    return buffer.getvalue()


def write(path: Path, content: bytes | list[str] = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(content).encode() if isinstance(content, list) else content)
    return path


def opened(kind, source):
    return open_data(kind, str(source), val_fraction=0.5, seed=0, on_bad_image="stop")


def told(samples):
    """The class of each sample by the end of its path."""
    names = [samples.reader.name(entry).rpartition("/")[2] for entry in samples.entries]
    return {name: samples.classes[label] for name, label in zip(names, samples.labels, strict=True)}


@pytest.fixture
def esc50(tmp_path):
    """Five folds of two sounds, as ESC-50 lies on disk."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, name in enumerate(("dog", "rain")):
            rows.append(f"{fold}-{target}.wav,{fold},{target},{name},True,100,A")
            write(tmp_path / "audio" / f"{fold}-{target}.wav", clip(10 * fold + target))
    write(tmp_path / "meta" / "esc50.csv", rows)
    write(tmp_path / "tests" / "test_dataset.py")
    return tmp_path


def test_the_folds_of_esc50_are_used_as_its_authors_do(esc50, caplog):
    caplog.set_level("INFO")
    data = opened("sound", esc50)
    assert data.classes == ("dog", "rain")
    assert told(data.train) == {f"{fold}-{k}.wav": name for fold in (1, 2, 3) for k, name in ((0, "dog"), (1, "rain"))}
    assert told(data.val) == {"4-0.wav": "dog", "4-1.wav": "rain"}
    test = open_evaluation("sound", str(esc50), data.classes, 2, on_bad_image="stop", split="test")
    assert told(test) == {"5-0.wav": "dog", "5-1.wav": "rain"}
    assert len(test[1].signal) == 151
    assert "trained on the folds 1, 2, 3, validated on 4, tested on 5" in caplog.text
    assert "could also be" not in caplog.text
    assert told(opened("sound", esc50 / "meta" / "esc50.csv").val) == told(data.val)


def test_what_a_table_of_sounds_loses_is_counted(esc50, caplog):
    (esc50 / "audio" / "1-0.wav").unlink()
    data = opened("sound", esc50)
    assert len(data.train) == 5
    assert "1 missing sound, left out (first: '1-0.wav', esc50.csv row 1)" in caplog.text
    for fold in (2, 3):
        for k in (0, 1):
            (esc50 / "audio" / f"{fold}-{k}.wav").unlink()
    with pytest.raises(UserError, match=r"5 missing sounds, left out .*less than half"):
        opened("sound", esc50)


def test_a_sound_of_two_folds_is_on_one_split_only(esc50, caplog):
    (esc50 / "audio" / "4-1.wav").unlink()
    (esc50 / "audio" / "4-1.wav").symlink_to(esc50 / "audio" / "1-1.wav")
    data = opened("sound", esc50)
    assert told(data.val) == {"4-0.wav": "dog"}
    assert "1 sound of the training split, left out of validation" in caplog.text


KINETICS = ["label,youtube_id,time_start,time_end,split"]


@pytest.mark.parametrize("place", ["", "annotations"])
@pytest.mark.parametrize("inner", ["{split}", "videos/{split}/{label}"])
def test_kinetics_names_parts_of_films(tmp_path, place, inner):
    for split, start, count in (("train", 3, 3), ("val", 40, 1)):
        rows = list(KINETICS)
        for number in range(count):
            for label in ("air drumming", "yoga"):
                key = f"{label[0]}{number}-_{split}"
                rows.append(f"{label},{key},{start},{start + 10},{split}")
                folder = tmp_path / inner.format(split=split, label=label.replace(" ", "_"))
                write(folder / f"{key}_{start:06d}_{start + 10:06d}.mp4")
        write(tmp_path / place / f"{split}.csv", rows)
    data = opened("video", tmp_path)
    assert data.classes == ("air drumming", "yoga")
    assert len(data.train) == 6
    assert told(data.val) == {"a0-_val_000040_000050.mp4": "air drumming", "y0-_val_000040_000050.mp4": "yoga"}


@pytest.mark.parametrize(("ending", "between"), [("txt", " "), ("csv", ","), ("csv", " ")])
def test_lists_of_films_and_labels(tmp_path, ending, between):
    names = {"train": ["yoga/a b.mp4", "yoga/c.mp4", "drumming/a.avi", "drumming/e.mp4"], "val": ["yoga/d.mp4"]}
    for split, files in names.items():
        for name in files:
            write(tmp_path / "videos" / name)
        lines = [f"{name}{between}{int(name[0] == 'y') * 10}" for name in files]
        write(tmp_path / f"kinetics_{split}_list_videos.{ending}", lines)
    data = opened("video", tmp_path)
    assert data.classes == ("0", "10")
    assert (len(data.train), told(data.val)) == (4, {"d.mp4": "10"})
    alone = opened("video", tmp_path / f"kinetics_train_list_videos.{ending}")
    assert (len(alone.train), len(alone.val)) == (2, 2)


def test_words_are_those_of_the_data(tmp_path):
    write(tmp_path / "t.csv", ["size,label", "1,x"])
    with pytest.raises(UserError, match="no column of sounds"):
        opened("sound", tmp_path / "t.csv")
    write(tmp_path / "t.csv", ["file,label", "a.wav,x|y", "b.wav,x"])
    with pytest.raises(UserError, match=r"has sounds with several labels .'x|y'.: give each one"):
        opened("sound", tmp_path / "t.csv")
    write(tmp_path / "a.txt", ["these are", "notes"])
    with pytest.raises(UserError, match="is a file; give a folder"):
        opened("video", tmp_path / "a.txt")


def test_sounds_in_shards(tmp_path):
    members = {f"{name}{k}__{ending}": clip(k) if ending == "wav" else name for k in range(4)
               for name in ("dog", "rain") for ending in ("wav", "cls")}  # fmt: skip
    shard(tmp_path / "train-0.tar", **members)
    shard(tmp_path / "val-0.tar", x__cls="dog", x__wav=clip(9), y__cls="rain", y__wav=b"RIFF")
    data = opened("sound", tmp_path)
    assert (data.classes, len(data.train)) == (("dog", "rain"), 8)
    assert len(data.val[0].signal) == 109
    with pytest.raises(BadFileError, match=r"val-0.tar:y.wav cannot be read as a sound.*--on-bad-file skip"):
        data.val[1]
    shard(tmp_path / "val-0.tar", x__cls="dog", x__png=3)
    with pytest.raises(UserError, match="holds no sounds"):
        opened("sound", tmp_path)


def test_sounds_of_the_package_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    cells = [{"bytes": clip(row), "path": None} for row in range(6)]
    table = datasets.Dataset.from_dict({"audio": cells, "label": [0, 1] * 3})
    table = table.cast_column("audio", datasets.Audio()).cast_column("label", datasets.ClassLabel(names=["b", "a"]))
    table.save_to_disk(str(tmp_path / "x"))
    data = opened("sound", tmp_path / "x")
    assert data.classes == ("b", "a")
    lengths = sorted(len(half[index].signal) for half in (data.train, data.val) for index in range(len(half)))
    assert lengths == list(range(100, 106))
    with pytest.raises(UserError, match=r"needs one column of type Image, or one called image; it has audio \(Audio\)"):
        opened("class", tmp_path / "x")
