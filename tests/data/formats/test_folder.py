"""Class folders: which files count, in which order, and one sentence for everything that may be wrong with them."""

import logging
import os
import pickle
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from class_files import fill, open_classes, open_everything, paths, png, refuse
from focalnet.data import open_data
from focalnet.data.splits import choose_splits
from focalnet.errors import UserError


def test_samples_of_a_folder(tmp_path):
    data = open_classes(fill(tmp_path, cat=4, ape=4))
    assert data.classes == data.train.classes == data.val.classes == ("ape", "cat")
    assert (len(data.train), len(data.val)) == (6, 2)
    assert data.train.labels == [0, 0, 0, 1, 1, 1]
    assert data.val.labels == [0, 1]
    for samples in (data.train, data.val):
        for index in range(len(samples)):
            sample = samples[index]
            assert sample.label == samples.labels[index]
            assert data.classes[sample.label] == Path(sample.path).parent.name
            assert sample.signal.mode == "RGB"
            grey = 16 * (1 - sample.label) + int(Path(sample.path).stem)
            assert sample.signal.getpixel((0, 0)) == (grey, grey, grey)
    assert sorted(paths(data.train) + paths(data.val)) == sorted(map(str, tmp_path.glob("*/*")))
    assert data.description == (
        f"{tmp_path}: 2 classes, 6 training and 2 validation images (set aside, share 0.25, seed 0)"
    )
    with pytest.raises(IndexError):
        data.train[6]


def test_pictures_travel_to_worker_processes(tmp_path):
    data = open_classes(fill(tmp_path, a=3, b=3))
    loader = DataLoader(data.train, batch_size=None, num_workers=1)
    assert [sample.path for sample in loader] == paths(pickle.loads(pickle.dumps(data.train))) == paths(data.train)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "test", "VAL"])
def test_split_folders(tmp_path, val):
    fill(tmp_path / "train", a=2, b=3)
    fill(tmp_path / val, a=1, b=2)
    data = open_classes(tmp_path)
    assert (data.train.labels, data.val.labels) == ([0, 0, 1, 1, 1], [0, 1, 1])
    assert all(f"/{val}/" in path for path in paths(data.val))
    assert "its own split" in data.description


def test_test_is_used_only_without_val(tmp_path, caplog):
    fill(tmp_path / "train", a=2, b=2)
    fill(tmp_path / "test", a=1, b=1)
    fill(tmp_path / "val", a=2, b=2)
    data = open_classes(tmp_path)
    assert all("/val/" in path for path in paths(data.val))
    assert "left out: test" in caplog.text
    assert choose_splits(["Test", "train", "validation"]) == ("train", "validation", "Test")
    assert choose_splits(["cat", "dog"]) == (None, None, None)


def test_train_without_val_is_split(tmp_path):
    fill(tmp_path / "train", a=4, b=4)
    data = open_classes(tmp_path)
    assert (data.train.labels, data.val.labels) == ([0, 0, 0, 1, 1, 1], [0, 1])


def test_a_test_side_without_labels_is_left_out(tmp_path, caplog):
    fill(tmp_path / "train", a=4, b=4)
    fill(tmp_path, test=3)
    assert open_classes(tmp_path).val.labels == [0, 1]
    assert f"{tmp_path / 'test'} has no class folders" in caplog.text
    (tmp_path / "test").rename(tmp_path / "val")
    refuse(tmp_path, "val holds 3 images but no class folders")


def test_val_without_train(tmp_path):
    fill(tmp_path / "val", a=2, b=2)
    refuse(tmp_path, "has val/ but no train/")


def test_classes_may_be_called_like_splits(tmp_path):
    assert open_classes(fill(tmp_path, test=2, control=2)).classes == ("control", "test")


def test_a_class_in_val_only_is_an_error(tmp_path):
    fill(tmp_path / "train", a=2, b=2)
    fill(tmp_path / "val", a=1, c=1)
    refuse(tmp_path, "validation split of .* has classes that the training split does not have: c; known: a, b")


def test_a_class_in_train_only_is_a_warning(tmp_path, caplog):
    fill(tmp_path / "train", a=2, b=2, c=2)
    fill(tmp_path / "val", a=1, c=1)
    data = open_classes(tmp_path)
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
        data = open_classes(tmp_path)
    assert data.classes == ("a", "b")
    assert len(data.train) + len(data.val) == 4
    counted, lost = caplog.messages
    assert "left out 6 files that are hidden or no images: .png 2, .txt 2, .md 1, .heic 1" in counted
    assert lost == f"{tmp_path}: 1 image of formats that are not read, left out (first: {tmp_path}/b/photo.HEIC)"


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
    refuse(tmp_path, "holds 1 image but no class folders: put them into one folder per class")
    fill(tmp_path / "flowers", rose=2)
    refuse(tmp_path, "has one class folder, flowers; a classifier needs two or more")
    fill(tmp_path / "flowers", tulip=2)
    refuse(tmp_path, f"did you mean {tmp_path / 'flowers'}\\?")


@pytest.mark.parametrize("kind", ["class", "detection"])
@pytest.mark.parametrize(
    ("files", "what"),
    [
        (("JPEGImages/0.jpg", "Annotations/0.xml"), "Annotations has XML files, as in Pascal VOC"),
        (("train/0.jpg", "train/0.xml", "valid/1.jpg", "valid/1.xml"), "train has XML files"),
        (("0.jpg", "0.json", "1.jpg", "1.json"), "a JSON file per image, of LabelMe"),
    ],
)
def test_annotations_that_are_not_read_are_named(tmp_path, kind, files, what):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"{what}.*not read: export to COCO's or YOLO's"):
        open_data(kind, str(tmp_path), val_fraction=0.5, seed=0, on_bad_image="stop")


