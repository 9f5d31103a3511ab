"""Every source of labelled images, its split, and one clear sentence for everything that may be wrong with it."""

import io
import json
import logging
import os
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from focalnet.data.base import Pictures, Sample, choose_splits, stratified_split
from focalnet.data.sources import ClassificationData, open_classification, open_evaluation
from focalnet.errors import MissingExtraError, UserError
from focalnet.inputs.image import BadImageError


def open_data(source, *, val_fraction=0.25, seed=0, on_bad_image="stop") -> ClassificationData:
    source = None if source is None else str(source)
    return open_classification(source, val_fraction=val_fraction, seed=seed, on_bad_image=on_bad_image)


def open_everything(source, classes, num_classes=None, *, on_bad_image="stop") -> Pictures:
    source = None if source is None else str(source)
    return open_evaluation(source, classes, num_classes or len(classes), on_bad_image=on_bad_image)


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (grey, grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Path, **classes: int) -> Path:
    """Class folders with the given numbers of images."""
    for label, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index}.png").write_bytes(png(16 * label + index))
    return root


def paths(pictures: Pictures) -> list[str]:
    return [sample.path for sample in pictures]


def refuse(source, message: str, **options) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_data(source, **options)
    assert "\n" not in str(caught.value)


# --- samples


def test_samples_of_a_folder(tmp_path):
    data = open_data(fill(tmp_path, cat=4, ape=4))
    assert data.classes == data.train.classes == data.val.classes == ("ape", "cat")
    assert (len(data.train), len(data.val)) == (6, 2)
    assert data.train.labels == [0, 0, 0, 1, 1, 1]
    assert data.val.labels == [0, 1]
    for pictures in (data.train, data.val):
        for index in range(len(pictures)):
            sample = pictures[index]
            assert sample.label == pictures.labels[index]
            assert data.classes[sample.label] == Path(sample.path).parent.name
            assert sample.image.mode == "RGB"
            grey = 16 * (1 - sample.label) + int(Path(sample.path).stem)
            assert sample.image.getpixel((0, 0)) == (grey, grey, grey)
    assert sorted(paths(data.train) + paths(data.val)) == sorted(map(str, tmp_path.glob("*/*")))
    assert data.description == (
        f"{tmp_path}: 2 classes, 6 training and 2 validation images (set aside, share 0.25, seed 0)"
    )
    with pytest.raises(IndexError):
        data.train[6]


def test_pictures_travel_to_worker_processes(tmp_path):
    data = open_data(fill(tmp_path, a=3, b=3))
    loader = DataLoader(data.train, batch_size=None, num_workers=1)
    assert [sample.path for sample in loader] == paths(pickle.loads(pickle.dumps(data.train))) == paths(data.train)


# --- split


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6).filter(lambda counts: max(counts) > 1),
    val_fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_split_is_stratified(counts, val_fraction, seed):
    names = [str(label) for label, count in enumerate(counts) for _ in range(count)]
    train, val = stratified_split(names, val_fraction, seed)
    assert sorted(train + val) == list(range(len(names)))
    assert (train, val) == (sorted(train), sorted(val))
    held_out = Counter(names[index] for index in val)
    for label, count in enumerate(counts):
        assert held_out[str(label)] <= max(count - 1, 0)
        assert abs(held_out[str(label)] - count * val_fraction) <= (
            0.5 if 1 <= count * val_fraction <= count - 1 else 1
        )
        assert held_out[str(label)] >= (count >= 2)
    assert stratified_split(names, val_fraction, seed) == (train, val)


