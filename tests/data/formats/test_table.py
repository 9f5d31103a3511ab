"""CSV files of labels: every usual spelling, one label or several per image, and one sentence for what is wrong."""

import logging

import pytest

from class_files import open_classes, png, refuse
from focalnet.data import open_data, open_evaluation
from focalnet.errors import UserError


def images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for grey, name in enumerate(names):
        (folder / name).write_bytes(png(grey))
    return folder


def table(path, *lines, encoding="utf-8"):
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def open_labels(source, **options):
    options = {"val_fraction": 0.25, "seed": 0, "on_bad_image": "stop"} | options
    return open_data("multilabel", str(source), **options)


def told(data):
    """File name -> names of its labels, of both splits together."""
    return {
        samples[i].path.rsplit("/", 1)[1]: tuple(samples.classes[label] for label in samples[i].label)
        for samples in (data.train, data.val)
        for i in range(len(samples))
    }


FOUR = ("a.png", "b.png", "c.png", "d.png")
WANTED = {"a.png": ("cat",), "b.png": ("cat", "sky"), "c.png": ("sea", "sky"), "d.png": ("cat", "sea")}


@pytest.mark.parametrize("sign", ["|", ";", ",", " ", ", ", " | "])
@pytest.mark.parametrize("header", ["file,labels", "Image Index,Finding Labels", "image_id,tags", "Path,Class"])
def test_a_column_of_labels(tmp_path, sign, header):
    images(tmp_path, *FOUR)
    rows = [f'{name},"{sign.join(reversed(labels))}"' for name, labels in WANTED.items()]
    data = open_labels(table(tmp_path / "labels.csv", header, *rows))
    assert data.classes == ("cat", "sea", "sky")
    assert told(data) == WANTED
    assert 1 <= len(data.val) <= 2


@pytest.mark.parametrize("start", ["\ufefffile", "file"])
def test_the_folder_of_a_table_with_images_beside_it(tmp_path, start):
    images(tmp_path / "images", *FOUR)
    rows = [f"images\\{name};{'|'.join(labels)}" for name, labels in WANTED.items()]
    table(tmp_path / "train.csv", f"{start};label", *rows)
    table(tmp_path / "sample_submission.csv", "file,label", "x.png,cat")
    assert told(open_labels(tmp_path)) == WANTED


def test_a_column_per_class(tmp_path, caplog):
    images(tmp_path / "train", *FOUR)
    images(tmp_path / "test", *FOUR)
    table(
        tmp_path / "train.csv",
        "image_id,sky,cat,sea,age",
        "a,0,1,0,3", "b,1,1.0,0,2", "c,1,0,1,1", "d,0,True,1,7",
    )  # fmt: skip
    data = open_labels(tmp_path)
    assert data.classes == ("sky", "cat", "sea")
    assert {name: set(labels) for name, labels in told(data).items()} == {n: set(ls) for n, ls in WANTED.items()}
    assert all("/train/" in data.train[i].path for i in range(len(data.train)))
    assert "columns with other values than 0 and 1 left out: age" in caplog.text
    assert "4 names without an ending, found by the rest" in caplog.text


def test_images_without_labels_and_several_rows_of_one(tmp_path, caplog):
    images(tmp_path, *FOUR)
    data = open_labels(
        table(tmp_path / "t.csv", "file,label", "a.png,cat", "a.png,sky", "b.png,", "c.png,sky", "d.png,cat")
    )
    assert told(data) == {"a.png": ("cat", "sky"), "b.png": (), "c.png": ("sky",), "d.png": ("cat",)}
    assert "1 row of an image that has one already" in caplog.text


@pytest.mark.parametrize(
    ("header", "val", "train"),
    [
        ("file,labels,is_valid", "True", "False"),
        ("file,labels,split", "valid", "train"),
        ("file,labels,set", "TEST", "Training"),
    ],
)
def test_a_column_of_splits(tmp_path, header, val, train):
    images(tmp_path, *FOUR)
    rows = [f"{name},{' '.join(labels)},{val if name == 'b.png' else train}" for name, labels in WANTED.items()]
    source = table(tmp_path / "labels.csv", header, *rows)
    data = open_labels(source)
    assert [data.val[i].path.rsplit("/", 1)[1] for i in range(len(data.val))] == ["b.png"]
    evaluated = open_evaluation("multilabel", str(source), ("sky", "cat", "sea"), 3, on_bad_image="stop")
    assert evaluated.labels == [(0, 1)]


def test_a_table_per_split(tmp_path):
    images(tmp_path / "images", *FOUR)
    table(tmp_path / "train.csv", "file,labels", "a.png,cat sky", "b.png,sky", "c.png,sea")
    table(tmp_path / "val.csv", "file,labels", "d.png,cat sea")
    data = open_labels(tmp_path)
    assert (len(data.train), data.val.labels) == (3, [(0, 1)])


