"""Images with masks: the layouts, what ids mean, and masks that hold none."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from focalnet.data import open_data, open_evaluation
from focalnet.errors import UserError
from focalnet.inputs.image import BadImageError
from focalnet.labels import ADE20K_CLASSES, CITYSCAPES_CLASSES, CITYSCAPES_IDS

W, H = 9, 7
SAFE = {"on_bad_image": "stop", "on_bad_annotation": "stop"}


def opened(source, **options):
    return open_data("semantic", str(source), **{"val_fraction": 0.5, "seed": 0, **SAFE, **options})


def grid(*ids: int) -> np.ndarray:
    """A mask whose rows hold these ids in turn."""
    return np.repeat(np.resize(np.array(ids), H)[:, None], W, 1).astype(np.uint8)


def save(path, mask: np.ndarray | Image.Image):
    path.parent.mkdir(parents=True, exist_ok=True)
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path)


def picture(path, size=(W, H)):
    save(path, Image.new("RGB", size))


def folder(root, *masks, names="road\ncar\nsky\n", pictures="images", beside="masks"):
    for number, mask in enumerate(masks):
        picture(root / pictures / f"{number}.png")
        save(root / beside / f"{number}.png", mask)
    (root / "classes.txt").write_text(names)
    return root


def refused(source, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        opened(source, **options)
    assert "\n" not in str(caught.value)


def test_a_folder(tmp_path):
    data = opened(folder(tmp_path, *[grid(n % 3, 2, 255) for n in range(6)]))
    assert data.classes == ("road", "car", "sky")
    assert data.things == (False,) * 3
    assert (len(data.train), len(data.val)) == (3, 3)
    assert data.train.sizes == [(H, W)] * 3
    for scenes in (data.train, data.val):
        for scene in (scenes[i] for i in range(3)):
            assert np.array_equal(scene.semantic, grid(int(scene.image_id) % 3, 2, 255))
            assert scene.semantic.dtype == torch.uint8
            assert scene.masks is None
            assert scene.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [("images/{}", "masks/{}"), ("images/{}/deep", "annotations/{}/deep"), ("{}/images", "{}/labels")],
)
def test_splits(tmp_path, pictures, masks):
    for split, count in (("train", 3), ("val", 2)):
        folder(tmp_path, *[grid(n) for n in range(count)], pictures=pictures.format(split), beside=masks.format(split))
    data = opened(tmp_path)
    assert (len(data.train), len(data.val)) == (3, 2)
    assert data.val[1].semantic.unique().tolist() == [1]


def test_ade20k(tmp_path):
    for split, count in (("training", 3), ("validation", 2)):
        for number in range(count):
            picture(tmp_path / f"images/{split}/ADE_{number}.jpg")
            save(tmp_path / f"annotations/{split}/ADE_{number}.png", grid(0, 1, 150, number + 1))
    data = opened(tmp_path)
    assert data.classes == ADE20K_CLASSES
    assert (len(data.train), len(data.val)) == (3, 2)
    assert data.train[2].semantic[:4, 0].tolist() == [255, 0, 149, 2], "0 is none, the others are one less"
    save(tmp_path / "annotations/training/ADE_0.png", grid(151, 255))
    refused(tmp_path, "1 mask with ids that have no class .3 looked at., such pixels ignored .first: .*, 151, 255")
    assert opened(tmp_path, on_bad_annotation="skip").train[0].semantic.unique().tolist() == [255]


def test_other_data_in_folders_like_those_of_ade20k(tmp_path):
    """Vessels of DRIVE, 1, became ADE20K's walls, and the background unknown."""
    for split in ("training", "validation"):
        picture(tmp_path / "data" / "images" / split / "21_training.png")
        save(tmp_path / "data" / "annotations" / split / "21_training.png", grid(0, 1))
    refused(tmp_path / "data", r"there is no file .*classes\.txt")
    refused(tmp_path, r"is the folder around the data: give .*data\.")
    (tmp_path / "data" / "objectInfo150.txt").touch()
    assert opened(tmp_path / "data").classes == ADE20K_CLASSES