def test_split_follows_the_seed_and_leaves_the_generator_alone():
    names = ["a"] * 40 + ["b"] * 40
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert stratified_split(names, 0.5, 0) != stratified_split(names, 0.5, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_single_pictures_are_trained_on(tmp_path, caplog):
    data = open_data(fill(tmp_path, one=1, two=2))
    assert [data.classes[label] for label in data.train.labels] == ["one", "two"]
    assert [data.classes[label] for label in data.val.labels] == ["two"]
    assert [record.getMessage() for record in caplog.records] == [
        "not validated, because they have a single image: one"
    ]


@pytest.mark.parametrize("val_fraction", [0, 1, -0.5, 20])
def test_senseless_fractions_are_refused(tmp_path, val_fraction):
    refuse(fill(tmp_path, a=2, b=2), "--val-fraction is", val_fraction=val_fraction)


def test_nothing_to_set_aside(tmp_path):
    refuse(fill(tmp_path, a=1, b=1), "No class has two images")


# --- folders


@pytest.mark.parametrize("val", ["val", "valid", "validation", "test", "VAL"])
def test_split_folders(tmp_path, val):
    fill(tmp_path / "train", a=2, b=3)
    fill(tmp_path / val, a=1, b=2)
    data = open_data(tmp_path)
    assert (data.train.labels, data.val.labels) == ([0, 0, 1, 1, 1], [0, 1, 1])
    assert all(f"/{val}/" in path for path in paths(data.val))
    assert "its own split" in data.description


def test_test_is_used_only_without_val(tmp_path, caplog):
    fill(tmp_path / "train", a=2, b=2)
    fill(tmp_path / "test", a=1, b=1)
    fill(tmp_path / "val", a=2, b=2)
    data = open_data(tmp_path)
    assert all("/val/" in path for path in paths(data.val))
    assert "left out: test" in caplog.text
    assert choose_splits(["Test", "train", "validation"]) == ("train", "validation")
    assert choose_splits(["cat", "dog"]) == (None, None)


def test_train_without_val_is_split(tmp_path):
    fill(tmp_path / "train", a=4, b=4)
    data = open_data(tmp_path)
    assert (data.train.labels, data.val.labels) == ([0, 0, 0, 1, 1, 1], [0, 1])


def test_a_test_side_without_labels_is_left_out(tmp_path, caplog):
    fill(tmp_path / "train", a=4, b=4)
    fill(tmp_path, test=3)
    assert open_data(tmp_path).val.labels == [0, 1]
    assert f"{tmp_path / 'test'} has no class folders" in caplog.text
    (tmp_path / "test").rename(tmp_path / "val")
    refuse(tmp_path, "val holds 3 images but no class folders")


def test_val_without_train(tmp_path):
    fill(tmp_path / "val", a=2, b=2)
    refuse(tmp_path, "has val/ but no train/")


def test_classes_may_be_called_like_splits(tmp_path):
    assert open_data(fill(tmp_path, test=2, control=2)).classes == ("control", "test")


def test_a_class_in_val_only_is_an_error(tmp_path):
    fill(tmp_path / "train", a=2, b=2)
    fill(tmp_path / "val", a=1, c=1)
    refuse(tmp_path, "validation side of .* has classes that the training side does not have: c; known: a, b")


def test_a_class_in_train_only_is_a_warning(tmp_path, caplog):
    fill(tmp_path / "train", a=2, b=2, c=2)
    fill(tmp_path / "val", a=1, c=1)
    data = open_data(tmp_path)
    assert data.val.labels == [0, 2]
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        f"{tmp_path}: no validation image for b; validated without",
    )


def test_hidden_and_other_files_are_counted(tmp_path, caplog):
    fill(tmp_path, a=2, b=2)
    for name in ("a/.hidden.png", "a/notes.txt", "b/photo.HEIC", "b/x.txt", "README.md", "loose.png"):
        (tmp_path / name).write_bytes(b"x")
    for name in (".git", "__MACOSX", "a/.thumbnails"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png(1))
    with caplog.at_level(logging.INFO):
        data = open_data(tmp_path)
    assert data.classes == ("a", "b")
    assert len(data.train) + len(data.val) == 4
    (record,) = caplog.records
    assert "6 files that are hidden or no images left out: .png 2, .txt 2, .md 1, .heic 1" in record.getMessage()


