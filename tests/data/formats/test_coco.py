"""COCO files, of objects and of panoptic segments: every layout, exact masks, and everything that may be broken."""

import json
import logging
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as pycocotools

from focalnet.data import open_data, open_evaluation
from focalnet.errors import UserError
from focalnet.inputs.image import BadImageError
from focalnet.labels import COCO_CLASSES, COCO_IDS, COCO_PANOPTIC_CLASSES, COCO_PANOPTIC_THINGS
from focalnet.structures import outline_to_mask, polygon_arrays, read_counts

W, H = 31, 23
NAMES = {7: "cat", 3: "ape", 90: "dog"}


def opened(source, **options):
    settings = {"val_fraction": 0.5, "seed": 0, "on_bad_image": "stop", "on_bad_annotation": "stop", **options}
    return open_data("detection", str(source), **settings)


def note(number: int, picture: int = 1, category: int = 7, box=(2, 3, 10, 12), **fields) -> dict:
    x, y, w, h = box
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    plain = {"id": number, "image_id": picture, "category_id": category, "bbox": list(box), "area": w * h}
    return {**plain, "iscrowd": 0, "segmentation": outline, **fields}


def content(notes: list, pictures=(1, 2), names=NAMES) -> dict:
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": W, "height": H} for n in pictures],
        "annotations": notes,
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def draw_pictures(folder, numbers=(1, 2), size=(W, H)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("RGB", size, (number, 0, 0)).save(folder / f"{number}.png")


def one_file(root, notes, **fields):
    """A JSON file beside its images."""
    draw_pictures(root)
    return write(root / "notes.json", content(notes, **fields))


def by_id(scenes) -> dict:
    return {scene.image_id: scene for scene in (scenes[i] for i in range(len(scenes)))}


# --- layouts


def test_coco_folder(tmp_path):
    for split, notes in (("train", [note(1), note(2, 2, 90)]), ("val", [note(1, category=3)])):
        write(tmp_path / f"annotations/instances_{split}2017.json", content(notes))
        write(tmp_path / f"annotations/captions_{split}2017.json", {})
        draw_pictures(tmp_path / f"{split}2017")
    data = opened(tmp_path)
    assert data.classes == ("ape", "cat", "dog"), "in the order of their ids"
    assert (len(data.train), len(data.val)) == (2, 2)
    assert data.train.sizes == [(H, W)] * 2
    scene = data.train[0]
    assert scene.boxes.tolist() == [[2, 3, 12, 15]]
    assert (scene.labels.tolist(), scene.image_id, scene.crowd.tolist()) == ([1], 1, [False])
    assert scene.image.getpixel((0, 0)) == (1, 0, 0)
    assert data.train[1].labels.tolist() == [2]
    assert data.val[0].labels.tolist() == [0]
    assert data.val[1].labels.tolist() == [], "an image without objects"
    assert data.val[1].masks.shape == (0, H, W)
    assert "its own split" in data.description
    assert pickle.loads(pickle.dumps(data.train))[0].boxes.tolist() == scene.boxes.tolist()


def test_roboflow_export(tmp_path):
    for split in ("train", "valid", "test"):
        draw_pictures(tmp_path / split)
        write(tmp_path / split / "_annotations.coco.json", content([note(1)], pictures=(1,)))
    data = opened(tmp_path)
    assert (len(data.train), len(data.val)) == (1, 1)
    assert data.val[0].path.startswith(str(tmp_path / "valid"))


@pytest.mark.parametrize("place", [".", "images", "train2017"])
def test_one_file(tmp_path, place):
    draw_pictures(tmp_path / place, range(1, 9))
    path = write(tmp_path / "train2017.json", content([note(n, n) for n in range(1, 9)], pictures=range(1, 9)))
    data, again, other = opened(path), opened(path), opened(path, seed=1)
    assert (len(data.train), len(data.val)) == (4, 4)
    ids = [set(by_id(side)) for side in (data.train, data.val, again.val, other.val)]
    assert ids[0] | ids[1] == set(range(1, 9))
    assert ids[1] == ids[2] != ids[3]
    assert "share 0.5, seed 0" in data.description


def test_crowds_and_areas_are_kept(tmp_path):
    runs = {"size": [H, W], "counts": [0, H, H * (W - 1)]}
    notes = [note(1, area=5.5), note(2, box=(0, 0, 1, H), iscrowd=1, segmentation=runs, area=None), note(3, 2)]
    scene = by_id(opened(one_file(tmp_path, notes), masks=True).train) | by_id(opened(tmp_path / "notes.json").val)
    scene = scene[1]
    assert scene.crowd.tolist() == [False, True]
    assert scene.area.tolist() == [5.5, H]
    assert scene.masks[1].sum() == H
    assert scene.masks[1, :, 0].all()


def test_boxes_without_outlines(tmp_path, caplog):
    path = one_file(tmp_path, [note(1, segmentation=[]), note(2, 2, segmentation=None)])
    assert opened(path).train[0].masks is None
    mixed = one_file(tmp_path, [note(1, segmentation=[]), note(2), note(3, 2, box=(5, 5, 4, 4))])
    caplog.set_level(logging.WARNING)
    data = opened(mixed)
    assert "1 object with a box and no outline, good for boxes alone" in caplog.text
    scenes = by_id(data.train) | by_id(data.val)
    assert scenes[1].boxes.shape == (2, 4)
    assert scenes[1].outlined.tolist() == [False, True]
    assert scenes[1].masks.sum((1, 2)).tolist() == [0, 120]
    assert scenes[2].outlined is None
    data = opened(mixed, masks=False)
    assert len(data.train[0].labels) + len(data.val[0].labels) == 3
    assert data.train[0].masks is None


def test_boxes_may_reach_over_by_a_pixel(tmp_path):
    scenes = opened(one_file(tmp_path, [note(1, box=(-0.5, 0, W + 1, H)), note(2, 2)]))
    assert (by_id(scenes.train) | by_id(scenes.val))[1].boxes.tolist() == [[-0.5, 0, W + 0.5, H]]


# --- masks


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([0.0, 0.03, 0.5, 0.97, 1.0]))
def test_run_lengths_equal_pycocotools(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    code = pycocotools.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(outline_to_mask(read_counts(code["counts"].decode()), (height, width)), mask)


@pytest.mark.filterwarnings("ignore:__array__")  # of pycocotools
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(-20, 60), min_size=6, max_size=24).filter(lambda p: len(p) % 2 == 0), min_size=1))
def test_polygons_equal_pycocotools(polygons):
    expected = pycocotools.decode(pycocotools.merge(pycocotools.frPyObjects(polygons, H, W)))
    mask = outline_to_mask([np.array(polygon) for polygon in polygons], (H, W))
    assert np.array_equal(mask, expected.astype(bool))
    assert mask.shape == (H, W)