def test_one_label_per_image_is_a_classification(tmp_path):
    images(tmp_path, *FOUR)
    data = open_classes(
        table(tmp_path / "t.csv", "file,label", "a.png,red car", "b.png,blue car", "c.png,red car", "d.png,blue car")
    )
    assert data.classes == ("blue car", "red car")
    assert sorted([*data.train.labels, *data.val.labels]) == [0, 0, 1, 1]
    bits = open_classes(table(tmp_path / "t.csv", "image,x,y", "a,1,0", "b,0,1", "c,1,0", "d,0,1"))
    assert bits.classes == ("x", "y")
    plain = open_classes(table(tmp_path / "t.csv", "a.png,10", "b.png,9", "c.png,10", "d.png,9"))
    assert plain.classes == ("9", "10")


def test_names_of_classes_with_commas(tmp_path):
    images(tmp_path, *FOUR)
    rows = ['a.png,"tench, Tinca tinca"', 'b.png,"tench, Tinca tinca"', 'c.png,"hen, bird"', 'd.png,"hen, bird"']
    assert open_classes(table(tmp_path / "t.csv", "file,label", *rows)).classes == ("hen, bird", "tench, Tinca tinca")


def test_several_labels_in_a_classification_are_refused(tmp_path):
    images(tmp_path, *FOUR)
    refuse(table(tmp_path / "t.csv", "file,label", "a.png,x|y", "b.png,x"), "several labels.*--task multilabel")
    refuse(table(tmp_path / "t.csv", "file,label", "a.png,x", "b.png,y", "c.png,x y", "d.png,x"), "--task multilabel")
    lines = ["file,label", *(f"{name},{label}" for name in FOUR for label in "xy")]
    refuse(table(tmp_path / "t.csv", *lines), "4 images with several labels")


def test_losses_are_counted_and_less_than_half_is_refused(tmp_path, caplog):
    images(tmp_path, *FOUR)
    rows = ["a.png,x y", "b.png,x", "c.png,y", "d.png,x", "gone.png,x", "more.png,x,y"]
    data = open_labels(table(tmp_path / "t.csv", "file,labels", *rows))
    assert len(data.train) + len(data.val) == 4
    assert "(first: 'gone.png', t.csv row 5)" in caplog.text
    assert "cells than the first one (a list without quotes?), left out (first: t.csv row 6)" in caplog.text
    with pytest.raises(UserError, match=r"4 missing images, left out .* less than half"):
        open_labels(table(tmp_path / "t.csv", "file,labels", *rows[:2], "1.png,x", "2.png,x", "3.png,x", "4.png,x"))
    with pytest.raises(UserError, match="3 rows of no known split, left out"):
        open_labels(table(tmp_path / "t.csv", "file,labels,split", "a.png,x,1", "b.png,x,", "c.png,y,foo"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "is empty"),
        (["label,size", "x,1"], "has no column of images"),
        (["file,size", "a.png,17"], "has no column of labels"),
        (["file,x,x", "a.png,1,0"], "two columns called x"),
        (["file,labels", "a.png,", "b.png,"], "names no label at all"),
        (['file,labels', 'a.png,"' + "x" * 200_000 + '"'], "cannot be read as CSV"),
    ],
)  # fmt: skip
def test_what_is_no_table(tmp_path, lines, message):
    images(tmp_path, *FOUR)
    with pytest.raises(UserError, match=message):
        open_labels(table(tmp_path / "t.csv", *lines))


def test_what_is_no_text(tmp_path):
    with pytest.raises(UserError, match="no text in UTF-8"):
        open_labels(table(tmp_path / "t.csv", "file,labels", encoding="utf-16"))
    with pytest.raises(UserError, match="has no CSV file with a column of images"):
        open_labels(tmp_path / "..")


def test_several_tables_without_a_name(tmp_path):
    for name in ("one.csv", "two.csv"):
        table(tmp_path / name, "file,labels", "a.png,x")
    with pytest.raises(UserError, match=r"several tables, one\.csv, two\.csv: name one"):
        open_labels(tmp_path)


def test_every_label_is_on_both_splits_in_its_share(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    names = [f"{number}.png" for number in range(120)]
    images(tmp_path, *names)
    labels = [" ".join(f"c{k}" for k in range(8) if number % (k + 2) == 0) for number in range(120)]
    source = table(tmp_path / "t.csv", "file,labels", *map(",".join, zip(names, labels, strict=True)))
    data = open_labels(source)
    for label in range(len(data.classes)):
        held_out, kept = (sum(label in own for own in samples.labels) for samples in (data.val, data.train))
        assert abs(held_out - (held_out + kept) / 4) <= 1.5, data.classes[label]
    assert open_labels(source).val.labels == data.val.labels
    assert open_labels(source, seed=1).val.labels != data.val.labels