def test_missing_folder(tmp_path, monkeypatch):
    fill(tmp_path / "flowers", a=2, b=2)
    monkeypatch.chdir(tmp_path)
    refuse("flower", f"There is no {tmp_path}/flower .*did you mean {tmp_path}/flowers\\?")
    refuse("flowers/trian", f"There is no {tmp_path}/flowers/trian .*nearest folder that exists is {tmp_path}/flowers")
    refuse(tmp_path / "x" / "y" / "z", f"nearest folder that exists is {tmp_path}")
    refuse("flowers/a/0.png", "is a file; give a folder")
    assert len(open_classes("./flowers").train) == 2


def test_an_unreadable_folder_is_not_taken_for_empty(tmp_path, monkeypatch):
    fill(tmp_path, a=2, b=2)

    scan = os.scandir

    def refusing(folder):
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    refuse(tmp_path, "a cannot be read .Permission denied.: check its permissions")


@pytest.mark.parametrize(
    ("train", "val"),
    [("Training", "Testing"), ("training_set", "test_set"), ("seg_train/seg_train", "seg_test/seg_test"),
     ("Train_data", "Valid_data"), ("train2017", "dev"), ("flowers_train", "flowers_validation")],
)  # fmt: skip
def test_splits_of_any_spelling(tmp_path, train, val):
    fill(tmp_path / train, cat=2, dog=2, bird=2)
    fill(tmp_path / val, cat=1, dog=1)
    data = open_classes(tmp_path)
    assert (data.classes, len(data.train), len(data.val)) == (("bird", "cat", "dog"), 6, 2)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["dev/cat", "dev/dog", "held/cat", "held/dog"], "dev, held in .* hold the same folders .cat, dog.: they look"),
        (["site1/cat", "site1/dog", "site2/cat"], "site1, site2 in .* hold the same folders"),
        (["testA/cat", "testA/dog", "testB/cat", "testB/dog"], "testA, testB in .* are called like splits"),
        (["trainA", "trainB", "testA", "testB"], "trainA, trainB of .* are all called training splits"),
        (["train_a/x", "train_b/x", "val/x"], "train_a, train_b, val in .* are called like splits"),
    ],
)
def test_folders_that_are_no_classes(tmp_path, folders, message):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "0.png").write_bytes(png(0))
    refuse(tmp_path, message)


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["train", "bus", "car"], ("bus", "car", "train")),
        (["training shoes/a", "dress shoes/b"], ("dress shoes", "training shoes")),
        (["n01/images", "n02/images"], ("n01", "n02")),
        (["cat/a", "cat/b", "dog/a", "dog"], ("cat", "dog")),
    ],
)
def test_folders_that_are_classes(tmp_path, folders, classes):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for index in range(2):
            (tmp_path / folder / f"{index}.png").write_bytes(png(index))
    assert open_classes(tmp_path).classes == classes


def test_images_that_are_lost(tmp_path, caplog):
    fill(tmp_path, a=4, b=4)
    (tmp_path / "a" / "dead.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    data = open_classes(tmp_path)
    assert [record.getMessage().split(":")[1] for record in caplog.records if record.levelname == "WARNING"] == [
        " 2 images that lead to no file, left out (first"
    ]
    assert [findings.lost("images") for findings in data.findings] == [2, 0]
    assert [findings.images for findings in data.findings] == [6, 2]
    for index in range(9):
        (tmp_path / "a" / f"{index}.heic").touch()
    refuse(
        tmp_path, "9 images of formats that are not read, left out .first: .*heic.;.* So only 8 of 19 images are left"
    )


def test_systems_files_are_ignored(tmp_path):
    fill(tmp_path / "train", a=2, b=2)
    fill(tmp_path / "val", a=1, b=1)
    for folder in ("__MACOSX/train/a", "train/.ipynb_checkpoints", "train/a/.ipynb_checkpoints", "val/@eaDir/a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "0.png").write_bytes(b"none")
    for name in ("train/a/._0.png", "val/b/Thumbs.db", "val/desktop.ini", ".DS_Store"):
        (tmp_path / name).write_bytes(b"none")
    data = open_classes(tmp_path)
    assert (data.classes, len(data.train), len(data.val)) == (("a", "b"), 4, 2)


def test_an_evaluation_needs_the_split_it_uses(tmp_path):
    fill(tmp_path / "valid", a=2, b=1)
    refuse(tmp_path, "has valid/ but no train/")
    assert open_everything(tmp_path, ("a", "b")).labels == [0, 0, 1]
    fill(tmp_path / "test", a=1, b=1)
    for split, labels in ((None, [0, 0, 1]), ("val", [0, 0, 1]), ("test", [0, 1])):
        assert open_everything(tmp_path, ("a", "b"), split=split).labels == labels
    fill(tmp_path / "train", a=1, b=0)  # which training would refuse
    assert open_everything(tmp_path, ("a", "b"), split="test").findings.split == "test"
    with pytest.raises(UserError, match=r"class folder .*b holds no image"):
        open_everything(tmp_path, ("a", "b"), split="train")
    with pytest.raises(UserError, match="has no test split; leave --split out"):
        open_everything(tmp_path / "valid", ("a", "b"), split="test")