def test_polygons_far_outside_are_drawn_near():
    (points,) = polygon_arrays([[-1e12, 0, 1e12, 0, 5, 1e12]], (H, W))
    assert np.abs(points).max() <= 2 * W
    assert outline_to_mask([points], (H, W)).any()


def test_large_masks():
    mask = np.zeros((2100, 3000), np.uint8, order="F")
    mask[2099, 2999] = mask[0, 1500] = 1
    code = pycocotools.encode(mask)["counts"].decode()
    assert np.array_equal(outline_to_mask(read_counts(code), mask.shape), mask.astype(bool))


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=30), st.lists(st.integers(-3, 9)), st.none(), st.integers(), st.text("0PQo1_", max_size=30)
    )
)
def test_any_run_length_code_is_read_or_refused(code):
    counts = read_counts(code)
    assert counts is None or (counts >= 0).all()


# --- what may be broken


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


GOOD = note(100, 2)
RUNS = {"size": [H, W], "counts": [H * W]}
BROKEN = {
    "clipped": (note(1, box=(-5, 3, 10, 400)), "box that reaches out of the image, clipped"),
    "outside": (note(1, box=(W + 5, 3, 10, 4)), "box outside the image, left out"),
    "no area": (note(1, box=(2, 3, 0, 4)), "box of no area, left out"),
    "negative": (note(1, box=(2, 3, -2, 4)), "box of no area, left out"),
    "no box": (note(1, bbox=None, segmentation=[]), "annotation without four numbers as bbox and without an outline"),
    "short box": (note(1, bbox=[1, 2, 3], segmentation=[]), "annotation without four numbers as bbox and without an"),
    "short both": (
        note(1, bbox=[1, 2, 3], segmentation=[[1, 2]]),
        "annotation without four numbers as bbox, left out",
    ),
    "nan box": ({**note(1), "bbox": [1, 2, float("nan"), 3]}, "as bbox, which is made from the outline"),
    "category": (note(1, category=8), "annotation of an unknown category, left out .first: annotation 1, category 8"),
    "odd category": ({**note(1), "category_id": [7]}, "annotation of an unknown category"),
    "picture": (note(1, picture=9), "annotation of an unknown image, left out .first: annotation 1, image 9"),
    "odd image": ({**note(1), "image_id": {}}, "annotation of an unknown image"),
    "twice": (GOOD, "annotation that is there twice, once left out .first: annotation 100"),
    "no object": ("hello", "annotation that is no JSON, left out"),
    "polygon": (note(1, segmentation=[[1, 2, 3, 4]]), "outline of less than three points, only the box kept"),
    "size": (
        note(1, segmentation={**RUNS, "size": [W, H]}),
        r"another size than the image, only the box kept.*a list of 2 not \[23, 31\]",
    ),
    "sum": (
        note(1, segmentation={**RUNS, "counts": [5, 5]}),
        "run-length code that does not fill the image, only the box kept",
    ),
    "text": (
        note(1, segmentation={**RUNS, "counts": "~~~"}),
        "run-length code that does not fill the image, only the box kept",
    ),
    "counts": (
        note(1, segmentation={**RUNS, "counts": None}),
        "run-length code that does not fill the image, only the box kept",
    ),
}


def test_shares_of_the_sides_are_no_pixels(tmp_path):
    shares = [note(number, number, box=(0.1, 0.2, 0.5, 0.4)) for number in (1, 2)]
    refused(one_file(tmp_path, shares), "coordinates are shares of the sides")
    data = opened(one_file(tmp_path, [*shares, note(3, 2)]))
    assert len(data.train) == len(data.val) == 1


