"""Transforms against timm's, image by image, and their randomness against torch's generator alone."""

import pickle
import random
from collections import Counter

import numpy as np
import pytest
import skimage.data
import timm.data.auto_augment as timm_augment
import timm.data.mixup as timm_mixup
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.random_erasing import RandomErasing
from torch.testing import assert_close
from torchvision.transforms import v2

from focalnet.data.transforms import randaugment
from focalnet.data.transforms.classification import Augmentation, train_transform
from focalnet.data.transforms.mixup import MixupCutmix
from focalnet.data.transforms.randaugment import OPERATIONS, SIGNED, Filling, RandAugment
from focalnet.errors import UserError
from focalnet.inputs.image import Preprocessing, to_tensor
from focalnet.tasks.classify import AUGMENTATIONS

GREY = (124, 116, 104)
GREY_MEAN, GREY_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PLAIN = {"scale": (1, 1), "ratio": (1, 1), "hflip": 0, "auto_augment": None, "color_jitter": 0, "erase": 0}
"""An augmentation that changes nothing."""


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """A cat, a portrait and a rocket, small, odd and not square."""
    shapes = {"chelsea": (131, 87), "astronaut": (90, 90), "rocket": (97, 151)}
    return [Image.fromarray(getattr(skimage.data, name)()).resize(shape) for name, shape in shapes.items()]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "crop_pct"), [(64, 0.875), (96, 0.9), (160, 1.0), (33, 0.875)])
def test_evaluation_equals_timm(photographs, size, crop_pct, interpolation):
    preprocessing = Preprocessing(input_size=size, crop_pct=crop_pct, interpolation=interpolation)
    ours = preprocessing
    theirs = create_transform(size, is_training=False, crop_pct=crop_pct, interpolation=interpolation)
    for image in photographs:
        tensor = ours(image)
        assert tensor.shape == (3, size, size)
        assert tensor.dtype == torch.float32
        assert type(tensor) is torch.Tensor
        assert_close(tensor, theirs(image), rtol=0, atol=1e-6)


def test_evaluation_uses_the_mean_and_std_of_the_weights(photographs):
    plain = Preprocessing(input_size=32, mean=(0, 0, 0), std=(1, 1, 1))(photographs[0])
    own = Preprocessing(input_size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2))(photographs[0])
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.1, 0.2, 0.3), (0.5, 0.25, 2.0)))
    assert_close(own, (plain - mean) / std)
    assert 0 <= plain.min() < plain.max() <= 1


@pytest.mark.parametrize("size", [(1, 50_000), (60_000, 2), (1, 1), (5, 3)])
def test_odd_shapes_are_evaluated(size):
    assert Preprocessing(input_size=32)(Image.new("RGB", size, "red")).shape == (3, 32, 32)
    assert train_transform(Preprocessing(input_size=32), Augmentation())(Image.new("RGB", size)).shape == (3, 32, 32)


def test_the_limit_of_length_is_not_seen():
    stripes = np.zeros((10, 400, 3), dtype=np.uint8)
    stripes[:, ::7], stripes[3:5] = 255, 90
    preprocessing = Preprocessing(input_size=16)
    unlimited = v2.Compose([v2.Resize(preprocessing.resize, "bicubic"), v2.CenterCrop(16), *to_tensor(preprocessing)])
    image = Image.fromarray(stripes)
    assert_close(preprocessing(image), unlimited(image), rtol=0, atol=0)


@pytest.mark.parametrize("flip", ["hflip", "vflip"])
def test_training_without_chance_equals_timm(photographs, flip):
    augmentation = Augmentation(**{**PLAIN, flip: 1})
    ours = train_transform(Preprocessing(input_size=64), augmentation)
    theirs = create_transform(
        64,
        is_training=True,
        scale=(1, 1),
        ratio=(1, 1),
        hflip=float(flip == "hflip"),
        vflip=float(flip == "vflip"),
        color_jitter=None,
        interpolation="bicubic",
    )
    for image in photographs:
        assert_close(ours(image), theirs(image), rtol=0, atol=1e-6)