def test_sizes_come_from_the_head_of_a_file(tmp_path, monkeypatch):
    """Pillow decodes a whole PNG to see whether it is turned; a mask is taken as it lies, whatever its EXIF says."""
    exif = Image.Exif()
    exif[0x112] = 6
    folder(tmp_path, *[grid(0, 1)] * 2)
    Image.fromarray(grid(0, 1)).save(tmp_path / "masks" / "0.png", exif=exif)
    loaded = []
    load = Image.Image.load
    with monkeypatch.context() as patched:
        patched.setattr("focalnet.data.formats.label_maps._look", lambda *arguments: None)
        patched.setattr("PIL.ImageFile.ImageFile.load", lambda image: loaded.append(image) or load(image))
        data = opened(tmp_path)
    assert loaded == []
    assert len(data.train) + len(data.val) == 2


def test_cityscapes(tmp_path):
    for split in ("train", "val"):
        for city in ("ulm", "bonn"):
            picture(tmp_path / f"leftImg8bit/{split}/{city}/{city}_0_leftImg8bit.png")
            stem = tmp_path / f"gtFine/{split}/{city}/{city}_0_gtFine"
            save(stem.with_name(f"{stem.name}_labelIds.png"), grid(0, 7, 33, 29, 11))
            save(stem.with_name(f"{stem.name}_color.png"), Image.new("RGB", (W, H)))
    data = opened(tmp_path)
    assert data.classes == CITYSCAPES_CLASSES
    assert (len(data.train), len(data.val)) == (2, 2)
    assert data.train[0].semantic[:5, 0].tolist() == [255, 0, 18, 255, 2]
    assert data.train[0].path.endswith("bonn_0_leftImg8bit.png")
    for path in list(tmp_path.rglob("*_labelIds.png")):
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), grid(3, 255))
    assert opened(tmp_path).train[0].semantic[:2, 0].tolist() == [3, 255]
    assert len(CITYSCAPES_IDS) == len(set(CITYSCAPES_IDS)) == 19


def test_kinds_of_png(tmp_path):
    ids = grid(0, 1, 2, 255)
    palette = Image.fromarray(ids)
    palette.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    wide = Image.fromarray(ids.astype(np.uint16))
    grey = Image.fromarray(np.repeat(ids[..., None], 3, 2))
    data = opened(folder(tmp_path, ids, palette, wide, grey, Image.fromarray(ids == 1)))
    for scenes in (data.train, data.val):
        for scene in (scenes[i] for i in range(len(scenes))):
            expected = (ids == 1).astype(np.uint8) if scene.image_id == "4" else ids
            assert np.array_equal(scene.semantic, expected), scene.image_id


def test_labels_follow_the_model(tmp_path):
    folder(tmp_path, grid(0, 1, 2, 255), grid(0, 1, 2, 255))
    scenes = open_evaluation("semantic", str(tmp_path), ("sky", "tree", "car", "road"), 4, **SAFE)
    assert scenes[0].semantic[:4, 0].tolist() == [3, 2, 0, 255]
    with pytest.raises(UserError, match="has classes that the model does not have: sky"):
        open_evaluation("semantic", str(tmp_path), ("road", "car", "tree"), 3, **SAFE)


def test_strange_ids(tmp_path, caplog):
    folder(tmp_path, grid(0, 1), grid(0, 3, 7), grid(2), names="road\ncar\nsky")
    refused(tmp_path, "1 mask with ids that have no class .3 looked at., such pixels ignored .first: .*1.png, 3, 7")
    with caplog.at_level(logging.WARNING):
        data = opened(tmp_path, on_bad_annotation="skip")
    assert len([line for line in caplog.messages if "broken annotations" in line]) == 1
    scenes = [side[i] for side in (data.train, data.val) for i in range(len(side))]
    strange = next(scene for scene in scenes if scene.image_id == "1")
    assert strange.semantic.unique().tolist() == [0, 255]


