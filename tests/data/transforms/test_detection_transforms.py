"""Scene transforms: boxes, masks and labels per pixel stay in step, sizes follow the recipes, a seed fixes the result.

Objects are rectangles on whole pixels, so a mask's own box and the box that was carried along must agree.
"""

import colorsys
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from focalnet.data import DenseSample
from focalnet.data.transforms.detection import (
    AUGMENTATIONS,
    DenseAugmentation,
    collate_dense,
    eval_dense_transform,
    train_dense_transform,
)
from focalnet.data.transforms.geometry import (
    View,
    crop,
    flip,
    photometric,
    quarter_turns,
    resize,
    rotate,
    sane,
    start,
)
from focalnet.errors import UserError
from focalnet.inputs.image import Preprocessing
from focalnet.structures import masks_to_boxes

PLAIN = Preprocessing(
    input_size=64, long_side=107, crop_pct=1.0, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
COCO = Preprocessing(input_size=800, long_side=1333, crop_pct=1.0, interpolation="bilinear")


def scene(
    height=90, width=120, rectangles=((10, 20, 50, 80), (60, 5, 120, 45), (0, 0, 12, 12)), crowd=()
) -> DenseSample:
    """Colored rectangles (x1, y1, x2, y2), apart from each other: object i has red 40 (i + 1) and label i."""
    pixels = np.zeros((height, width, 3), np.uint8)
    semantic = torch.zeros(height, width, dtype=torch.uint8)
    masks = torch.zeros(len(rectangles), height, width, dtype=torch.bool)
    for index, (left, top, right, bottom) in enumerate(rectangles):
        pixels[top:bottom, left:right, 0] = 40 * (index + 1)
        semantic[top:bottom, left:right] = index + 1
        masks[index, top:bottom, left:right] = True
    return DenseSample(
        image=Image.fromarray(pixels),
        path="a scene",
        boxes=torch.tensor(rectangles, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(rectangles)),
        masks=masks,
        crowd=torch.tensor([index in crowd for index in range(len(rectangles))], dtype=torch.bool),
        area=masks.sum((1, 2)).float(),
        semantic=semantic,
        image_id=0,
    )


def assert_in_step(view: View, tolerance: float) -> None:
    assert view.masks is not None
    assert view.semantic is not None
    there = view.masks.flatten(1).any(1)
    assert ((masks_to_boxes(view.masks) - view.boxes)[there].abs() <= tolerance).all()
    for mask, label in zip(view.masks, view.labels, strict=True):
        assert torch.equal(mask, view.semantic == label + 1)


# --- steps


def test_flip_is_its_own_inverse():
    view = start(scene())
    once, twice = flip(view), flip(flip(view))
    for name in ("image", "boxes", "labels", "masks", "semantic"):
        assert torch.equal(getattr(twice, name), getattr(view, name)), name
    assert once.boxes.tolist() == [[70, 20, 110, 80], [0, 5, 60, 45], [108, 0, 120, 12]]
    assert_in_step(once, 0)
    assert torch.equal(once.image[0] == 40, once.masks[0]), "the image goes with its mask"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 89), st.integers(0, 119), st.integers(1, 130), st.integers(1, 130))
def test_crop_is_exact(top, left, height, width):
    view = crop(start(scene()), top, left, (height, width))
    assert view.size == (min(height, 90 - top), min(width, 120 - left))
    assert view.image.shape[1:] == view.masks.shape[1:] == view.semantic.shape == view.size
    kept = sane(view)
    assert_in_step(kept, 0)
    assert len(kept.labels) == view.masks.flatten(1).any(1).sum()
    for mask, label in zip(kept.masks, kept.labels, strict=True):
        assert torch.equal(kept.image[0] == 40 * (label + 1), mask)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 300), st.integers(2, 300))