def test_official_training_has_the_steps_of_timm():
    """Same steps, same order; color jitter is off where RandAugment is on, though the recipe asks for both."""
    official = {"re_prob": 0.25, "re_mode": "pixel", "re_count": 1, "interpolation": "bicubic"}
    theirs = create_transform(
        224, is_training=True, color_jitter=0.4, auto_augment="rand-m9-mstd0.5-inc1", **official
    ).transforms
    ours = steps(Augmentation())
    same = {
        "RandomResizedCropAndInterpolation": "RandomResizedCrop",
        "MaybeToTensor": "_as_pixels",
        "Normalize": "scaled",
    }
    names = [getattr(step, "__name__", type(step).__name__) for step in ours]
    assert names == [same.get(type(step).__name__, type(step).__name__) for step in theirs]
    crop, erasing = ours[0], ours[-1]
    assert (crop.scale, crop.ratio) == (theirs[0].scale, theirs[0].ratio) == ((0.08, 1), (3 / 4, 4 / 3))
    assert crop.interpolation == Image.Resampling.BICUBIC
    assert (erasing.p, erasing.scale) == (theirs[-1].probability, (theirs[-1].min_area, theirs[-1].max_area))
    assert erasing._log_ratio.tolist() == pytest.approx(theirs[-1].log_aspect_ratio)
    assert ours[2].fill == Filling(Image.Resampling.BICUBIC, theirs[2].ops[0].kwargs["fillcolor"])
    assert theirs[2].ops[0].kwargs["resample"] == Image.Resampling.BICUBIC
    assert isinstance(steps(Augmentation(auto_augment=None))[2], v2.ColorJitter)


def steps(augmentation):
    """The steps of a transform, those of torchvision as such."""
    return [getattr(step, "step", step) for step in train_transform(Preprocessing(), augmentation).transforms]


@pytest.mark.parametrize("augment", ["light", "imagenet", "digits"])
def test_steps_that_are_called_directly_draw_and_compute_as_torchvision_calls_them(photographs, augment):
    how = AUGMENTATIONS[augment]
    ours = train_transform(Preprocessing(input_size=48), how)
    last = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(GREY_MEAN, GREY_STD)]
    theirs = []
    for step in ours.transforms:
        name = getattr(step, "__name__", "")
        theirs += last if name == "_as_pixels" else [] if name == "scaled" else [getattr(step, "step", step)]
    theirs = v2.Compose(theirs)
    for seed in range(12):
        torch.manual_seed(seed)
        expected = theirs(photographs[seed % 3])
        torch.manual_seed(seed)
        assert torch.equal(ours(photographs[seed % 3]), expected)


def test_bytes_that_are_normalized_later_are_the_same_floats(photographs):
    how, light = Preprocessing(input_size=48), AUGMENTATIONS["light"]
    for seed in range(4):
        torch.manual_seed(seed)
        raw = train_transform(how, light, raw=True)(photographs[0])
        assert raw.dtype == torch.uint8
        torch.manual_seed(seed)
        assert torch.equal(how.scaled(raw[None])[0], train_transform(how, light)(photographs[0]))
    with pytest.raises(UserError, match="erased"):
        train_transform(how, Augmentation(), raw=True)


def test_erasing_looks_like_that_of_timm():
    def metrics(erase) -> torch.Tensor:
        rows = []
        for _ in range(600):
            erased = erase(torch.full((3, 20, 30), 9.0))
            noise = erased[erased != 9]
            rows.append([len(noise) / 1800, float(len(noise) > 0), noise.mean() if len(noise) else 0.0])
        return torch.tensor(rows).mean(0)

    torch.manual_seed(0)
    random.seed(0)
    ours = metrics(
        train_transform(Preprocessing(input_size=20), Augmentation(**{**PLAIN, "erase": 0.25})).transforms[-1]
    )
    theirs = metrics(RandomErasing(0.25, mode="pixel", device="cpu"))
    assert_close(ours, theirs, rtol=0, atol=0.04)
    assert 0.2 < ours[1] < 0.3
    assert 0.02 < ours[0] < 0.06


# --- RandAugment


def test_the_operations_are_those_of_timm():
    assert set(OPERATIONS) == set(timm_augment._RAND_INCREASING_TRANSFORMS)