@pytest.mark.parametrize("case", BROKEN)
def test_broken_annotations(tmp_path, case, caplog):
    bad, kind = BROKEN[case]
    path = one_file(tmp_path, [GOOD, bad])
    refused(path, f"has broken annotations: 1 .*{kind}.*Mend them, or --on-bad-annotation skip")
    with caplog.at_level(logging.WARNING):
        data = opened(path, on_bad_annotation="skip")
    assert len([line for line in caplog.messages if "broken annotations" in line]) == 1
    scenes = by_id(data.train) | by_id(data.val)
    assert len(scenes[2].labels) == 1
    if case == "clipped":
        assert scenes[1].boxes.tolist() == [[0, 3, 5, H]]
    elif "kept" in kind or "made" in kind:
        assert scenes[1].boxes.tolist() == [[2, 3, 12, 15]]
        assert scenes[1].masks.any() == ("made" in kind)
    else:
        assert len(scenes[1].labels) == len(scenes[1].masks) == 0


def test_broken_pictures(tmp_path):
    path = one_file(tmp_path, [note(1), note(2, 2), note(3, 3)], pictures=(1, 2, 3))
    refused(path, "1 missing image, left out .first: 3.png")
    data = opened(path, on_bad_annotation="skip")
    assert len(data.train) + len(data.val) == 2
    double = content([note(1), note(2, 2)])
    double["images"].append({**double["images"][0], "file_name": "2.png"})
    refused(write(tmp_path / "notes.json", double), "1 image of an id that another has")
    double["images"][2] = double["images"][0]
    assert len(opened(write(tmp_path / "notes.json", double)).train) == 1
    broken = content([note(1)])
    broken["images"][1].pop("file_name")
    refused(write(tmp_path / "notes.json", broken), "1 image without id or file_name, left out")
    refused(one_file(tmp_path, [], pictures=(5, 6)), "No image of .*notes.json is in .*the first is 5.png")
    refused(one_file(tmp_path, [], pictures=()), "notes.json has a split without images")


def test_one_file_under_two_ids_is_one_image(tmp_path, caplog):
    path = one_file(tmp_path, [note(1), note(2, 2), note(3, 3, 90, (1, 1, 5, 5))], pictures=(1, 2, 3))
    data = json.loads(path.read_text())
    data["images"][2]["file_name"] = f"../{tmp_path.name}/1.png"
    samples = opened(write(path, data))
    found = {samples.train[0].path: samples.train[0], samples.val[0].path: samples.val[0]}
    assert (len(samples.train), len(samples.val)) == (1, 1)
    both = found[str(tmp_path / "1.png")]
    assert (both.labels.tolist(), both.image_id) == ([1, 2], 1)
    assert "1 image that is listed under two ids, whose annotations are taken together" in caplog.text


def test_a_picture_of_another_size(tmp_path):
    path = one_file(tmp_path, [note(1), note(2, 2), note(3, 3)], pictures=(1, 2, 3))
    draw_pictures(tmp_path, (1, 2, 3))
    data = opened(path)
    draw_pictures(tmp_path, (1, 2), size=(H, W))
    refused(path, "2 images of another size than their annotations say, left out .first: .*1.png, 31 x 23 not 23 x 31")
    with pytest.raises(UserError, match="So only 1 of 3 images is left in the training split, less than half"):
        opened(path, on_bad_annotation="skip")
    with pytest.raises(BadImageError, match=r"is 23 x 31 pixels, its annotations say 31 x 23. To go on"):
        [data.train[0], data.val[0], data.val[1]]