def test_endings_in_capitals_subfolders_and_order(tmp_path):
    fill(tmp_path, b=2, a=2)
    (tmp_path / "a" / "z" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "10.PNG").write_bytes(png(1))
    (tmp_path / "a" / "z" / "deep" / "9.JpEg").write_bytes(png(1))
    (tmp_path / "a" / "z" / "1.webp").write_bytes(png(1))
    data = open_everything(tmp_path, ("a", "b"))
    names = [str(Path(path).relative_to(tmp_path)) for path in paths(data)]
    assert names == ["a/0.png", "a/1.png", "a/10.PNG", "a/z/1.webp", "a/z/deep/9.JpEg", "b/0.png", "b/1.png"]


def test_the_order_is_that_of_torchvision(tmp_path):
    from torchvision.datasets import ImageFolder

    fill(tmp_path, b10=3, b9=3, B=3)
    (tmp_path / "b9" / "inner").mkdir()
    (tmp_path / "b9" / "inner" / "0.png").write_bytes(png(1))
    ours = open_everything(tmp_path, ("B", "b10", "b9"))
    theirs = ImageFolder(str(tmp_path))
    assert list(zip(paths(ours), ours.labels, strict=True)) == theirs.samples


def test_links_are_followed_once(tmp_path):
    fill(tmp_path / "store", a=2, b=2)
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "store" / "a")
    (root / "b").mkdir()
    for index in range(2):
        (root / "b" / f"{index}.png").symlink_to(tmp_path / "store" / "b" / f"{index}.png")
    (root / "b" / "loop").symlink_to(root / "b")
    fill(tmp_path / "more", b=1)
    (root / "b" / "more").symlink_to(tmp_path / "more" / "b")
    assert open_everything(root, ("a", "b")).labels == [0, 0, 1, 1, 1]


def test_empty_class_folder(tmp_path):
    fill(tmp_path, a=2, b=2, c=0)
    refuse(tmp_path, f"class folder {tmp_path / 'c'} holds no image, no files at all")
    (tmp_path / "c" / "x.heic").touch()
    refuse(tmp_path, r"only other files \(.heic 1\): fill it or remove it")


def test_too_few_classes(tmp_path):
    refuse(tmp_path, "has no class folders: make one")
    (tmp_path / "x.png").write_bytes(png(1))
    refuse(tmp_path, "holds 1 images but no class folders: put them into one folder per class")
    fill(tmp_path / "flowers", rose=2)
    refuse(tmp_path, "has one class folder, flowers; a classifier needs two or more")
    fill(tmp_path / "flowers", tulip=2)
    refuse(tmp_path, f"did you mean {tmp_path / 'flowers'}\\?")


def test_missing_folder(tmp_path, monkeypatch):
    fill(tmp_path / "flowers", a=2, b=2)
    monkeypatch.chdir(tmp_path)
    refuse("flower", f"There is no {tmp_path}/flower .*did you mean {tmp_path}/flowers\\?")
    refuse("flowers/trian", f"There is no {tmp_path}/flowers/trian .*nearest folder that exists is {tmp_path}/flowers")
    refuse(tmp_path / "x" / "y" / "z", f"nearest folder that exists is {tmp_path}")
    refuse("flowers/a/0.png", "is a file; give a folder")
    assert len(open_data("./flowers").train) == 2


def test_an_unreadable_folder_is_not_taken_for_empty(tmp_path, monkeypatch):
    fill(tmp_path, a=2, b=2)

    def walk(folder, *, onerror, **_):
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    refuse(tmp_path, "a cannot be read .Permission denied.: check its permissions")


# --- bad images


def test_a_bad_picture_stops_with_its_path(tmp_path):
    fill(tmp_path, a=4, b=4)
    (tmp_path / "a" / "1.png").write_bytes(b"rubbish")
    data = open_everything(tmp_path, ("a", "b"))
    with pytest.raises(BadImageError, match=r"^.*a/1\.png cannot be read .*--on-bad-image skip\.$"):
        data[1]
    assert data[0].skipped == ()


