"""A look at all of the data finds what is there and what is wrong with it, whatever its format."""

import json

import numpy as np
import pytest
from PIL import Image

from class_files import fill, open_classes
from focalnet.data import open_data
from focalnet.data.check import EMPTY, OUTSIDE, SMALL, STRANGE, VOID, look
from focalnet.data.faults import judge
from focalnet.data.register import FORMATS
from scene_files import write_coco, write_panoptic, write_semantic


def paint(path, seed, size=(24, 20), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def folders(tmp_path):
    """train/ and val/ of two classes, six and three images of each."""
    for offset, split, count in ((0, "train", 6), (100, "val", 3)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                paint(tmp_path / split / name / f"{number}.png", offset + 10 * label + number)
    return tmp_path


def dense(kind, source):
    return open_data(kind, str(source), val_fraction=0.25, seed=0, on_bad_image="stop")


def texts(facts, *, fatal=None, **options):
    return " | ".join(fault.text for fault in judge(facts, **options) if fatal in (None, fault.fatal))


def test_good_data_has_no_faults(folders):
    paint(folders / "train" / "cat" / "x.jpg", 50, size=(40, 30))
    facts = look(open_classes(folders), "class")
    assert judge(facts) == ()
    train, val = facts.splits
    assert (train.images, val.images) == (13, 6)
    assert [(row.name, row.images) for row in train.classes] == [("cat", 7), ("dog", 6)]
    assert train.kinds == {"PNG RGB": 12, "JPEG RGB": 1}
    assert sorted(set(train.sizes)) == [(24, 20), (40, 30)]
    assert train.values == (0, 255)


def test_images_that_cannot_be_read(folders):
    (folders / "train" / "dog" / "2.png").write_bytes(b"no image")
    facts = look(open_classes(folders), "class")
    assert "1 of 12 training images cannot be read; the first: " in texts(facts, fatal=True)
    assert str(folders / "train" / "dog" / "2.png") in texts(facts, fatal=True)
    assert "To go on without: --on-bad-image skip." in texts(facts, fatal=True)
    skipped = judge(facts, on_bad_image="skip")
    assert [fault.fatal for fault in skipped] == [False]
    assert "--on-bad-image" not in skipped[0].text
    for number in range(6):
        (folders / "train" / "dog" / f"{number}.png").write_bytes(b"no image")
    (folders / "train" / "cat" / "0.png").write_bytes(b"no image")
    assert texts(look(open_classes(folders), "class"), fatal=True, on_bad_image="skip")  # more than half of them


def test_an_image_on_both_splits(folders):
    source = folders / "train" / "cat" / "1.png"
    Image.open(source).save(folders / "val" / "cat" / "again.bmp")  # other bytes, the same pixels
    data = open_classes(folders)
    facts = look(data, "class")
    assert "1 of 7 validation images is in training too, pixel by pixel" in texts(facts, fatal=True)
    assert f"{folders / 'val' / 'cat' / 'again.bmp'} is {source}" in texts(facts, fatal=True)
    assert not data.set_aside
    assert not texts(facts, fatal=True, set_aside=True)  # nobody split it so
    assert [(twin.kind, twin.places) for twin in facts.twins] == [("same both", (1, 3))]


def test_one_of_many_on_both_splits_is_told_and_no_more(folders):
    for number in range(100):
        paint(folders / "val" / "dog" / f"more{number}.png", 1000 + number, size=(4, 4))
    Image.open(folders / "train" / "cat" / "1.png").save(folders / "val" / "cat" / "again.bmp")
    facts = look(open_classes(folders), "class")
    assert "1 of 107 validation images is in training too" in texts(facts, fatal=False)
    assert not texts(facts, fatal=True)


def test_doubles_in_a_split_and_near_ones(folders):
    Image.open(folders / "train" / "cat" / "1.png").save(folders / "train" / "dog" / "torn.png")
    near = Image.open(folders / "train" / "cat" / "2.png")
    near.putpixel((3, 3), (128, 128, 128))
    near.save(folders / "val" / "cat" / "near.png")
    facts = look(open_classes(folders), "class")
    assert facts.repeats["same classes"] == 1
    assert "1 image has the pixels of one of another class" in texts(facts, fatal=False)
    assert "1 of 7 validation images is nearly in training too" in texts(facts, fatal=False)
    assert not texts(facts, fatal=True)


def test_uneven_classes_and_images_of_one_color(tmp_path):
    fill(tmp_path / "train", common=12, rare=1)
    fill(tmp_path / "val", common=2, rare=2)
    facts = look(open_classes(tmp_path), "class")
    assert "the classes are uneven, common has 12 training images and rare 1: --class-weights balanced" in texts(facts)
    assert "13 of 13 training images of a single color" in texts(facts, fatal=False)


def test_boxes(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0] |= {"bbox": [3, 4, 2, 9], "segmentation": []}
    path.write_text(json.dumps(content))
    facts = look(dense("detection", tmp_path), "detection")
    train = facts.splits[0]
    assert train.found[SMALL][0] >= 1
    assert "with a side of less than 4 pixels" in texts(facts, fatal=False)
    assert EMPTY not in train.found
    assert OUTSIDE not in train.found  # the format clips and counts them when it opens the data
    assert sum(row.objects for row in train.classes) == len(content["annotations"])


def test_label_maps(tmp_path):
    write_semantic(tmp_path)
    facts = look(dense("semantic", tmp_path), "semantic")
    assert not texts(facts, fatal=True)
    assert sum(row.pixels for row in facts.splits[0].classes) == 12 * 64 * 64
    for number in range(4):
        mask = tmp_path / "masks" / "train" / f"{number}.png"
        Image.fromarray(np.full((64, 64), 255 if number else 77, np.uint8)).save(mask)
    facts = look(dense("semantic", tmp_path), "semantic")
    assert facts.splits[0].found[STRANGE][0] == 1
    assert facts.splits[0].found[VOID][0] == 4
    assert "1 of 12 training label maps with values that no class has" in texts(facts, fatal=True)


def test_segments(tmp_path):
    write_panoptic(tmp_path)
    facts = look(dense("panoptic", tmp_path), "panoptic")
    assert not texts(facts, fatal=True)
    ground = facts.splits[0].classes[-1]
    assert (ground.name, ground.images, ground.objects) == ("ground", 12, 12)
    assert ground.pixels > 12 * 64 * 64 / 2


def test_no_format_is_asked_for(folders):
    """What a format of somebody else's gives is checked too."""
    from focalnet.data.base import Openers, Split
    from focalnet.data.register import Format

    class Greys:
        def name(self, entry):
            return f"grey {entry}"

        def read(self, entry):
            return Image.new("RGB", (4, 4), (entry,) * 3)

    def split():
        return Split(
            reader=Greys(), entries=[1, 2, 200, 201], classes=("dark", "light"), names=["dark"] * 2 + ["light"] * 2
        )

    row = Format(
        name="greys", kinds=("class",), words="greys", fits=lambda source: True, open=lambda *_: Openers(split, None)
    )
    FORMATS.insert(0, row)
    try:
        facts = look(open_classes(folders), "class")
    finally:
        FORMATS.remove(row)
    assert sum(row.images for split in facts.splits for row in split.classes) == 4
    assert facts.splits[0].kinds == {}