@pytest.mark.parametrize("level", [0.0, 3.3, 9.0, 10.0])
@pytest.mark.parametrize(
    ("name", "negative"), [*((name, False) for name in OPERATIONS), *((name, True) for name in SIGNED)]
)
def test_operation_equals_timm(photographs, monkeypatch, name, level, negative):
    monkeypatch.setattr(timm_augment, "_randomly_negate", lambda value: -value if negative else value)
    how = {"fillcolor": GREY, "resample": Image.Resampling.BICUBIC}
    to_argument = timm_augment.LEVEL_TO_ARG[name]
    arguments = to_argument(level, {}) if to_argument else ()
    if name == "PosterizeIncreasing":
        arguments = (max(1, arguments[0]),)  # timm's 0 bits at level 10 is an error in Pillow
    strength = -level / 10 if negative else level / 10
    for image in photographs:
        ours = OPERATIONS[name](image, strength, Filling(Image.Resampling.BICUBIC, GREY))
        theirs = timm_augment.NAME_TO_OP[name](image, *arguments, **how)
        assert ours.mode == "RGB"
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    unchanged = level == 0 and name not in ("AutoContrast", "Equalize", "Invert", "PosterizeIncreasing")
    assert np.array_equal(np.asarray(ours), np.asarray(image)) == unchanged


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[str, float]]:
    """What RandAugment applies, without the images."""
    record: list[tuple[str, float]] = []
    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda image, strength, _, name=name: record.append((name, strength)))
    return record


def test_the_draws_follow_the_policy(drawn):
    torch.manual_seed(0)
    augment = RandAugment("rand-m9-mstd0.5-inc1", resample=Image.Resampling.BICUBIC, color=GREY)
    counts = []
    for _ in range(3000):
        before = len(drawn)
        augment(None)
        counts.append(len(drawn) - before)
    shares = [count / 3000 for _, count in sorted(Counter(counts).items())]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)  # each of two with probability 1/2
    for name, count in Counter(name for name, _ in drawn).items():
        assert count == pytest.approx(200, abs=50), name
    levels = torch.tensor([abs(strength) * 10 for _, strength in drawn])
    assert levels.mean().item() == pytest.approx(9, abs=0.05)
    assert levels.std().item() == pytest.approx(0.5, abs=0.05)
    assert levels.max() == 10
    negative = [strength < 0 for name, strength in drawn if name in SIGNED]
    assert np.mean(negative) == pytest.approx(0.5, abs=0.05)
    assert all(strength > 0 for name, strength in drawn if name not in SIGNED)


def test_the_policy_is_read(drawn):
    augment = RandAugment("rand-m4.5-n3-p1-inc1", resample=Image.Resampling.BILINEAR, color=GREY)
    augment(None)
    assert [abs(strength) for _, strength in drawn] == [0.45] * 3


@pytest.mark.parametrize(
    "policy", ["rand", "rand-m9-mstd0.5", "rand-m9-inc0", "rand-m30-inc1", "rand-m9-w1-inc1", "augmix-m3", "", "9"]
)
def test_unknown_policies_are_refused(policy):
    with pytest.raises(UserError, match="not known; give 'rand-m9"):
        train_transform(Preprocessing(), Augmentation(auto_augment=policy))


# --- chance


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(erase=1),
        Augmentation(auto_augment=None, vflip=0.5),
        Augmentation(**{**PLAIN, "rotate": 12, "shift": 0.1, "zoom": 0.1, "shear": 8}),
    ],
    ids=["official", "jitter", "affine"],
)
def test_chance_is_torchs_generator_alone(photographs, augmentation):
    transform = train_transform(Preprocessing(input_size=32), augmentation)

    def run(seed):
        torch.manual_seed(seed)
        return torch.stack([transform(image) for image in photographs for _ in range(4)])

    first = run(0)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(run(0), first)
    assert not torch.equal(run(1), first)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_transforms_travel_to_worker_processes(photographs):
    for transform in (Preprocessing(), train_transform(Preprocessing(), Augmentation())):
        copy = pickle.loads(pickle.dumps(transform))
        torch.manual_seed(0)
        expected = transform(photographs[0])
        torch.manual_seed(0)
        assert_close(copy(photographs[0]), expected, rtol=0, atol=0)


# --- small images