def test_a_bad_picture_is_replaced_by_the_next(tmp_path):
    fill(tmp_path, a=4, b=4)
    bad = [str(tmp_path / name) for name in ("a/1.png", "a/2.png", "b/3.png")]
    for path in bad:
        Path(path).write_bytes(b"rubbish")
    data = open_everything(tmp_path, ("a", "b"), on_bad_image="skip")
    assert len(data) == 8
    assert data[1] == Sample(data[3].image, 0, data[3].path, tuple(bad[:2]))
    assert (data[7].path, data[7].label, data[7].skipped) == (data[0].path, 0, (bad[2],))
    loader = DataLoader(data, batch_size=None, num_workers=2, shuffle=True)
    assert {path for sample in loader for path in sample.skipped} == set(bad)


def test_nothing_but_bad_pictures(tmp_path):
    fill(tmp_path, a=2, b=2)
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(BadImageError, match="None of the 2 images can be read"):
        open_data(tmp_path, on_bad_image="skip", val_fraction=0.5).train[0]


# --- digits


def test_digits():
    data = open_data(None)
    assert data.classes == tuple("0123456789")
    assert (len(data.train), len(data.val)) == (1352, 445)
    assert set(paths(data.train)).isdisjoint(paths(data.val))
    counts = Counter(data.train.labels), Counter(data.val.labels)
    assert all(abs(counts[1][label] / (counts[0][label] + counts[1][label]) - 0.25) < 0.01 for label in range(10))
    from sklearn.datasets import load_digits

    digits = load_digits()
    for sample in (data.train[0], data.val[17]):
        row = int(sample.path.removeprefix("digits[").removesuffix("]"))
        assert sample.label == digits.target[row]
        assert sample.image.mode == "RGB"
        assert np.abs(np.asarray(sample.image)[..., 1] / 255 * 16 - digits.images[row]).max() < 0.04


def test_the_digits_are_always_split_the_same_way():
    one, other = open_data("digits", seed=1, val_fraction=0.1), open_data(None, seed=2, val_fraction=0.7)
    assert paths(one.val) == paths(other.val)
    assert paths(one.val)[:4] == ["digits[30]", "digits[31]", "digits[32]", "digits[34]"]


def test_a_folder_called_digits(tmp_path, monkeypatch):
    fill(tmp_path / "digits", a=2, b=2)
    monkeypatch.chdir(tmp_path)
    refuse("digits", "for the folder here write ./digits")
    assert open_data("./digits").classes == ("a", "b")
    assert len(open_data(None).classes) == 10