def test_missing_pairs_and_wrong_sizes(tmp_path):
    folder(tmp_path, *[grid(0, 1)] * 4)
    (tmp_path / "masks/0.png").unlink()
    refused(tmp_path, "1 image without a mask, left out .first: .*0.png")
    picture(tmp_path / "images/1.png", (H, W))
    found = opened(tmp_path, on_bad_annotation="skip")
    assert len(found.train) + len(found.val) == 2
    refused(tmp_path, "1 mask of another size than the image, both left out .first: .*1.png, 9 x 7 not 7 x 9")
    (tmp_path / "images/0.png").unlink()
    save(tmp_path / "masks/9.png", grid(0))
    refused(tmp_path, "1 mask without an image, left out .first: .*9.png")
    refused(folder(tmp_path / "b", grid(0), pictures="images", beside="masks/x"), "No image in .* has a PNG mask")
    folder(tmp_path / "c", grid(0))
    picture(tmp_path / "c/images/0.png", (1, 2))
    refused(tmp_path / "c", "None of 1 mask has the size of its image")


def test_masks_that_hold_no_ids(tmp_path):
    colors = np.zeros((H, W, 3), np.uint8)
    colors[0] = (128, 64, 0)
    refused(folder(tmp_path / "a", colors, grid(0)), "has colors, not ids: write a PNG whose grey value or palette")
    names = "ground\ndigit\n"
    refused(folder(tmp_path / "b", grid(0, 255), grid(0), names=names), "hold 0 and 255 only, and 255 means not scored")
    assert len(opened(folder(tmp_path / "c", grid(0, 1, 255), grid(0), names=names)).train) == 1


def test_files_that_cannot_be_read(tmp_path):
    folder(tmp_path, *[grid(0, 1)] * 2)
    for number in (0, 1):
        (tmp_path / f"masks/{number}.png").write_bytes(b"no image")
    data = opened(tmp_path)
    with pytest.raises(BadImageError, match=r"The mask .* cannot be read .*--on-bad-image skip"):
        data.train[0]


def test_class_lists(tmp_path):
    for names, message in {
        "": "has 0 classes; give 2 to 255",
        "road\n": "has 1 class;",
        "\n".join(map(str, range(256))): "has 256 classes",
        "road\n\nsky": "line 2 is empty",
        "road\ncar\nroad": "line 3 repeats road",
    }.items():
        refused(folder(tmp_path, grid(0), grid(0), names=names), message)
    (tmp_path / "classes.txt").write_text("\ufeffroad\ncar", encoding="utf-8")  # as Windows writes it
    assert opened(tmp_path).classes == ("road", "car")
    (tmp_path / "classes.txt").unlink()
    refused(tmp_path, "there is no file .*classes.txt; write the class names there, one per line; line 1 is id 0")


def test_what_is_left_out_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="focalnet")
    for split in ("train", "val", "test"):
        folder(tmp_path, grid(0), grid(1), pictures=f"images/{split}", beside=f"masks/{split}")
    assert len(opened(tmp_path).val) == 2
    assert f"{tmp_path}: left out test" in caplog.text
    picture(tmp_path / "images" / "stray.jpg")
    refused(tmp_path, "1 image beside the folders of the splits, left out .first: .*stray.jpg")
    (tmp_path / "images" / "stray.jpg").unlink()
    picture(tmp_path / "images" / "train" / "0.jpg", (50, 50))
    refused(tmp_path, r"1 file of a name that another has, left out .first: .*0\.png, beside 0\.jpg")