def test_affine_moves_within_its_limits():
    """A bright dot in the middle of a black image stays within the shift, and its surroundings black."""
    dot = Image.new("RGB", (33, 33))
    dot.putpixel((16, 16), (255, 255, 255))
    preprocessing = Preprocessing(input_size=33, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    transform = train_transform(preprocessing, Augmentation(**{**PLAIN, "shift": 0.1}))
    torch.manual_seed(0)
    places = torch.stack([torch.nonzero(transform(dot)[0] > 0.5)[0] - 16 for _ in range(200)])
    assert places.abs().max() == 3
    assert places.min() == -3
    zoomed = train_transform(preprocessing, Augmentation(**{**PLAIN, "zoom": 0.5, "rotate": 30, "shear": 5}))
    for _ in range(20):
        picture = zoomed(Image.new("RGB", (33, 33), "white"))
        assert picture[0, 16, 16] == 1
    assert transform(Image.new("RGB", (33, 33)))[0].max() == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("hflip", 1.5), ("erase", -0.1), ("zoom", 1.0), ("rotate", -1)],
        *[("scale", (0, 1)), ("scale", (0.5, 2)), ("ratio", (2, 1))],
    ],
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(UserError, match=f"Augmentation has {field}="):
        Augmentation(**{field: value})


def test_lists_become_tuples():
    assert Augmentation(scale=[0.5, 1.0]) == Augmentation(scale=(0.5, 1.0))


# --- mixing


def mixer(**options) -> MixupCutmix:
    return MixupCutmix(**{"num_classes": 5, **options})


@pytest.fixture
def draws(monkeypatch) -> dict:
    """The weight, and for cutmix the rectangle, of the last mixing."""
    record = {}
    for kind in (v2.MixUp, v2.CutMix):
        original = kind.make_params

        def wrapped(self, flat_inputs, original=original):
            record.clear()
            record.update(original(self, flat_inputs))
            return record

        monkeypatch.setattr(kind, "make_params", wrapped)
    return record


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixing_equals_timm(kind, batch, smoothing, draws, monkeypatch):
    """Each image and its partner are what timm makes of the pair with the same weight and rectangle."""
    torch.manual_seed(1)
    images, labels = torch.randn(batch, 3, 9, 14), torch.randint(5, (batch,))
    original = images.clone()
    alphas = {"mixup_alpha": 0.8 * (kind == "mixup"), "cutmix_alpha": 1.0 * (kind == "cutmix")}
    for seed in range(8):
        torch.manual_seed(seed)
        mixed, targets = mixer(**alphas, label_smoothing=smoothing)(images, labels)
        assert torch.equal(images, original)
        weight = draws["lam"] if kind == "mixup" else draws["lam_adjusted"]
        left, top, right, bottom = draws.get("box", (0, 0, 0, 0))
        monkeypatch.setattr(timm_mixup.Mixup, "_params_per_batch", lambda self, w=weight: (w, kind == "cutmix"))
        rectangle = (top, bottom, left, right)
        monkeypatch.setattr(timm_mixup, "cutmix_bbox_and_lam", lambda *_, r=rectangle, w=weight, **__: (r, w))
        theirs = timm_mixup.Mixup(**alphas, label_smoothing=smoothing, num_classes=5)
        for index in range(batch):
            pair = [index, index - 1]
            image, target = theirs(images[pair].clone(), labels[pair])
            assert_close(mixed[index], image[0])
            assert_close(targets[index], target[0])
        if kind == "cutmix":
            assert weight == pytest.approx(1 - (bottom - top) * (right - left) / (9 * 14))
        assert_close(targets.sum(1), torch.ones(batch))


def test_weights_and_rectangles_are_spread_like_those_of_timm(draws):
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    images, labels = torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.long)
    for options, alpha in (({"cutmix_alpha": 0}, 0.8), ({"mixup_alpha": 0}, 1.0)):
        ours, theirs = [], []
        mix = mixer(**options)
        for _ in range(600):
            mix(images, labels)
            ours.append(draws.get("lam_adjusted", draws.get("lam")))
            drawn = generator.beta(alpha, alpha)
            if "mixup_alpha" in options:
                drawn = timm_mixup.cutmix_bbox_and_lam((3, 32, 32), drawn)[1]
            theirs.append(drawn)
        assert np.quantile(ours, [0.2, 0.5, 0.8]) == pytest.approx(np.quantile(theirs, [0.2, 0.5, 0.8]), abs=0.08)