@pytest.mark.parametrize(("package", "source"), [("sklearn.datasets", None), ("datasets", "hf:someone/something")])
def test_missing_packages_are_named(package, source, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'focalnet\[train\]'"):
        open_data(source)


# --- shards


def shard(path: Path, **members: bytes | int | str) -> Path:
    """A tar with the members `key__ending=content`; a number as content of an image is its grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", ".").replace("_", "/"))
            is_grey = isinstance(content, int) and info.name.endswith("png")
            data = png(content) if is_grey else content if isinstance(content, bytes) else str(content).encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_samples_of_shards(tmp_path):
    shard(
        tmp_path / "x-0.tar", a__png=10, a__cls=1, x_b__json='{"label": 0, "width": 3}', x_b__png=20, x_b__txt="hello"
    )
    shard(tmp_path / "x-1.tar", a__cls="0\n", a__PNG=png(30), x_b__png=40, x_b__cls="1")
    data = open_data(tmp_path, val_fraction=0.5)
    assert data.classes == ("0", "1")
    everything = {sample.path: (sample.label, sample.image.getpixel((1, 1))[0]) for sample in [*data.train, *data.val]}
    assert everything == {
        f"{tmp_path}/x-0.tar:a.png": (1, 10),
        f"{tmp_path}/x-0.tar:x/b.png": (0, 20),
        f"{tmp_path}/x-1.tar:a.PNG": (0, 30),
        f"{tmp_path}/x-1.tar:x/b.png": (1, 40),
    }
    assert [sample.path for sample in DataLoader(data.train, None, num_workers=1)] == paths(data.train)


def test_shards_are_read_like_webdataset(tmp_path):
    """The same keys, labels and images as the package that streams them."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "x.tar")) as writer:
        for index in range(6):
            writer.write({"__key__": f"v1.5/{index}", "png": png(index), "cls": index % 3, "mask.png": png(0)})
    ours = open_everything(tmp_path, ("0", "1", "2"))
    with open(tmp_path / "x.tar", "rb") as stream:
        files = [file | {"__url__": "x.tar"} for file in webdataset.tariterators.tar_file_iterator(stream)]
    streamed = list(webdataset.tariterators.group_by_keys(files))
    theirs = {sample["__key__"]: (int(sample["cls"]), sample["png"]) for sample in streamed}
    assert len(theirs) == 6
    for sample in ours:
        label, data = theirs[sample.path.rpartition(":")[2].removesuffix(".png")]
        assert sample.label == label
        assert np.array_equal(np.asarray(sample.image), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("layout", ["{}-{:03}.tar", "{}/{:03}.tar", "{}_{}.tar", "{}{}.tar"])
def test_split_shards(tmp_path, layout):
    for index in range(2):
        shard(tmp_path / layout.format("train", index), a__png=1, a__cls="cat", b__png=2, b__cls="ape")
    shard(tmp_path / layout.format("val", 0), a__png=1, a__cls="cat")
    data = open_data(tmp_path)
    assert data.classes == ("ape", "cat")
    assert (data.train.labels, data.val.labels) == ([1, 0, 1, 0], [1])


def test_patterns(tmp_path):
    for index in range(3):
        shard(tmp_path / f"train-{index:02}.tar", a__png=1, a__cls="cat", b__png=2, b__cls="ape")
    shard(tmp_path / "val-00.tar", a__png=1, a__cls="cat", b__png=2, b__cls="ape")
    for pattern, counts in {
        "train-{00..01}.tar": (2, 2),
        "train-*.tar": (4, 2),
        "{train,val}-*.tar": (6, 2),
        "{train-{00..02},val-00}.tar": (6, 2),
        "train-0[01].tar": (2, 2),
        "val-00.tar": None,
    }.items():
        if counts is None:
            refuse(tmp_path / pattern, "No class has two images")
        else:
            data = open_data(tmp_path / pattern, val_fraction=0.4)
            assert (len(data.train), len(data.val)) == counts, pattern
    refuse(tmp_path / "train-{00..03}.tar", f"There is no shard {tmp_path}/train-03.tar; check the pattern")
    refuse(tmp_path / "nothing-*.tar", r"There is no shard .*nothing-\*\.tar")
    refuse(tmp_path / "nothing.tar", r"There is no shard .*nothing\.tar")


def test_classes_txt_names_the_numbers(tmp_path, caplog):
    shard(
        tmp_path / "s" / "x.tar", a__png=1, a__cls=2, b__png=1, b__cls="0", c__png=2, c__cls="bird", d__png=3, d__cls=0
    )
    (tmp_path / "s" / "classes.txt").write_text("ape\nbird\n\ncat\n")
    data = open_data(tmp_path / "s", val_fraction=0.5)
    assert data.classes == ("ape", "bird", "cat")
    assert sorted(data.train.labels + data.val.labels) == [0, 0, 1, 2]
    (tmp_path / "s" / "classes.txt").write_text("ape\nbird")
    refuse(tmp_path / "s", r"x\.tar:a\.png has the label 2, which classes\.txt does not name")
    (tmp_path / "s" / "classes.txt").write_text("ape\nbird\ncat\ndog\n")
    caplog.clear()
    assert len(open_data(tmp_path / "s").classes) == 4
    assert "no image to train on for dog" in caplog.text


def test_numbers_are_sorted_as_numbers(tmp_path):
    members = {f"k{index}__{ending}": index for index in (10, 9, 100) for ending in ("png", "cls")}
    refuse(shard(tmp_path / "x.tar", **members), "No class has two images")
    shard(tmp_path / "y.tar", **members)
    data = open_everything(tmp_path, ("9", "10", "100"))
    assert data.labels == [1, 0, 2] * 2
    assert open_data(tmp_path, val_fraction=0.5).classes == ("9", "10", "100")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a__png": 1}, "1 images without a .cls or .json beside them, for example a.png"),
        ({"a__cls": 1}, "holds no images"),
        ({"a__png": 1, "a__jpg": png(1), "a__cls": 1}, "two images for a"),
        ({"a__png": 1, "a__json": "{}"}, r"x\.tar:a\.json has no label"),
        ({"a__png": 1, "a__json": '{"label": [1]}'}, "has no label"),
        ({"a__png": 1, "a__json": '{"label": true}'}, "has no label"),
        ({"a__png": 1, "a__json": "[1"}, "has no label"),
        ({"a__png": 1, "a__json": b"\xff\xfe"}, "has no label"),
    ],
)
def test_broken_contents_of_shards(tmp_path, members, message):
    refuse(shard(tmp_path / "x.tar", **members), message)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 0.8])