def test_resize_keeps_step(height, width):
    view = resize(start(scene()), (height, width), PLAIN)
    assert view.size == (height, width)
    factors = torch.tensor([width / 120, height / 90, width / 120, height / 90])
    assert torch.allclose(view.boxes, start(scene()).boxes * factors)
    assert_in_step(view, 0.5 + 1e-4)


def test_resize_by_whole_factors_is_exact():
    view = resize(start(scene()), (180, 360), PLAIN)
    assert_in_step(view, 0)
    assert torch.equal(view.masks[0], start(scene()).masks[0].repeat_interleave(2, 0).repeat_interleave(3, 1))


@pytest.mark.parametrize("count", range(5))
def test_quarter_turns_are_exact(count):
    view = quarter_turns(start(scene()), count)
    assert view.size == ((90, 120) if count % 2 == 0 else (120, 90))
    assert_in_step(view, 0)
    assert np.array_equal(view.image.numpy(), np.rot90(start(scene()).image.numpy(), count, (1, 2)))
    back = quarter_turns(view, 4 - count % 4)
    assert torch.equal(back.boxes, start(scene()).boxes)


def test_rotations_keep_step_and_frame():
    view = rotate(start(scene()), 10.0)
    assert view.size == (90, 120)
    assert_in_step(view, 0)
    assert (view.semantic[0, -1], view.image[:, 0, -1].sum()) == (0, 0)
    assert view.masks.sum((1, 2))[0] == pytest.approx(40 * 60, rel=0.02)
    bare = rotate(start(dataclasses.replace(scene(), masks=None)), 90.0)
    assert bare.boxes[0].tolist() == pytest.approx([35, 55, 95, 90], abs=0.01)  # what leaves the frame is cut


def test_slivers_go():
    rectangles = ((0, 0, 10, 10), (20, 20, 40, 40))
    view = crop(start(scene(rectangles=rectangles)), 10, 10, (30, 30))
    assert sane(view).labels.tolist() == [1]
    sliver = View(view.image, torch.tensor([[0, 0, 0.9, 20.0], [5, 5, 30, 99]]), view.labels, None, None)
    assert sane(sliver).labels.tolist() == [1]
    assert sane(sliver).boxes.tolist() == [[5, 5, 30, 30]]
    empty = View(view.image, view.boxes + 5, view.labels, torch.zeros_like(view.masks), None)
    assert sane(empty).labels.tolist() == []


def test_photometric():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 30), np.uint8))
    torch.manual_seed(0)
    changed = [photometric(image, 1.0, 1.0) for _ in range(40)]
    assert all(picture.dtype == torch.uint8 for picture in changed)
    assert 20 < len({picture.numpy().tobytes() for picture in changed}) <= 40, "often changed, now and then left alone"
    assert any(torch.equal(picture, image) for picture in changed)
    assert torch.equal(photometric(image, 0.0, 0.0), image)
    red = torch.tensor([200, 60, 60], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    hues = [colorsys.rgb_to_hsv(*(photometric(red, 0.0, 1.0)[:, 0, 0] / 255).tolist())[0] for _ in range(200)]
    turned = [360 * ((hue + 0.5) % 1 - 0.5) for hue in hues]
    assert 30 < max(turned) < 37
    assert -37 < min(turned) < -30
    grey = image[:1].expand(3, -1, -1)
    for _ in range(5):
        assert (photometric(grey, 0.0, 1.0).int() - grey.int()).abs().max() <= 1, "grey has no color"


# --- evaluation


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((427, 640), (800, 1199)), ((300, 600), (667, 1333)),
     ((1, 5000), (1, 1333)), ((7, 3), (1333, 571)), ((800, 800), (800, 800))],
)  # fmt: skip
def test_whole_pictures(size, expected):
    assert COCO.whole_size(size) == expected


def test_lines_stay_small():
    height, width = Preprocessing(input_size=64).whole_size((50_000, 1))
    assert (height, width) == (1024, 1)