def test_probabilities_of_mixing(monkeypatch):
    used = []
    for kind in (v2.MixUp, v2.CutMix):
        monkeypatch.setattr(kind, "forward", lambda self, *inputs, kind=kind: used.append(kind.__name__) or inputs)
    torch.manual_seed(0)
    mix = mixer(prob=0.6, switch_prob=0.25)
    for _ in range(2000):
        mix(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]))
    counts = Counter(used)
    assert counts["CutMix"] / 2000 == pytest.approx(0.15, abs=0.03)
    assert counts["MixUp"] / 2000 == pytest.approx(0.45, abs=0.03)


def test_without_mixing_labels_are_still_smoothed():
    images, labels = torch.randn(3, 3, 4, 4), torch.tensor([4, 0, 0])
    for options in ({"mixup_alpha": 0, "cutmix_alpha": 0}, {"prob": 0}):
        same, targets = mixer(**options, label_smoothing=0.2)(images, labels)
        assert torch.equal(same, images)
        assert targets[0].tolist() == pytest.approx([0.04, 0.04, 0.04, 0.04, 0.84])
        expected = torch.nn.functional.cross_entropy(images.flatten(1)[:, :5], labels, label_smoothing=0.2)
        assert_close(torch.nn.functional.cross_entropy(images.flatten(1)[:, :5], targets), expected)


def test_mixing_draws_from_torchs_generator_alone():
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])

    def run():
        torch.manual_seed(3)
        return torch.stack([mixer()(images, labels)[0] for _ in range(6)])

    first = run()
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    assert torch.equal(run(), first)


def test_mixing_a_single_picture_leaves_it_as_it_is():
    images, labels = torch.randn(1, 3, 8, 8), torch.tensor([2])
    mixed, targets = mixer(label_smoothing=0)(images, labels)
    assert_close(mixed, images)
    assert_close(targets, torch.eye(5)[[2]])


@pytest.mark.parametrize(("option", "value"), [("mixup_alpha", -1), ("prob", 2), ("label_smoothing", 1.1)])
def test_mixing_refuses_values_out_of_range(option, value):
    with pytest.raises(UserError, match=option):
        mixer(**{option: value})


def test_randaugment_is_not_changed_by_the_tests():
    assert randaugment.OPERATIONS == {**SIGNED, **randaugment.UNSIGNED}


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("augment", ["light", "affine", "erase"])
def test_other_channels_are_augmented(channels, augment):
    changes = {
        "light": {"color_jitter": 0.4},
        "affine": {"rotate": 12.0, "shift": 0.1, "zoom": 0.1, "shear": 8.0},
        "erase": {"erase": 1.0},
    }[augment]
    augmentation = Augmentation(**{**PLAIN, "scale": (0.35, 1), "hflip": 0.5, **changes})
    how = Preprocessing(input_size=(16, 24)).for_channels(channels)
    signal = how.read(np.random.default_rng(0).integers(0, 255, (30, 40, channels)).astype(np.uint8))
    torch.manual_seed(0)
    one, two = (train_transform(how, augmentation)(signal) for _ in range(2))
    assert one.shape == (channels, 16, 24)
    assert one.isfinite().all()
    assert not torch.equal(one, two)
    plain = train_transform(how, Augmentation(**PLAIN))(signal)
    assert plain.shape == (channels, 16, 24)


def test_randaugment_of_other_channels_is_refused():
    with pytest.raises(UserError, match="the images have 5 channels: take another --augment"):
        train_transform(Preprocessing().for_channels(5), Augmentation())


@pytest.mark.parametrize("view", ["squash", "pad"])
def test_whole_views_are_trained_on_as_they_are_evaluated(view):
    """Without chance both are the same, and with it a crop is one of the whole image."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 400, 3)).astype(np.uint8)
    how = Preprocessing(input_size=32, crop_pct=1.0, view=view)
    image = how.read(pixels)
    assert_close(train_transform(how, Augmentation(**PLAIN))(image), how(image), rtol=0, atol=0.05)
    cropped = train_transform(how, Augmentation(**{**PLAIN, "scale": (0.35, 1), "ratio": (3 / 4, 4 / 3)}))(image)
    assert cropped.shape == (3, 32, 32)