def test_cut_shards(tmp_path, share):
    members = {f"k{index}__{ending}": index for index in range(12) for ending in ("png", "cls")}
    path = shard(tmp_path / "x.tar", **members)
    data = path.read_bytes()[:24576]  # 24 members of a header and a block each
    path.write_bytes(data[: int(len(data) * share)])
    refuse(path, r"shard .*x\.tar cannot be read")
    path.write_bytes(data)  # complete members, but the end is missing
    refuse(path, "broken or cut off after byte 24576")


def test_a_broken_header_in_the_middle(tmp_path):
    path = shard(tmp_path / "x.tar", a__png=1, a__cls=1, b__png=1, b__cls=0)
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 100] ^= 255
    path.write_bytes(bytes(data))
    refuse(path, "broken or cut off after byte 2048")


def test_compressed_shards(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    refuse(tmp_path / "x.tar.gz", "a compressed tar has no random access, unpack it")


def test_a_tar_beside_class_folders_is_no_shard(tmp_path, caplog):
    fill(tmp_path, a=2, b=2)
    shard(tmp_path / "flowers.tar", a__png=1)
    with caplog.at_level(logging.INFO):
        assert len(open_data(tmp_path).train) == 2
    assert ".tar 1" in caplog.text


def test_bad_pictures_in_shards(tmp_path):
    members = {"a__png": b"rubbish", "a__cls": 0, "b__png": 1, "b__cls": 1}
    shard(tmp_path / "x.tar", **members)
    name = f"{tmp_path}/x.tar:a.png"
    with pytest.raises(BadImageError, match=name):
        open_everything(tmp_path, ("0", "1"))[0]
    data = open_everything(tmp_path, ("0", "1"), on_bad_image="skip")
    assert data[0].skipped == (name,)
    (tmp_path / "x.tar").unlink()
    with pytest.raises(BadImageError, match="None of the 2"):
        data[0]


# --- the datasets package


@pytest.fixture(scope="module")
def hub():
    import datasets

    datasets.disable_progress_bars()
    return datasets


def table(hub, count: int, label, **more):
    """Rows of an image and a label; `label` is a feature."""
    features = hub.Features({"image": hub.Image(), "label": label, **{name: kind for name, (kind, _) in more.items()}})
    names = [0, 1] if isinstance(label, hub.ClassLabel) else {"string": ["even", "odd"], "int64": [3, 12]}[label.dtype]
    return hub.Dataset.from_dict(
        {
            "image": [{"bytes": png(row), "path": None} for row in range(count)],
            "label": [names[row % 2] for row in range(count)],
            **{name: [value] * count for name, (_, value) in more.items()},
        },
        features=features,
    )


def test_a_saved_data_set(tmp_path, hub):
    names = hub.ClassLabel(names=["odd", "even"])
    both = {"train": table(hub, 6, names), "test": table(hub, 2, names)}
    hub.DatasetDict(both).save_to_disk(str(tmp_path / "both"))
    data = open_data(tmp_path / "both")
    assert data.classes == ("odd", "even"), "the order of the ClassLabel, not of the alphabet"
    assert (data.train.labels, data.val.labels) == ([0, 1, 0, 1, 0, 1], [0, 1])
    sample = data.train[4]
    assert (sample.path, sample.label) == (f"{tmp_path}/both/train[4]", 0)
    assert sample.image.getpixel((0, 0)) == (4, 4, 4)
    assert [sample.path for sample in DataLoader(data.train, None, num_workers=1)] == paths(data.train)

    both["train"].save_to_disk(str(tmp_path / "one"))
    data = open_data(tmp_path / "one", val_fraction=0.3)
    assert (len(data.train), len(data.val)) == (4, 2)


@pytest.mark.parametrize(("kind", "classes"), [("string", ("even", "odd")), ("int64", ("3", "12"))])
def test_labels_without_names(tmp_path, hub, kind, classes):
    table(hub, 4, hub.Value(kind)).save_to_disk(str(tmp_path / "x"))
    data = open_data(tmp_path / "x", val_fraction=0.5)
    assert data.classes == classes
    assert sorted(data.train.labels) == [0, 1]
    for sample in [*data.train, *data.val]:
        row = sample.image.getpixel((0, 0))[0]
        assert data.classes[sample.label] == {"string": ["even", "odd"], "int64": ["3", "12"]}[kind][row % 2]


def test_several_label_columns(tmp_path, hub, caplog):
    more = {"fine": (hub.ClassLabel(names=["x", "y"]), 1), "coarse": (hub.ClassLabel(names=["c"]), 0)}
    whole = table(hub, 4, hub.Value("string"), **more)
    whole.save_to_disk(str(tmp_path / "x"))
    with caplog.at_level(logging.INFO):
        assert open_data(tmp_path / "x").classes == ("even", "odd")
    assert "the label is the column label; there is also fine, coarse" in caplog.text
    whole.remove_columns("label").save_to_disk(str(tmp_path / "y"))
    data = open_data(tmp_path / "y")
    assert data.classes == ("x", "y")
    assert set(data.train.labels) == {1}


def test_a_table_without_labels_or_pictures(tmp_path, hub):
    whole = table(hub, 4, hub.ClassLabel(names=["a", "b"]))
    whole.remove_columns("label").save_to_disk(str(tmp_path / "pictures"))
    refuse(tmp_path / "pictures", r"needs a column of type ClassLabel, or one called label; it has image \(Image\)")
    whole.remove_columns("image").save_to_disk(str(tmp_path / "labels"))
    refuse(tmp_path / "labels", r"needs one column of type Image, .* it has label \(ClassLabel\)")
    hub.DatasetDict({"a": whole, "b": whole}).save_to_disk(str(tmp_path / "splits"))
    refuse(tmp_path / "splits", "has the splits a, b but no train")


def test_a_split_without_labels(tmp_path, hub, caplog):
    names = hub.ClassLabel(names=["a", "b"])
    whole = table(hub, 4, names)
    hidden = whole.map(lambda row: {"label": -1})
    hub.DatasetDict({"train": whole, "test": hidden}).save_to_disk(str(tmp_path / "x"))
    assert len(open_data(tmp_path / "x").val) == 2
    assert "the split test has no labels" in caplog.text
    hidden.save_to_disk(str(tmp_path / "y"))
    refuse(tmp_path / "y", "has rows without a label")


def test_bad_pictures_in_a_data_set(tmp_path, hub):
    rows = {"image": [{"bytes": b"rubbish", "path": None}, None, {"bytes": png(2), "path": None}], "label": [0, 1, 0]}
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=["a", "b"])})
    hub.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "x"))
    with pytest.raises(BadImageError, match=r"x\[0\] cannot be read"):
        open_everything(tmp_path / "x", ("a", "b"))[0]
    data = open_everything(tmp_path / "x", ("a", "b"), on_bad_image="skip")
    assert data[0].skipped == (f"{tmp_path}/x[0]", f"{tmp_path}/x[1]")


