"""YOLO's text files: layouts, boxes and polygons, and everything that may be broken."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from focalnet.data import open_data, open_evaluation
from focalnet.errors import UserError

W, H = 40, 20
BOX = "1 0.5 0.5 0.25 0.5"
POLYGON = "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9"


def opened(source, **options):
    settings = {"val_fraction": 0.5, "seed": 0, "on_bad_image": "stop", "on_bad_annotation": "stop", **options}
    return open_data("detection", str(source), **settings)


def dataset(root, *texts, yaml="names: [cat, dog]\ntrain: images/train\nval: images/val\n"):
    """One image in each side per text; None writes no text file."""
    for side in ("train", "val"):
        for folder in ("images", "labels"):
            (root / folder / side).mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(texts):
            Image.new("RGB", (W, H), (number, 0, 0)).save(root / f"images/{side}/{number}.png")
            if text is not None:
                (root / f"labels/{side}/{number}.txt").write_text(text)
    (root / "data.yaml").write_text(yaml, encoding="utf-8")
    return root


def refused(source, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        opened(source, **options)
    assert "\n" not in str(caught.value)


def test_boxes(tmp_path):
    data = opened(dataset(tmp_path, f"{BOX}\n\n0 0.25 0.5 0.5 1\n", "", None))
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (3, 3)
    scene = data.train[0]
    assert scene.boxes.tolist() == [[15, 5, 25, 15], [0, 0, 20, 20]]
    assert scene.boxes.dtype == torch.float32
    assert (scene.labels.tolist(), scene.area.tolist()) == ([1, 0], [100, 400])
    assert scene.masks is None
    assert scene.image_id == "0"
    assert data.train[1].boxes.shape == data.train[2].boxes.shape == (0, 4)


def test_outlines(tmp_path):
    scene = opened(dataset(tmp_path, POLYGON)).train[0]
    assert np.allclose(scene.boxes, [[4, 2, 36, 18]])
    assert scene.masks.shape == (1, H, W)
    expected = torch.zeros(H, W, dtype=torch.bool)
    expected[2:18, 4:36] = True
    assert torch.equal(scene.masks[0], expected)
    assert scene.area.tolist() == [32 * 16]
    assert opened(tmp_path, masks=False).train[0].masks is None


def test_boxes_among_outlines(tmp_path):
    scene = opened(dataset(tmp_path, f"{POLYGON}\n{BOX}")).train[0]
    assert scene.labels.tolist() == [0, 1]
    assert scene.outlined.tolist() == [True, False]
    assert scene.masks.sum((1, 2)).tolist() == [32 * 16, 0]
    assert scene.area.tolist() == [32 * 16, 100]
    assert opened(tmp_path, masks=False).train[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "yaml",
    [
        "names: {0: cat, 1: dog}\ntrain: images/train\nval: images/val",
        "names: [cat, dog]\npath: .\ntrain: [images/train]\nvalid: images/val",
        "names: [cat, dog]\ntrain: ../images/train\ntest: ../images/val",
        "names: [cat, dog]\npath: /nowhere/else\ntrain: images/train\nval: images/val",
        "names: [cat, dog]\ntrain: train.txt\nval: images/val",
        "names: {'0': cat, '1': dog}\nTraining: Images/Train\ndev: images/val",
        "names: names.txt\ntrain: images/t*/*.png\nval: images\\val",
        "\ufeffnames: [cat, dog]\ntrain: .\\images\\train\nval: C:\\data\\images\\val\ntest: images/val",
    ],
)
def test_ways_to_write_the_yaml(tmp_path, yaml):
    dataset(tmp_path, BOX, BOX, yaml=yaml)
    (tmp_path / "train.txt").write_text("./images/train/0.png\nimages\\\\train\\\\1.png\n")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    for source in (tmp_path, tmp_path / "data.yaml"):
        data = opened(source)
        assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 2, 2)
        assert data.train[0].labels.tolist() == [1]


def test_one_side(tmp_path):
    data = opened(dataset(tmp_path, BOX, BOX, BOX, BOX, yaml="names: [cat, dog]\ntrain: images/train"))
    assert (len(data.train), len(data.val)) == (2, 2)
    assert not {data.train[i].path for i in range(2)} & {data.val[i].path for i in range(2)}


BROKEN = {
    "x": "lines that are no box and no polygon, left out .first: .*0.txt line 2",
    "1 0.5": "lines that are no box and no polygon",
    "1 0.1 0.2 0.3 0.4 5": "lines that are no box and no polygon",
    "1 0.5 0.5 nan 0.5": "lines that are no box and no polygon",
    "2 0.5 0.5 0.25 0.5": "objects of an unknown class, left out .first: .*line 2, class 2",
    "-1 0.5 0.5 0.25 0.5": "objects of an unknown class",
    "0.5 0.5 0.5 0.25 0.5": "objects of an unknown class",
    "1 0.5 0.5 0 0.5": "boxes of no area",
    BOX: "objects that occur twice, once left out",
    "1 0.9 0.5 0.5 0.5": "boxes that reach out of the image, clipped",
    "1 300 200 50 60": "boxes outside the image, left out .coordinates are shares of the sides",
}


@pytest.mark.parametrize("line", BROKEN)
def test_broken_lines(tmp_path, line, caplog):
    dataset(tmp_path, f"{BOX}\n{line}")
    refused(tmp_path, f"has broken annotations: 2 {BROKEN[line]}")
    with caplog.at_level(logging.WARNING):
        scene = opened(tmp_path, on_bad_annotation="skip").train[0]
    assert len([message for message in caplog.messages if "broken annotations" in message]) == 1
    if "clipped" in BROKEN[line]:
        assert np.allclose(scene.boxes, [[15, 5, 25, 15], [26, 5, 40, 15]])
    else:
        assert scene.labels.tolist() == [1]


@pytest.mark.parametrize("line", ["1 0,5 0,5 0,25 0,5", "1,0.5,0.5,0.25,0.5", "1, 0.5, 0.5, 0.25, 0.5"])
def test_commas(tmp_path, line):
    dataset(tmp_path / "commas", line)
    dataset(tmp_path / "points", "1 0.5 0.5 0.25 0.5")
    commas, points = (opened(tmp_path / name).train[0] for name in ("commas", "points"))
    assert commas.labels.tolist() == points.labels.tolist() == [1]
    assert torch.equal(commas.boxes, points.boxes)


def test_files_that_do_not_fit(tmp_path):
    for yaml, message in {
        "a: [": "cannot be read as YAML",
        "hello": "is no data.yaml",
        "train: images/train": "has no names",
        "names: {1: cat}\ntrain: images/train": "numbers its names 1: number them from 0",
        "names: [cat, cat]\ntrain: images/train": "has two classes of the name 'cat'",
        "names: [cat]": "has no train",
        "names: [cat]\ntrain: nowhere": "names nowhere, but there is no",
        "names: [cat]\ntrain: images/train/0.png": "0.png is no text file that lists images",
        "names: [cat]\ntrain: labels": "train has no images .labels",
    }.items():
        refused(dataset(tmp_path, BOX, yaml=yaml), message)
    refused(dataset(tmp_path / "bare", None, None), "None of 2 images has a text file of objects; the first would be")
    dataset(tmp_path / "gone", BOX, yaml="names: [cat, dog]\ntrain: train.txt\nval: images/val")
    (tmp_path / "gone/train.txt").write_text("images/train/0.png\nimages/train/7.png\n")
    refused(tmp_path / "gone", "1 missing image, left out .first: .*7.png")
    assert len(opened(tmp_path / "gone", on_bad_annotation="skip").train) == 1


def test_from_inside_and_from_outside(tmp_path, monkeypatch):
    dataset(tmp_path, BOX)
    monkeypatch.chdir(tmp_path)
    for source in ("data.yaml", ".", "./data.yaml", f"../{tmp_path.name}"):
        assert opened(source).train[0].labels.tolist() == [1], source
    monkeypatch.chdir(tmp_path / "images")
    assert opened("../data.yaml").train[0].labels.tolist() == [1]


def moved(root, *moves):
    for old, new in moves:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)
    return root


@pytest.mark.parametrize(
    ("moves", "train"),
    [
        ([("images", "Images"), ("labels", "Labels")], "Images/train"),
        ([("images", "IMAGES"), ("labels/train", "labels/Train")], "IMAGES/train"),
        ([("images/train", "train/images"), ("labels/train", "train/labels")], "train/images"),
        ([("images/train", "train/images"), ("labels/train", "train/labels")], "../train"),
        ([("images/train", "train"), ("labels/train", "train/labels")], "train"),
        ([("images/train", "train")], "train"),
        ([("images/train/0.png", "all/0.png"), ("labels/train/0.txt", "all/0.txt")], "all"),
        ([("images/train", "images/x/images"), ("labels/train", "images/x/labels")], "images/x"),
    ],
)
def test_where_the_text_files_lie(tmp_path, moves, train):
    root = moved(dataset(tmp_path, BOX), *moves)
    (root / "data.yaml").write_text(f"names: [cat, dog]\ntrain: {train}\n")
    split = opened_split(root, "train")
    assert [split[index].labels.tolist() for index in range(len(split))] == [[1]]


def opened_split(source, split, classes=("cat", "dog")):
    return open_evaluation("detection", str(source), classes, len(classes), on_bad_image="stop", split=split)


def test_an_evaluation_needs_its_own_split(tmp_path):
    dataset(tmp_path, BOX, yaml="names: [cat, dog]\ntrain: images/train\nval: [images/val]\ntest: images/test")
    for folder in ("images", "labels"):
        for path in (tmp_path / folder / "train").iterdir():
            path.unlink()
        (tmp_path / folder / "train").rmdir()
    assert len(opened_split(tmp_path, None)) == len(opened_split(tmp_path, "val")) == 1
    for split in ("train", "test"):
        with pytest.raises(UserError, match=f"names images/{split}, but there is no"):
            opened_split(tmp_path, split)
    moved(tmp_path, ("images/val", "images/test"), ("labels/val", "labels/test"))
    assert opened_split(tmp_path, "test")[0].labels.tolist() == [1]


def test_poses_give_their_boxes(tmp_path):
    points = " 0.5 0.5 2 0.1 0.2 0"
    dataset(
        tmp_path, f"{BOX}{points}\n0 0.25 0.5 0.5 1", yaml="names: [cat, dog]\ntrain: images/train\nkpt_shape: [2, 3]"
    )
    split = opened_split(tmp_path, "train")
    assert split[0].boxes.tolist() == [[15, 5, 25, 15], [0, 0, 20, 20]]
    assert split[0].masks is None
    (tmp_path / "labels/train/0.txt").write_text(f"{BOX} 0.5 0.5 0.1 0.2\n{BOX}")
    refused(tmp_path, "1 line that is no box and no pose of 6 numbers after it", on_bad_annotation="stop")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: images/train\nkpt_shape: 17")
    refused(tmp_path, "has kpt_shape: 17; give two numbers")


@pytest.mark.parametrize(
    ("line", "pose", "boxes"),
    [
        (f"{BOX} 0.87", "", [[15, 5, 25, 15]]),
        (f"{POLYGON} 0.87", "", [[4, 2, 36, 18]]),
        (f"{BOX} 0.5 0.5 2 0.1 0.2 0 0.87", "\nkpt_shape: [2, 3]", [[15, 5, 25, 15]]),
    ],
)
def test_scores_of_predictions_are_not_read(tmp_path, caplog, line, pose, boxes):
    dataset(tmp_path, line, f"{BOX} 0.5", yaml=f"names: [cat, dog]\ntrain: images/train\nval: images/val{pose}\n")
    assert torch.allclose(opened(tmp_path).train[0].boxes, torch.tensor(boxes).float())
    assert caplog.text.count("4 lines with a score at the end, which is not read") == 1


def test_label_studio_has_a_list_of_classes_and_no_yaml(tmp_path):
    for number in range(4):
        for folder, text in (("images", None), ("labels", f"{BOX}\n")):
            path = tmp_path / folder / f"{number}{'.png' if text is None else '.txt'}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text) if text else Image.new("RGB", (W, H), (number, 0, 0)).save(path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "notes.json").write_text("{}")
    data = opened(tmp_path)
    assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 2, 2)
    for split, number in (("train", 0), ("train", 1), ("val", 2), ("val", 3)):
        for folder, suffix in (("images", "png"), ("labels", "txt")):
            moved(tmp_path, (f"{folder}/{number}.{suffix}", f"{folder}/{split}/{number}.{suffix}"))
    data = opened(tmp_path)
    assert [data.val[index].image_id for index in range(2)] == ["2", "3"]
    assert "its own split" in data.description


def test_darknets_lists(tmp_path):
    """As CVAT exports YOLO 1.1: the text files beside the images, the paths from another folder."""
    folder = tmp_path / "obj_train_data"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (W, H), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(BOX)
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    (tmp_path / "train.txt").write_text("".join(f"data/obj_train_data/{number}.png\n" for number in range(4)))
    data = opened(tmp_path)
    assert (len(data.train), len(data.val)) == (2, 2)


def test_images_of_one_name_are_told_apart(tmp_path):
    dataset(tmp_path, BOX, yaml="names: [cat, dog]\ntrain: [images/train, images/val]")
    split = opened_split(tmp_path, "train")
    assert [split[index].image_id for index in range(2)] == ["train/0", "val/0"]
    assert split[0].category_ids == split.category_ids == (0, 1)
    other = opened_split(tmp_path, "train", ("dog", "pig", "cat"))
    assert other.category_ids == (1, None, 0)


def test_text_files_that_cannot_be_read(tmp_path):
    dataset(tmp_path, BOX, BOX, BOX)
    (tmp_path / "labels/train/1.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "labels/train/2.txt").write_text(f"\ufeff{BOX}\r\n", encoding="utf-8")
    refused(tmp_path, "1 image whose text file cannot be read, left out")
    data = opened(tmp_path, on_bad_annotation="skip")
    assert [data.train[index].image_id for index in range(2)] == ["0", "2"]
    assert data.train[1].labels.tolist() == [1]


def test_labelimg_keeps_its_list_of_classes_with_the_text_files(tmp_path):
    for number in range(4):
        for root, folder in (("one", "."), ("two", "images")):
            (tmp_path / root / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (W, H), (number, 0, 0)).save(tmp_path / root / folder / f"{number}.PNG", "png")
            labels = tmp_path / root / ("." if root == "one" else "Labels")
            labels.mkdir(exist_ok=True)
            (labels / f"{number}.txt").write_text(BOX)
            (labels / "classes.txt").write_text("cat\ndog\n")
    for root in ("one", "two"):
        data = opened(tmp_path / root)
        assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 2, 2)
        assert data.train[0].labels.tolist() == [1]