def test_broken_files(tmp_path):
    draw_pictures(tmp_path)
    path = tmp_path / "notes.json"
    for data, message in {
        "": "is no JSON",
        "[1, 2]": "has no list 'images'",
        '{"images": []}': "has no list 'annotations'",
        json.dumps(content([], names={})): "has no categories",
        json.dumps(content([], names={1: "cat", 2: "cat"})): "two categories of the name 'cat'",
        json.dumps({**content([]), "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}): "of the id 1",
        json.dumps({**content([]), "categories": [{"id": 1.5, "name": "a"}]}): "a category without an id or a name",
    }.items():
        refused(write(path, data), message)
    path.unlink()
    refused(tmp_path, "has no JSON file of annotations; wanted are annotations/instances_train2017.json")
    write(tmp_path / "a.json", content([]))
    write(tmp_path / "b.json", content([]))
    refused(tmp_path, "has the JSON files a.json, b.json; wanted are")
    refused(write(tmp_path / "c.json", content([], pictures=(1,))), "has 1 image, so none can be set aside")
    write(tmp_path / "annotations/instances_val2017.json", content([]))
    refused(tmp_path, "has a validation split only; add annotations/instances_train2017.json")


def test_validation_needs_no_new_classes(tmp_path, caplog):
    for split, names in (("train", {1: "cat", 2: "cow"}), ("val", {1: "cat", 2: "dog"})):
        notes = [note(1, category=1)] if split == "train" else [note(1, category=2)]
        write(tmp_path / f"annotations/instances_{split}2017.json", content(notes, names=names))
        draw_pictures(tmp_path / f"{split}2017")
    refused(tmp_path, "the validation split of .* has classes that the training split does not have: dog")
    write(tmp_path / "annotations/instances_val2017.json", content([note(1, category=1)], names={2: "dog", 1: "cat"}))
    with caplog.at_level(logging.WARNING):
        data = opened(tmp_path)
    assert "nothing to train on for cow" in caplog.text
    assert data.val.classes == ("cat", "cow")
    assert data.val[0].labels.tolist() == [0]


def test_raw_ids_of_coco(tmp_path):
    names = dict(zip(COCO_IDS, COCO_CLASSES, strict=True))
    path = one_file(tmp_path, [note(1, category=90), note(2, 2, category=13)], names=names)
    options = {"on_bad_image": "stop", "on_bad_annotation": "stop"}
    scenes = by_id(open_evaluation("detection", str(path), None, 91, **options))
    assert (scenes[1].labels.item(), scenes[2].labels.item()) == (90, 13)
    scenes = by_id(open_evaluation("detection", str(path), None, 80, **options))
    assert (scenes[1].labels.item(), scenes[2].labels.item()) == (79, 11)


# --- what is missing is made, and ids are those of the file


def test_ids_of_annotations_may_repeat(tmp_path, caplog):
    notes = [note(1), note(2, box=(1, 1, 5, 5)), note(1, 2), note(2, 2, box=(1, 1, 5, 5)), note(2, 2, box=(1, 1, 5, 5))]
    caplog.set_level(logging.WARNING)
    path = one_file(tmp_path, notes)
    refused(path, "1 annotation that is there twice, once left out")
    scenes = opened(path, on_bad_annotation="skip")
    assert [len(scene.labels) for scene in (scenes.train[0], scenes.val[0])] == [2, 2]
    assert "2 annotations whose id another has too, which nothing reads" in caplog.text
    without = [{name: value for name, value in one.items() if name != "id"} for one in notes[:4]]
    data = opened(one_file(tmp_path, without))
    assert [len(scene.labels) for scene in (data.train[0], data.val[0])] == [2, 2]


def test_missing_fields_are_made(tmp_path, caplog):
    triangle = [[2, 3, 12, 3, 12, 15]]
    runs = {"size": [H, W], "counts": [2 * H + 1, 3, H * W - 2 * H - 4]}
    notes = [
        note(1, segmentation=triangle),
        note(2, segmentation=runs),
        note(3, segmentation=[[2, 3], [12, 3], [12, 9]]),
    ]
    notes += [note(4, segmentation=[2.0, 3, 12, 3, 12, 15]), note(5, bbox=["2", "3", "10", "12"], area="7"), note(6, 2)]
    for one in notes[:4]:
        del one["bbox"], one["area"]
    data = content(notes)
    for entry in data["images"]:
        del entry["width"], entry["height"]
    draw_pictures(tmp_path)
    caplog.set_level(logging.WARNING)
    opened(write(tmp_path / "notes.json", data))
    for said in ("4 annotations without bbox, which is made from the outline", "2 images without width or height"):
        assert said in caplog.text
    for masks in (True, False):
        both = opened(tmp_path / "notes.json", masks=masks)
        scene = (by_id(both.train) | by_id(both.val))[1]
        boxes = [[2, 3, 12, 15], [2, 1, 3, 4], [2, 3, 12, 9], [2, 3, 12, 15], [2, 3, 12, 15]]
        assert scene.boxes.tolist() == boxes
        pixels = [outline_to_mask(polygon_arrays(triangle, (H, W)), (H, W)).sum(), 3]
        assert scene.area.tolist()[:2] == pixels
        assert scene.area.tolist()[4] == 7


@pytest.mark.parametrize("ids", [(7, 3, 90), (0, 2, 1), ("b", "a", "c"), ("10", "9", "2"), (7.0, 3.0, 90.0)])
def test_ids_of_categories(tmp_path, ids):
    names = dict(zip(("cat", "ape", "dog"), ids, strict=True))
    data = content([note(1, category=names["cat"]), note(2, 2, category=names["dog"])], names={})
    data["categories"] = [{"id": number, "name": name} for name, number in names.items()]
    draw_pictures(tmp_path)
    both = opened(write(tmp_path / "notes.json", data))
    found = by_id(both.train) | by_id(both.val)
    assert dict(zip(both.train.category_ids, both.classes, strict=True)) == {
        number: name for name, number in names.items()
    }
    assert both.classes[found[1].labels[0]] == "cat"
    if all(str(number).isdecimal() for number in ids):
        assert [*both.train.category_ids] == sorted(ids, key=int)


@pytest.mark.parametrize(("there", "meant"), [(1, "1"), ("1", 1), ("001", 1), (1, 1.0), ("a b", "a b")])
def test_ids_of_images_in_another_spelling(tmp_path, there, meant):
    data = content([note(1), note(2, 2)])
    data["images"][0]["id"], data["annotations"][0]["image_id"] = there, meant
    data["categories"][0]["id"], data["annotations"][1]["category_id"] = "7", 7.0
    draw_pictures(tmp_path)
    both = opened(write(tmp_path / "notes.json", data))
    found = by_id(both.train) | by_id(both.val)
    assert len(found[there].labels) == len(found[2].labels) == 1


def test_ids_that_differ_in_spelling_alone(tmp_path):
    data = content([note(1, 1), note(2, "1"), note(3, "1", box=(1, 1, 4, 4))], pictures=(1, "1"))
    data["images"][1]["file_name"] = "2.png"
    draw_pictures(tmp_path)
    both = opened(write(tmp_path / "notes.json", data))
    found = by_id(both.train) | by_id(both.val)
    assert (len(found[1].labels), len(found["1"].labels)) == (1, 2)


def roboflow(*rows):
    return [{"id": number, "name": name, "supercategory": parent} for number, name, parent in rows]


@pytest.mark.parametrize(
    ("rows", "classes", "ids"),
    [
        (roboflow((0, "cat", "none"), (1, "cat", "cat")), ("cat",), (1,)),
        (roboflow((0, "pets", "none"), (1, "cat", "pets"), (2, "dog", "pets")), ("cat", "dog"), (1, 2)),
        (roboflow((1, "cat", "pets"), (2, "dog", "cat")), ("cat", "dog"), (1, 2)),
        (roboflow((1, "cat", "animal"), (2, "animal", "animal")), ("cat",), (1,)),
        (roboflow((1, "cat", "cat"), (2, "dog", "dog")), ("cat", "dog"), (1, 2)),
    ],
)
def test_categories_that_only_group_others_are_no_classes(tmp_path, rows, classes, ids, caplog):
    draw_pictures(tmp_path)
    data = {**content([note(1, category=1), note(2, 2, category=1)]), "categories": rows}
    caplog.set_level(logging.WARNING)
    both = opened(write(tmp_path / "notes.json", data))
    assert (both.classes, both.train.category_ids) == (classes, ids)
    assert ("1 category that only groups others" in caplog.text) == (len(classes) < len(rows))


def brushed(number: int, picture: int, category: int = 7) -> dict:
    return note(
        number, picture, category, iscrowd=1, segmentation={"size": [H, W], "counts": [2 * H, 3, (W - 2) * H - 3]}
    )


def test_crowds_alone_are_objects(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = one_file(tmp_path, [brushed(1, 1), brushed(2, 2)])
    data = opened(path)
    assert "2 annotations with iscrowd 1, taken for objects, as there is nothing else" in caplog.text
    assert not data.train[0].crowd.any()
    assert data.train.most == 1
    with pytest.raises(UserError, match=r"has crowd regions only .1. on its 1 training image"):
        opened(path, crowd="ignore")


def test_crowds_among_objects(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = one_file(tmp_path, [note(1, iscrowd="0"), {**brushed(2, 1), "iscrowd": True}, note(3, 2), note(4, 2, 3)])
    data = opened(path)
    assert data.classes == ("ape", "cat", "dog")
    assert "1 annotation with iscrowd 1, regions that are not learned (single objects" in caplog.text
    assert "--crowd learn" in caplog.text
    assert (by_id(data.train) | by_id(data.val))[1].crowd.tolist() == [False, True]
    data = opened(path, crowd="learn")
    assert not (by_id(data.train) | by_id(data.val))[1].crowd.any()
    path = one_file(tmp_path, [note(1), brushed(2, 1, 90), note(3, 2), note(4, 2, 3)])
    refused(path, r"has nothing but crowd regions .iscrowd 1. of dog .1., which are not learned: .* --crowd learn")
    for crowd in ("learn", "ignore"):
        opened(path, crowd=crowd)
    open_evaluation("detection", str(path), ("ape", "cat", "dog"), 3, on_bad_image="stop")


def test_both_splits_take_crowds_alike(tmp_path):
    for split, notes in (("train", [brushed(1, 1)]), ("val", [note(1), brushed(2, 1)])):
        write(tmp_path / f"annotations/instances_{split}.json", content(notes, pictures=(1,)))
        draw_pictures(tmp_path / split)
    data = opened(tmp_path)
    assert not data.train[0].crowd.any()
    assert not data.val[0].crowd.any()


def test_where_tools_put_their_files(tmp_path):
    for name, json_file, images in (
        ("cvat", "annotations/instances_default.json", "images/default"),
        ("fiftyone", "labels.json", "data"),
        ("bare", "_annotations.coco.json", "."),
        ("upper", "annotations/Instances_Train.json", "Images/Train"),
    ):
        draw_pictures(tmp_path / name / images)
        write(tmp_path / name / json_file, content([note(1), note(2, 2)]))
        write(tmp_path / name / f"._{json_file.rpartition('/')[2]}", "rubbish")
        assert len(opened(tmp_path / name).train) == 1, name
    for split in ("train", "Test"):
        draw_pictures(tmp_path / "folders" / split / "images")
        write(tmp_path / "folders" / split / "labels.json", content([note(1), note(2, 2)]))
    data = opened(tmp_path / "folders")
    assert (len(data.train), len(data.val)) == (2, 2)


# --- as other tools write them


def told(path, **options):
    """Everything that is found where nothing is broken."""
    data = opened(path, **options)
    return {finding.kind: finding.count for findings in data.findings for finding in findings.found}


@pytest.mark.parametrize(
    "name",
    ["images\\{}.png", "C:\\data\\images\\{}.png", "file://{root}/images/{}.png", "/local-files/?d=images/{}.png"],
)
def test_names_of_other_tools(tmp_path, name):
    draw_pictures(tmp_path / "images")
    data = content([note(1), note(2, 2)])
    for entry in data["images"]:
        entry["file_name"] = name.format(entry["id"], root=tmp_path)
    path = write(tmp_path / "annotations.json", data)
    assert list(told(path).values()) == [2]
    assert opened(path).train[0].path.startswith(f"{tmp_path}/images/")


def test_sizes_of_other_tools(tmp_path):
    path = one_file(tmp_path, [note(1), note(2, 2)])
    data = content([note(1), note(2, 2)])
    for width, height in ((str(W), f"{H}.0"), (float(W), str(H))):
        for entry in data["images"]:
            entry |= {"width": width, "height": height}
        assert told(write(path, data)) == {}
        assert opened(path).train.sizes == [(H, W)]
    for entry in data["images"]:
        entry.pop("width")
    assert told(write(path, data)) == {"images without width or height, which the file tells": 2}
    assert opened(path).train.sizes == [(H, W)]
    assert opened(path).train[0].boxes.tolist() == [[2, 3, 12, 15]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_marks_of_byte_order(tmp_path, encoding):
    path = one_file(tmp_path, [note(1), note(2, 2)])
    path.write_bytes(json.dumps(content([note(1), note(2, 2)])).encode(encoding))
    assert told(path) == {}


def marked(folder, number, orientation):
    """A JPEG that is white where `note` has its object, as it lies, and says how it is turned."""
    pixels = np.zeros((H, W, 3), np.uint8)
    pixels[3:15, 2:12] = 255
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(pixels).save(folder / f"{number}.jpg", exif=exif, quality=95)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_images_annotated_as_they_lie(tmp_path, orientation):
    marked(tmp_path, 1, 6)
    marked(tmp_path, 2, orientation)
    data = content([note(1), note(2, 2)])
    for entry in data["images"]:
        entry["file_name"] = f"{entry['id']}.jpg"
    path = write(tmp_path / "annotations.json", data)
    assert told(path) == {"images turned by EXIF, annotated as it is stored: turned with the annotations": 2}
    found = opened(path)
    for scene in (found.train[0], found.val[0]):
        white = torch.from_numpy(np.asarray(scene.image)[..., 0] > 128)
        assert torch.equal(scene.masks[0], white)
        left, top, right, bottom = scene.boxes[0].int().tolist()
        assert white[top:bottom, left:right].all()
        assert white.sum() == (right - left) * (bottom - top) == 120
        assert scene.orientation == (6 if scene.image_id == 1 else orientation)
    assert found.train.sizes == [found.train[0].image.size[::-1]]


LOST = {
    "unknown image": [note(n, 100 + n) for n in range(4)],
    "unknown category": [note(n, 1, category=1) for n in range(4)],
    "no area": [note(n, 1, box=(1, 1, 0, 0)) for n in range(4)],
}


@pytest.mark.parametrize("case", LOST)
def test_losses_have_a_limit(tmp_path, case, caplog):
    path = one_file(tmp_path, LOST[case])
    with pytest.raises(UserError, match=f"notes.json: 4 .*{case.split()[-1]}.* So none of 4 annotations are left"):
        opened(path, on_bad_annotation="skip")
    good = [note(10 + n, 1 + n % 2) for n in range(3)]
    with pytest.raises(UserError, match="So only 3 of 7 annotations are left in the training split, less than half"):
        opened(write(path, content(LOST[case] + good)), on_bad_annotation="skip")
    data = opened(write(path, content([*LOST[case], *good, note(13, 2)])), on_bad_annotation="skip")
    assert (data.findings[0].lost("annotations"), data.findings[0].annotations + data.findings[1].annotations) == (4, 4)
    assert len([line for line in caplog.messages if "broken annotations: 4 " in line]) == 1


def test_the_validation_split_has_a_limit_too(tmp_path):
    for split, notes in (("train", [note(1)]), ("val", [note(1, 9), note(2, 9), note(3)])):
        write(tmp_path / f"annotations/instances_{split}2017.json", content(notes))
        draw_pictures(tmp_path / f"{split}2017")
    with pytest.raises(UserError, match="So only 1 of 3 annotations is left in the validation split"):
        opened(tmp_path, on_bad_annotation="skip")
    with pytest.raises(UserError, match="So only 1 of 3 annotations is left in the validation split"):
        open_evaluation("detection", str(tmp_path), None, len(NAMES), on_bad_image="stop")


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(UserError, match="has no objects on its 1 training image: there is nothing to train on"):
        opened(one_file(tmp_path, []))
    with pytest.raises(UserError, match=r"has crowd regions only .1. on its 1 training image"):
        opened(one_file(tmp_path, [note(n, n, iscrowd=1) for n in (1, 2)]), crowd="ignore")


def test_splits_of_any_spelling(tmp_path):
    for split, folder in (("training", "Training_set"), ("validation", "images/valid"), ("test", "test2017")):
        write(tmp_path / f"annotations/{split}.json", content([note(1), note(2, 2)]))
        draw_pictures(tmp_path / folder, (1, 2) if split == "training" else (1,))
    write(tmp_path / "annotations/._training.json", "none")
    data = opened(tmp_path, on_bad_annotation="skip")
    assert (len(data.train), len(data.val)) == (2, 1)
    assert "/images/valid/" in data.val[0].path
    options = {"on_bad_image": "stop", "split": "test"}
    test = open_evaluation("detection", str(tmp_path), None, len(NAMES), **options)
    assert "/test2017/" in test[0].path


# --- panoptic


def segments(number: int, png: str, *infos) -> dict:
    fields = ("id", "category_id", "iscrowd")
    return {
        "image_id": number,
        "file_name": png,
        "segments_info": [dict(zip(fields, info, strict=True)) for info in infos],
    }


def panoptic_folder(
    root, notes, kinds=({"id": 5, "name": "cat", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0})
):
    draw_pictures(root / "train2017")
    ids = np.zeros((H, W), np.int64)
    ids[:10], ids[10:15, :20], ids[10:15, 20:], ids[15:18] = 70000, 300, 3, 4  # the last rows are void
    colors = np.stack((ids % 256, ids // 256 % 256, ids // 65536), 2).astype(np.uint8)
    (root / "annotations/panoptic_train2017").mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        Image.fromarray(colors).save(root / f"annotations/panoptic_train2017/{number}.png")
    write(root / "annotations/panoptic_train2017.json", {**content(notes), "categories": list(kinds)})
    return ids


WHOLE = [(70000, 9, 0), (300, 5, 0), (3, 5, 0), (4, 5, 1)]


def panoptic(root, **options):
    settings = {"val_fraction": 0.5, "seed": 0, "on_bad_image": "stop", "on_bad_annotation": "stop", **options}
    return open_data("panoptic", str(root), **settings)


def test_panoptic(tmp_path):
    ids = torch.from_numpy(panoptic_folder(tmp_path, [segments(n, f"{n}.png", *WHOLE) for n in (1, 2)]))
    data = panoptic(tmp_path)
    assert (data.classes, data.things) == (("cat", "sky"), (True, False))
    scene = data.train[0]
    assert scene.labels.tolist() == [1, 0, 0, 0]
    assert scene.crowd.tolist() == [False, False, False, True]
    for mask, number in zip(scene.masks, (70000, 300, 3, 4), strict=True):
        assert torch.equal(mask, ids == number)
    assert scene.boxes[1].tolist() == [0, 10, 20, 15]
    assert scene.area.tolist() == [10 * W, 100, 5 * 11, 3 * W]
    expected = torch.full((H, W), 255)
    expected[:10], expected[10:15] = 1, 0
    assert torch.equal(scene.semantic.long(), expected), "void and crowds are 255"


def test_coco_panoptic_classes(tmp_path):
    ids = [*COCO_IDS, *range(92, 92 + 53)]
    kinds = [
        {"id": number, "name": name, "isthing": int(thing)}
        for number, name, thing in zip(ids, COCO_PANOPTIC_CLASSES, COCO_PANOPTIC_THINGS, strict=True)
    ]
    infos = [(number, 1, 0) for number in (70000, 300, 3, 4)]
    panoptic_folder(tmp_path, [segments(n, f"{n}.png", *infos) for n in (1, 2)], kinds[::-1])
    data = panoptic(tmp_path)
    assert (data.classes, data.things) == (COCO_PANOPTIC_CLASSES, COCO_PANOPTIC_THINGS)


def test_broken_segments(tmp_path):
    good = segments(2, "2.png", *WHOLE)
    for bad, kind in {
        "category": (segments(1, "1.png", (3, 8, 0)), "segment of an unknown category, void .first: 1.png, segment 3"),
        "twice": (segments(1, "1.png", (3, 5, 0), (3, 5, 0)), "segment of an id that another has"),
        "no id": (segments(1, "1.png", (None, 5, 0)), "segment without an id from 1 to 16777215, void"),
        "void": (segments(1, "1.png", (0, 5, 0)), "segment without an id from 1 to 16777215, void"),
        "huge id": (segments(1, "1.png", (2**40, 5, 0)), "segment without an id from 1 to 16777215, void"),
        "no png": (segments(1, "7.png"), "missing PNG file of segments, left out with the image .first: 7.png"),
        "no infos": ({"image_id": 1, "file_name": "1.png"}, "annotation without image_id, file_name or segments_info"),
        "again": (good, "image annotated twice"),
        "stranger": (segments(8, "1.png"), "annotation of an unknown image"),
    }.values():  # fmt: skip
        panoptic_folder(tmp_path, [good, bad])
        with pytest.raises(UserError, match=kind):
            panoptic(tmp_path)
    panoptic_folder(tmp_path, [good, segments(1, "1.png", (3, 8, 0), (77, 5, 0), (300, 5, 0))])
    data = panoptic(tmp_path, on_bad_annotation="skip")
    scene = (by_id(data.train) | by_id(data.val))[1]
    assert scene.labels.tolist() == [0], "the unknown one is void, segment 77 has no pixel"
    assert scene.semantic.unique().tolist() == [0, 255]


def test_png_files_are_compared_with_their_segments(tmp_path):
    pngs = tmp_path / "annotations/panoptic_train2017"
    panoptic_folder(tmp_path, [segments(1, "1.png", *WHOLE), segments(2, "2.png", *WHOLE[1:])])
    with pytest.raises(UserError, match=r"1 PNG file with ids that no segment has, .*2 looked at. .first: .*, 70000"):
        panoptic(tmp_path)
    panoptic_folder(tmp_path, [segments(1, "1.png", *WHOLE), segments(2, "2.png", *WHOLE, (77, 5, 0))])
    with pytest.raises(UserError, match=r"1 PNG file without a pixel of some segments, .*2 looked at. .first: .*, 77"):
        panoptic(tmp_path)
    panoptic_folder(tmp_path, [segments(n, f"{n}.png", *WHOLE) for n in (1, 2)])
    Image.new("RGB", (4, 4)).save(pngs / "2.png")
    with pytest.raises(UserError, match=r"of another size than the image, both left out .first: 2.png, 4 x 4 not 31"):
        panoptic(tmp_path)
    panoptic_folder(tmp_path, [segments(n, f"{n}.png") for n in (1, 2)])
    with pytest.raises(UserError, match="has no objects on its 1 training image: there is nothing to train on"):
        panoptic(tmp_path, on_bad_annotation="skip")


@pytest.mark.parametrize("stem", ["instances", "panoptic"])
def test_measuring_needs_no_training_side(tmp_path, stem):
    kind = "panoptic" if stem == "panoptic" else "detection"
    panoptic_folder(tmp_path, [segments(n, f"{n}.png", *WHOLE) for n in (1, 2)])
    (tmp_path / "train2017").rename(tmp_path / "val2017")
    (tmp_path / "annotations/panoptic_train2017").rename(tmp_path / "annotations/panoptic_val2017")
    (tmp_path / "annotations/panoptic_train2017.json").rename(tmp_path / "annotations/panoptic_val2017.json")
    write(tmp_path / "annotations/instances_val2017.json", content([note(1), note(2, 2)]))
    options = {"on_bad_image": "stop", "on_bad_annotation": "stop"}
    number = 2 if kind == "panoptic" else len(NAMES)
    assert len(open_evaluation(kind, str(tmp_path), None, number, **options)) == 2
    with pytest.raises(UserError, match=f"has a validation split only; add annotations/{stem}_train2017.json"):
        open_data(kind, str(tmp_path), val_fraction=0.5, seed=0, **options)
    # as COCO is downloaded: the annotations of both sides, the images of one
    lost = content([note(1)]) | {"images": [{"id": 1, "file_name": "lost.jpg", "width": 3, "height": 3}]}
    write(tmp_path / "annotations/instances_train2017.json", lost)
    assert len(open_evaluation("detection", str(tmp_path), None, len(NAMES), **options)) == 2


def test_segments_without_colors_are_refused_at_once(tmp_path):
    panoptic_folder(tmp_path, [segments(n, f"{n}.png", *WHOLE) for n in (1, 2)])
    Image.new("L", (W, H)).save(tmp_path / "annotations/panoptic_train2017/1.png")
    with pytest.raises(BadImageError, match=r"1\.png has mode L; the ids of segments are written in RGB"):
        panoptic(tmp_path, on_bad_annotation="skip", on_bad_image="skip")


def test_segments_that_cannot_be_read(tmp_path):
    panoptic_folder(tmp_path, [segments(n, f"{n}.png", *WHOLE) for n in (1, 2)])
    data = panoptic(tmp_path)
    pngs = tmp_path / "annotations/panoptic_train2017"
    for number in (1, 2):
        Image.new("RGB", (4, 4)).save(pngs / f"{number}.png")
    with pytest.raises(BadImageError, match=r"is 31 x 23 pixels, its segments .* 4 x 4"):
        data.train[0]
    for number in (1, 2):
        Image.new("L", (W, H)).save(pngs / f"{number}.png")
    with pytest.raises(BadImageError, match="has mode L; the ids of segments are written in RGB"):
        data.train[0]
    for number in (1, 2):
        (pngs / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(BadImageError, match=r"The segments .* cannot be read"):
        data.train[0]


def test_panoptic_as_other_tools_write_it(tmp_path):
    notes = [segments(n, f"panoptic_train2017\\{n}.png", *WHOLE) for n in (1, 2)]
    panoptic_folder(tmp_path, notes)
    data = content(notes) | {"categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "sky", "isthing": 0}]}
    for entry in data["images"]:
        entry |= {"file_name": f"train2017\\{entry['id']}.png", "width": f"{W}.0"}
    write(tmp_path / "annotations/panoptic_train2017.json", data)
    assert [finding.count for finding in panoptic(tmp_path).findings[0].found] == [2, 2]
    assert panoptic(tmp_path).findings[0].crowd == 1


def test_segments_of_images_as_they_lie(tmp_path):
    panoptic_folder(tmp_path, [segments(n, f"{n}.png", *WHOLE) for n in (1, 2)])
    upright = panoptic(tmp_path).train[0]
    exif = Image.Exif()
    exif[0x112] = 6
    for number in (1, 2):
        Image.new("RGB", (W, H)).save(tmp_path / f"train2017/{number}.png", exif=exif)
    lying = panoptic(tmp_path).train[0]
    assert lying.image.size == (H, W)
    assert torch.equal(lying.masks, upright.masks.transpose(1, 2).flip(2))
    assert torch.equal(lying.semantic, upright.semantic.T.flip(1))


def test_lost_segments_have_a_limit(tmp_path):
    panoptic_folder(tmp_path, [segments(n, f"{n}.png", (3, 5, 0), (300, 7, 0), (4, 7, 0)) for n in (1, 2)])
    message = "4 segments of an unknown category, void .first: .* So only 2 of 6 annotations are left"
    with pytest.raises(UserError, match=message):
        panoptic(tmp_path, on_bad_annotation="skip")
