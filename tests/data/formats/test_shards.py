"""Tar shards in webdataset's layout."""

import io
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from class_files import fill, open_classes, open_everything, paths, png, refuse
from focalnet.inputs.image import BadImageError


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
    data = open_classes(tmp_path, val_fraction=0.5)
    assert data.classes == ("0", "1")
    everything = {sample.path: (sample.label, sample.signal.getpixel((1, 1))[0]) for sample in [*data.train, *data.val]}
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
        assert np.array_equal(np.asarray(sample.signal), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("layout", ["{}-{:03}.tar", "{}/{:03}.tar", "{}_{}.tar", "{}{}.tar"])
def test_split_shards(tmp_path, layout):
    for index in range(2):
        shard(tmp_path / layout.format("train", index), a__png=1, a__cls="cat", b__png=2, b__cls="ape")
    shard(tmp_path / layout.format("val", 0), a__png=1, a__cls="cat")
    data = open_classes(tmp_path)
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
            data = open_classes(tmp_path / pattern, val_fraction=0.4)
            assert (len(data.train), len(data.val)) == counts, pattern
    refuse(tmp_path / "train-{00..03}.tar", f"There is no shard {tmp_path}/train-03.tar; check the pattern")
    refuse(tmp_path / "nothing-*.tar", r"There is no shard .*nothing-\*\.tar")
    refuse(tmp_path / "nothing.tar", r"There is no shard .*nothing\.tar")


def test_classes_txt_names_the_numbers(tmp_path, caplog):
    shard(
        tmp_path / "s" / "x.tar", a__png=1, a__cls=2, b__png=1, b__cls="0", c__png=2, c__cls="bird", d__png=3, d__cls=0
    )
    (tmp_path / "s" / "classes.txt").write_text("ape\nbird\n\ncat\n")
    data = open_classes(tmp_path / "s", val_fraction=0.5)
    assert data.classes == ("ape", "bird", "cat")
    assert sorted(data.train.labels + data.val.labels) == [0, 0, 1, 2]
    (tmp_path / "s" / "classes.txt").write_text("ape\nbird")
    refuse(tmp_path / "s", r"x\.tar:a\.png has the label 2, which classes\.txt does not name")
    (tmp_path / "s" / "classes.txt").write_text("ape\nbird\ncat\ndog\n")
    caplog.clear()
    assert len(open_classes(tmp_path / "s").classes) == 4
    assert "nothing to train on for dog" in caplog.text


def test_numbers_are_sorted_as_numbers(tmp_path):
    members = {f"k{index}__{ending}": index for index in (10, 9, 100) for ending in ("png", "cls")}
    refuse(shard(tmp_path / "x.tar", **members), "No class has two images")
    shard(tmp_path / "y.tar", **members)
    data = open_everything(tmp_path, ("9", "10", "100"))
    assert data.labels == [1, 0, 2] * 2
    assert open_classes(tmp_path, val_fraction=0.5).classes == ("9", "10", "100")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a__png": 1}, "1 image without a .cls or .json beside, for example a.png"),
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
        assert len(open_classes(tmp_path).train) == 2
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
    with pytest.raises(BadImageError, match="No image can be read, of 2"):
        data[0]


MEMBERS = {f"k{index}__{ending}": index % 2 for index in range(4) for ending in ("png", "cls")}


@pytest.mark.parametrize(
    ("train", "val"),
    [("imagenet-train-000", "imagenet-validation-000"), ("training_0", "dev_0"), ("train_set/0", "test_set/0")],
)
def test_splits_of_any_spelling(tmp_path, train, val):
    shard(tmp_path / f"{train}.tar", **MEMBERS)
    shard(tmp_path / f"{val}.tar", k0__png=1, k0__cls=0)
    data = open_classes(tmp_path)
    assert (len(data.train), len(data.val)) == (4, 1)


def test_systems_members_and_marks_of_byte_order(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("0.png", "./a/1.png", "._0.png", "__MACOSX/2.png", ".ipynb_checkpoints/0-checkpoint.png"):
            for member, data in ((name, png(0)), (name.replace(".png", ".cls"), b"\xef\xbb\xbf" + b"cat")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (tmp_path / "._x.tar").write_bytes(b"none")
    assert [path.rpartition(":")[2] for path in paths(open_everything(tmp_path, ("cat",)))] == ["0.png", "./a/1.png"]


def test_shards_on_both_splits_and_without_train(tmp_path):
    shard(tmp_path / "train-0.tar", **MEMBERS)
    (tmp_path / "val-0.tar").symlink_to(tmp_path / "train-0.tar")
    refuse(tmp_path, "val-0.tar is a shard of the training and of the validation split: take it out of one")
    (tmp_path / "train-0.tar").rename(tmp_path / "test-0.tar")
    (tmp_path / "val-0.tar").unlink()
    shard(tmp_path / "val-0.tar", k0__png=1, k0__cls=0)
    refuse(tmp_path, "has shards of test, val but none of train")
    assert len(open_everything(tmp_path, ("0", "1"))) == 1
    assert len(open_everything(tmp_path, ("0", "1"), split="test")) == 4