def test_parquet_and_metadata(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "p" / "data").mkdir(parents=True)
    table(hub, 8, hub.ClassLabel(names=["a", "b"])).to_parquet(str(tmp_path / "p/data/train-00000-of-00001.parquet"))
    data = open_data(tmp_path / "p")
    assert (data.classes, len(data.train), len(data.val)) == (("a", "b"), 6, 2)
    folder = tmp_path / "m"
    folder.mkdir()
    lines = []
    for index in range(4):
        (folder / f"{index}.png").write_bytes(png(index))
        lines.append(json.dumps({"file_name": f"{index}.png", "label": "ab"[index % 2]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    data = open_data(folder, val_fraction=0.5)
    assert data.classes == ("a", "b")
    rows = {sample.image.getpixel((0, 0))[0]: sample.label for sample in [*data.train, *data.val]}
    assert rows == {0: 0, 1: 1, 2: 0, 3: 1}


def test_a_csv_of_notes_does_not_make_it_a_data_set(tmp_path):
    fill(tmp_path, a=2, b=2)
    (tmp_path / "metadata.csv").write_text("camera,date\nx,y\n")
    assert open_data(tmp_path).classes == ("a", "b")


def test_a_broken_saved_data_set(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    refuse(tmp_path, "cannot be read as a data set")


@pytest.mark.parametrize("name", ["hf:cifar10", "someone/something", "hf:someone/something:plain"])
def test_hub_names(hub, monkeypatch, name):
    asked = []

    def load(repository, configuration):
        asked.append((repository, configuration))
        return hub.DatasetDict({"train": table(hub, 4, hub.ClassLabel(names=["a", "b"]))})

    monkeypatch.setattr(hub, "load_dataset", load)
    data = open_data(name)
    repository, _, configuration = name.removeprefix("hf:").partition(":")
    assert asked == [(repository, configuration or None)]
    assert len(data.train) == 2
    assert data.train[0].path.startswith(name.removeprefix("hf:"))


def test_no_network(hub, monkeypatch, tmp_path):
    def load(*_):
        raise ConnectionError("Couldn't reach 'someone/something' on the Hub\nand more")

    monkeypatch.setattr(hub, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    message = (
        f"The data set 'someone/something' cannot be loaded from the hub .*reach.*, and there is no folder {tmp_path}"
    )
    refuse("someone/something", message)
    refuse("hf:someone/something", message)


# --- evaluation on other data


def test_evaluation_takes_the_classes_of_the_model(tmp_path):
    fill(tmp_path / "flat", b=2, a=1)
    pictures = open_everything(tmp_path / "flat", ("z", "b", "a"))
    assert pictures.labels == [2, 1, 1]
    assert pictures.classes == ("z", "b", "a")
    fill(tmp_path / "split" / "train", b=2, a=2)
    fill(tmp_path / "split" / "val", b=1)
    assert open_everything(tmp_path / "split", ("a", "b")).labels == [1]
    fill(tmp_path / "split" / "val", a=1)
    assert len(open_everything(tmp_path / "split", ("a", "b"))) == 2
    with pytest.raises(UserError, match="has classes that the model does not have: b; known: a, x"):
        open_everything(tmp_path / "split", ("a", "x"))
    with pytest.raises(UserError, match="has classes that the model does not have: a, b; known: x, y, z"):
        open_everything(tmp_path / "split", ("x", "y", "z"))
    assert len(open_everything(None, tuple("9876543210"))) == 445


def test_evaluation_by_the_order_of_the_classes(tmp_path, caplog):
    fill(tmp_path, n02=2, n01=1)
    assert open_everything(tmp_path, None, 2).labels == [0, 1, 1]
    assert caplog.records == []
    assert open_everything(tmp_path, ("tench", "crane")).labels == [0, 1, 1]
    assert "no class is called as in the model; taken for the same 2 in order" in caplog.text
    with pytest.raises(UserError, match="has 2 classes, the model 5 without names"):
        open_everything(tmp_path, None, 5)