def test_masks_without_a_class(tmp_path):
    refused(
        folder(tmp_path / "a", grid(255), grid(255)), "have no pixel of a class, only the ids 255: write the number"
    )
    refused(folder(tmp_path / "b", grid(7, 9), grid(255)), "only the ids 7, 9, 255")


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [
        ("images/{}/{{}}", "masks/{}/{{}}"),
        ("leftImg8bit/{}/ulm/{{}}_leftImg8bit", "gtFine/{}/ulm/{{}}_gtFine_labelIds"),
    ],
)
def test_measuring_needs_no_training_side(tmp_path, pictures, masks):
    for name in ("a", "b"):
        picture(tmp_path / f"{pictures.format('val').format(name)}.png")
        save(tmp_path / f"{masks.format('val').format(name)}.png", grid(0, 7))
    (tmp_path / "classes.txt").write_text("\n".join("abcdefgh"))
    for path in (pictures, masks):
        (tmp_path / path.format("train")).parent.mkdir(parents=True)
    number = 19 if "leftImg8bit/" in pictures else 8
    options = {"on_bad_image": "stop", "on_bad_annotation": "stop"}
    assert len(open_evaluation("semantic", str(tmp_path), None, number, **options)) == 2
    refused(tmp_path, "No image in .*train")


def test_folders_of_no_layout(tmp_path):
    refused(tmp_path, "has no images/ beside masks/")
    refused(__file__, "is a file; give a folder of images and masks")
    (tmp_path / "classes.txt").write_text("a\nb")
    for split in ("one", "two"):
        folder(tmp_path, grid(0), pictures=f"images/{split}", beside=f"masks/{split}")
    refused(tmp_path, "has one, two but no train")


def test_systems_files_are_ignored(tmp_path):
    for split in ("train", "val"):
        folder(tmp_path, *[grid(0, 1)] * 3, pictures=f"images/{split}", beside=f"masks/{split}")
    for kind, ending in (("images", "png"), ("masks", "png")):
        (tmp_path / kind / ".ipynb_checkpoints").mkdir()
        for name in (f"train/._0.{ending}", "val/Thumbs.db", f"train/.ipynb_checkpoints/0-checkpoint.{ending}"):
            (tmp_path / kind / name).parent.mkdir(exist_ok=True)
            (tmp_path / kind / name).write_bytes(b"none")
    (tmp_path / "images" / "._stray.png").write_bytes(b"none")
    data = opened(tmp_path)
    assert (len(data.train), len(data.val)) == (3, 3)


@pytest.mark.parametrize(
    ("train", "val"),
    [("training_set", "test_set"), ("Train", "Valid"), ("train2017", "dev"), ("train:training", "val:validation")],
)
def test_splits_of_any_spelling(tmp_path, train, val):
    for names, count in ((train, 4), (val, 2)):
        pictures, _, masks = names.partition(":")
        folder(tmp_path, *[grid(0, 1)] * count, pictures=f"images/{pictures}", beside=f"masks/{masks or pictures}")
    data = opened(tmp_path)
    assert (len(data.train), len(data.val)) == (4, 2)


def test_masks_of_images_as_they_lie(tmp_path):
    """EXIF turns an image, and the mask that was drawn without it."""
    exif = Image.Exif()
    exif[0x112] = 6
    mask = np.zeros((H, W), np.uint8)
    mask[:2] = 1
    folder(tmp_path, *[mask] * 4)
    for number in range(4):
        (tmp_path / "images" / f"{number}.png").unlink()
        Image.fromarray(np.repeat(mask[..., None] * 200, 3, 2)).save(
            tmp_path / f"images/{number}.jpg", exif=exif, quality=95
        )
    data = opened(tmp_path)
    assert data.train.sizes == [(W, H)] * 2
    for scene in (data.train[0], data.val[1]):
        assert scene.image.size == (H, W)
        assert np.array_equal(scene.semantic, np.asarray(scene.image)[..., 0] > 100)


def test_losses_have_a_limit(tmp_path):
    folder(tmp_path, *[grid(0, 1)] * 5)
    for number in range(3):
        (tmp_path / f"masks/{number}.png").unlink()
    refused(
        tmp_path, "3 images without a mask, left out .first: .*0.png.. So only 2 of 5 images", on_bad_annotation="skip"
    )
    for number in range(5):
        picture(tmp_path / f"images/{number}.png", (3, 3))
        save(tmp_path / f"masks/{number}.png", grid(0, 1))
    refused(tmp_path, "5 masks of another size than the image", on_bad_annotation="skip")