def test_evaluation_resizes_and_normalizes():
    image, target = eval_dense_transform(COCO)(scene())
    assert image.shape == (3, 800, 1067)
    assert image.dtype == torch.float32
    assert target == {"size": (800, 1067)}
    assert torch.allclose(image[:, 790, 5], (0 - torch.tensor(COCO.mean)) / torch.tensor(COCO.std))
    same = Preprocessing(input_size=90, long_side=150, mean=(0.0, 0, 0), std=(1.0, 1, 1))
    pixels = torch.from_numpy(np.asarray(scene().image).copy()).permute(2, 0, 1)
    assert torch.equal(eval_dense_transform(same)(scene())[0], pixels / 255)


# --- training


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(90, 120), (131, 37), (20, 300)])
def test_every_augmentation_keeps_step(name, shape):
    transform = train_dense_transform(PLAIN, AUGMENTATIONS[name])
    height, width = shape
    rectangles = ((3, 2, width // 2, height - 3), (width // 2 + 2, 1, width - 1, height // 2))
    torch.manual_seed(0)
    kept = 0
    for _ in range(12):
        image, target = transform(scene(height, width, rectangles))
        assert image.dtype == torch.float32
        assert target["masks"].dtype == torch.bool
        assert target["masks"].shape[1:] == target["semantic"].shape == image.shape[1:]
        rows, columns = target["size"]
        assert 1 <= rows <= image.shape[1]
        assert 1 <= columns <= image.shape[2]
        assert not image[:, rows:].any()
        assert not image[:, :, columns:].any()
        assert (target["semantic"][rows:] == 255).all()
        assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"])
        kept += len(target["labels"])
        if len(target["labels"]) == 0:
            continue
        blur = 2.0 if AUGMENTATIONS[name].kind == "detr" else 0.51  # two resizes, or one
        if AUGMENTATIONS[name].turn:
            blur = 6.0  # a turned rectangle of few pixels loses its sharp corners when it gets smaller
        assert (masks_to_boxes(target["masks"]) - target["boxes"]).abs().max() <= blur
        sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
        assert sides.min() >= 1
        for mask, label in zip(target["masks"], target["labels"], strict=True):
            assert (target["semantic"][mask] == label + 1).all()
    assert kept > 4


def test_a_seed_fixes_the_result():
    for name in AUGMENTATIONS:
        transform = train_dense_transform(PLAIN, AUGMENTATIONS[name])
        results = []
        for seed in (3, 3, 4, 5, 6):
            torch.manual_seed(seed)
            np.random.default_rng(seed)
            results.append(transform(scene()))
        assert torch.equal(results[0][0], results[1][0]), name
        assert torch.equal(results[0][1]["boxes"], results[1][1]["boxes"]), name
        images = {result[0].numpy().tobytes() for result in results}
        assert (len(images) == 1) == (name == "none"), name


def test_crowds_are_not_learned():
    _, target = train_dense_transform(PLAIN, AUGMENTATIONS["none"])(scene(crowd=(1,)))
    assert target["labels"].tolist() == [0, 2]
    assert len(target["masks"]) == 2


def test_scenes_with_boxes_only_and_without_objects():
    plain = scene()
    bare = DenseSample(plain.image, "", plain.boxes, plain.labels, None, plain.crowd, plain.area, None, 0)
    for name in AUGMENTATIONS:
        _, target = train_dense_transform(PLAIN, AUGMENTATIONS[name])(bare)
        assert set(target) == {"boxes", "labels", "size"}
        _, target = train_dense_transform(PLAIN, AUGMENTATIONS[name])(scene(rectangles=()))
        assert target["boxes"].shape == (0, 4)
        assert target["masks"].shape[0] == 0


def sizes(name, preprocessing, shape, draws=60) -> set[tuple[int, int]]:
    torch.manual_seed(0)
    transform = train_dense_transform(preprocessing, AUGMENTATIONS[name])
    small = scene(*shape, rectangles=((1, 1, 30, 30),))
    return {transform(small)[1]["size"] for _ in range(draws)}


def test_detr_scales():
    """Short sides are the official ones, at 800 pixels and a tenth of it; crops bring other shapes."""
    tenth = Preprocessing(input_size=80, long_side=133, interpolation="bilinear")
    found = sizes("detr", tenth, (48, 64), 200)
    assert {min(size) for size in found if max(size) < 133} <= {round(side / 10) for side in range(480, 801, 32)}
    assert len({min(size) for size in found}) >= 9
    assert max(max(size) for size in found) <= 133
    assert len({round(max(size) / min(size), 1) for size in found}) > 3
    official = AUGMENTATIONS["detr"]
    assert [round(800 * scale) for scale in official.scales] == list(range(480, 801, 32))
    assert [round(800 * scale) for scale in (*official.first_scales, *official.crop)] == [400, 500, 600, 384, 600]
    large = AUGMENTATIONS["hres"]
    assert (round(1200 * large.scales[0]), round(1200 * large.scales[-1])) == (480, 1184)
    assert [round(1200 * scale) for scale in (*large.first_scales, *large.crop)] == [400, 500, 600, 384, 600]


def test_squares_have_one_size():
    for name, side in (
        ("lsj", 82),
        ("semantic", 64),
        ("semantic_steps", 64),
        ("digit_scenes", 64),
        ("digit_crops", 43),
    ):
        torch.manual_seed(0)
        transform = train_dense_transform(PLAIN, AUGMENTATIONS[name])
        assert {transform(scene())[0].shape for _ in range(20)} == {(3, side, side)}
    assert round(800 * AUGMENTATIONS["lsj"].side) == 1024


def test_digit_scenes_are_enlarged_and_never_flipped():
    digit = scene(64, 64, ((20, 20, 30, 30), (36, 10, 46, 50)))
    transform = train_dense_transform(PLAIN, AUGMENTATIONS["digit_scenes"])
    torch.manual_seed(0)
    widths = []
    for _ in range(30):
        _, target = transform(digit)
        assert target["size"] == (64, 64), "nothing is padded"
        where = dict(zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True))
        assert where[0][2] < where[1][0], "the left one stays left"
        widths.append(where[1][2] - where[1][0])
    assert 10 <= min(widths) < 10.7
    assert 11.8 < max(widths) <= 12.5


def test_digit_crops_are_closer_digit_scenes_of_a_larger_input():
    closer = dataclasses.replace(AUGMENTATIONS["digit_scenes"], jitter=(1.15, 1.4))
    examples = []
    for size, augmentation in ((64, closer), (96, AUGMENTATIONS["digit_crops"])):
        torch.manual_seed(0)
        preprocessing = dataclasses.replace(PLAIN, input_size=size)
        examples.append(train_dense_transform(preprocessing, augmentation)(scene()))
    assert torch.equal(examples[0][0], examples[1][0])
    assert torch.equal(examples[0][1]["boxes"], examples[1][1]["boxes"])


@pytest.mark.parametrize(("most_of_one", "draws"), [(0.75, 11), (1.0, 1)])
def test_no_class_takes_the_whole_window(most_of_one, draws):
    """Few windows have no class of 3/4 or more; of eleven draws one is found in most cases."""
    dull = scene(64, 640, ((0, 0, 30, 64), (300, 0, 320, 64)))

    def mixed(labels: torch.Tensor) -> bool:
        counts = labels.flatten().bincount()
        return bool(counts.max() < 0.75 * counts.sum())

    windows = [mixed(dull.semantic[:32, left : left + 32]) for left in range(609)]
    share = sum(windows) / len(windows)
    how = DenseAugmentation(kind="window", hflip=0.0, jitter=(1.0, 1.0), side=0.5, most_of_one=most_of_one)
    transform = train_dense_transform(Preprocessing(input_size=64, long_side=640), how)
    torch.manual_seed(0)
    found = sum(mixed(transform(dull)[1]["semantic"]) for _ in range(100)) / 100
    assert share < 0.15
    assert abs(found - (1 - (1 - share) ** draws)) < 0.12


def test_semantic_steps_never_pass_the_longer_side():
    """facebookresearch's Mask2Former: sixteen short sides."""
    steps = AUGMENTATIONS["semantic_steps"]
    assert [round(640 * scale) for scale in steps.scales] == [64 * tenths for tenths in range(5, 21)]
    preprocessing = Preprocessing(input_size=40, long_side=100, interpolation="bilinear")
    how = dataclasses.replace(steps, hflip=0.0, side=10.0)  # a square around everything
    transform = train_dense_transform(preprocessing, how)
    torch.manual_seed(0)
    found = {transform(scene(48, 96, ((1, 1, 30, 30),)))[1]["size"] for _ in range(200)}
    assert {height for height, _ in found} == {*range(20, 50, 4), 50}
    assert max(width for _, width in found) == 100


def test_values_out_of_range():
    for options, message in {
        ("hflip", 1.5): "hflip=1.5; give a number from 0 to 1",
        ("scales", ()): r"scales=\(\); give numbers above 0",
        ("jitter", (2.0, 0.1)): "jitter=.*the least one first",
        ("crop", (0.0, 0.5)): "crop=.*above 0",
        ("side", 0.0): "side=0.0; give a number above 0",
        ("light", -1.0): "light=-1.0",
    }.items():
        with pytest.raises(UserError, match=message):
            DenseAugmentation(**dict([options]))


# --- batches


def test_collate_pads_right_and_bottom():
    transform = train_dense_transform(PLAIN, AUGMENTATIONS["none"])
    examples = [transform(scene(90, 120)), transform(scene(120, 90, ((1, 1, 9, 9),)))]
    batch = collate_dense(examples, divisor=32)
    assert batch["images"].shape == (2, 3, 96, 96)
    assert batch["sizes"].tolist() == [[64, 85], [85, 64]]
    for index, (image, target) in enumerate(examples):
        height, width = target["size"]
        padded = batch["targets"][index]
        assert torch.equal(batch["images"][index, :, :height, :width], image)
        assert not batch["images"][index, :, height:].any()
        assert not batch["images"][index, :, :, width:].any()
        assert padded["masks"].shape[1:] == padded["semantic"].shape == (96, 96)
        assert padded["masks"].sum() == target["masks"].sum()
        assert (padded["semantic"][height:] == 255).all()
        assert torch.equal(padded["boxes"], target["boxes"])
        assert "masks" in target, "the example stays as it is"
        assert target["masks"].shape[1:] == (height, width)
    assert collate_dense(examples, divisor=1)["images"].shape == (2, 3, 85, 85)


def test_collate_takes_evaluation_examples():
    transform = eval_dense_transform(PLAIN)
    batch = collate_dense([transform(scene()), transform(scene(120, 90))])
    assert batch["sizes"].tolist() == [[64, 85], [85, 64]]
    assert batch["targets"] == [{"size": (64, 85)}, {"size": (85, 64)}]


def test_objects_without_a_mask_stay():
    whole = scene()
    masks, outlined = whole.masks.clone(), torch.tensor([False, True, True])
    masks[0] = False
    partly = dataclasses.replace(whole, masks=masks, outlined=outlined)
    _, target = train_dense_transform(PLAIN, AUGMENTATIONS["none"])(partly)
    assert target["labels"].tolist() == [0, 1, 2]
    assert target["outlined"].tolist() == [False, True, True]
    for name in AUGMENTATIONS:
        target = train_dense_transform(PLAIN, AUGMENTATIONS[name])(partly)[1]
        assert target["outlined"].tolist() == [label > 0 for label in target["labels"].tolist()]
    _, target = train_dense_transform(PLAIN, AUGMENTATIONS["none"])(dataclasses.replace(partly, outlined=None))
    assert target["labels"].tolist() == [1, 2]
