"""Detection and segmentation as tasks: figures of perfect and of augmented answers, predictions, batches."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from focalnet.engine.recipes import get_recipe
from focalnet.errors import UserError
from focalnet.labels import ADE20K_CLASSES, COCO_CLASSES, COCO_RAW_CLASSES
from focalnet.models.create import create_model
from focalnet.models.publish import save_pretrained
from focalnet.predict import Predictor
from focalnet.structures import Detections
from focalnet.tasks import get_task, options_of_model, task_of
from focalnet.tasks.base import Datasets
from focalnet.tasks.dense import bare_sample
from focalnet.tasks.detect import Detect, DetectionPrediction, category_ids
from focalnet.tasks.detection_report import upright, words
from focalnet.tasks.panoptic import Panoptic, PanopticPrediction, things
from focalnet.tasks.segment import Segment, SegmentPrediction, windows

HEADS = {"detect": "mask_rcnn", "segment": "upernet", "panoptic": "mask2former"}
TINY = {"embed_dim": 8, "depths": (1, 1, 1, 1)}


class Known(torch.nn.Module):
    """Answers with the truth of the scenes it was given, in the form of a network."""

    def __init__(self, spec, scenes):
        super().__init__()
        self.spec, self.scenes = spec, scenes

    def forward(self, images):
        return images

    def detect(self, images, sizes, originals):
        assert originals.tolist() == [[128, 128]] * len(images)
        return [Detections(s.boxes, torch.ones(len(s.labels)), s.labels, s.masks) for s in self.scenes]

    def semantic(self, outputs, sizes, originals):
        return [torch.eye(self.spec.num_classes)[s.semantic.long()].permute(2, 0, 1) for s in self.scenes]

    def panoptic(self, outputs, sizes, originals, *, things, object_mask_threshold):
        from focalnet.models.mask2former.postprocess import Segment as Part

        assert (things, object_mask_threshold) == (list(range(10)), 0.8)
        numbers = [torch.arange(1, len(s.labels) + 1) for s in self.scenes]
        return [
            ((s.masks * n[:, None, None]).sum(0).int(), [Part(i, k, 0.9) for i, k in enumerate(s.labels.tolist(), 1)])
            for s, n in zip(self.scenes, numbers, strict=True)
        ]

    def instances(self, outputs, sizes, originals, *, things):
        found = self.detect(outputs, sizes, originals)
        return [f.take(torch.isin(f.labels, torch.tensor(things))) for f in found]


@pytest.fixture(scope="module", params=HEADS)
def setting(request):
    """A task, its data, its network."""
    task = get_task(request.param)(model=f"{HEADS[request.param]}_minifocal_128", augment="digit_crops")
    data = task.datasets(0)
    return task, data, task.build_model(data)


def batch_of(task, data, spec, count=2, train=False):
    side = data.train if train else data.val
    examples = [task.example(spec, side[index], train=train) for index in range(count)]
    batch = task.collate(spec, examples, train=train)
    return batch | {"index": torch.arange(count), "skipped": []}


def test_perfect_answers_score_one(setting):
    task, data, model = setting
    metric = task.metric(model.spec)
    scenes = [data.val[index] for index in range(2)]
    metric.update(Known(model.spec, scenes), batch_of(task, data, model.spec))
    padding = batch_of(task, data, model.spec) | {"index": torch.tensor([-1, -1])}
    metric.update(Known(model.spec, scenes[::-1]), padding)  # wrong answers to what does not count
    metrics = metric.compute()
    assert metrics[task.score] == pytest.approx(1)
    assert all(value == pytest.approx(1) for name, value in metrics.items() if "_ar" not in name)
    json.dumps(metric.details())


WORST = ["Worst false positives", "Worst false negatives"]
REPORTS = {
    "detect": [
        "Threshold",
        "Confusion matrix",
        "Worst false positives",
        "Worst false negatives",
        "Precision and recall",
    ],
    "segment": ["Overlap of the classes"],
    "panoptic": ["Panoptic quality"],
}


def test_a_report_shows_mistakes_with_their_files(setting):
    task, data, model = setting
    metric = task.metric(model.spec)
    known = Known(model.spec, [data.val[0], data.val[2]])  # the second answer is that of another scene
    metric.update(known, batch_of(task, data, model.spec))
    metrics, details = metric.compute(), metric.details()
    assert all(task.meaning(name).words or "of" in task.meaning(name).name for name in metrics)
    spec = task.tuned(model.spec, metrics, details)
    assert spec.threshold == (0.5 if task.name == "detect" else None), "halfway from 1.0 to nothing"
    sections = task.show(model.eval(), [data.val[0]], data.val, details)
    worst = ["Worst images"] if task.name == "segment" else []
    assert [section.title for section in sections] == [*REPORTS[task.name], "Classes", *worst, "Predictions"]
    for section in sections:
        if section.title.startswith("Worst"):
            assert section.gallery[0].caption
            assert section.gallery[0].note == data.val[1].path
    assert sections[-1].gallery[0].note == data.val[0].path


def test_the_best_threshold_is_the_default_and_travels(tmp_path):
    torch.manual_seed(0)
    model = create_model("mask_rcnn_minifocal_128", num_classes=3, **TINY).eval()
    save_pretrained(model, tmp_path / "plain")
    model.spec = model.spec.replace(threshold=0.03)
    save_pretrained(model, tmp_path / "tuned")
    folders = (tmp_path / "tuned", tmp_path / "plain")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    tuned, plain = (Predictor(folder) for folder in folders)
    assert [one.task.least_score(one.model.spec) for one in (tuned, plain)] == [0.03, 0.5]
    model.detect = lambda *_: [detections([[0, 0, 9, 9]] * 3, [0.4, 0.2, 0.02], [0, 1, 2])]
    counts = [len(Predictor(model, threshold=least)(image).detections) for least in (None, 0.3, 0.0)]
    assert counts == [2, 1, 3]
    again = create_model("mask_rcnn_minifocal_128", weights=str(folders[0]), num_classes=5, **TINY)
    assert again.spec.threshold is None, "of another head"
    with pytest.raises(UserError, match="threshold=2"):
        model.spec.replace(threshold=2.0)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"score": 0.91, "other": None, "iou": 0.0}, "ant 0.91: nothing is annotated there"),
        ({"score": 0.91, "other": 1, "iou": 0.05}, "ant 0.91: nothing is annotated there"),
        ({"score": 0.91, "other": 1, "iou": 0.31}, "ant 0.91: overlaps a bee by 0.31 only"),
        ({"score": 0.91, "other": 1, "iou": 0.7}, "ant 0.91: it is a bee"),
        ({"score": 0.91, "other": 0, "iou": 0.7}, "ant 0.91: found twice"),
        ({"other": None, "iou": 0.0}, "ant: not found"),
        ({"other": 1, "iou": 0.31}, "ant: a bee overlaps it by 0.31 only"),
        ({"other": 1, "iou": 0.7}, "ant: taken for a bee"),
        ({"other": 0, "iou": 0.7}, "ant: found as one with another"),
    ],
)
def test_mistakes_in_words(row, sentence):
    assert words({"label": 0, **row}, ("ant", "bee")) == sentence


def test_mistakes_of_turned_images_are_cut_out_where_they_are_seen():
    sample = bare_sample(Image.new("RGB", (40, 20)))
    for orientation, box in ((1, [30, 2, 8, 4]), (3, [2, 14, 8, 4]), (6, [2, 2, 4, 8])):
        turned = replace(sample, orientation=orientation)
        assert upright(turned, box).tolist() == [30, 2, 38, 6], orientation


def test_losses_are_finite_and_reach_every_parameter(setting):
    task, data, model = setting
    model.train()
    losses = task.loss(model, batch_of(task, data, model.spec, train=True))
    assert losses["loss"].isfinite()
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    model.zero_grad()
    model.eval()


def test_the_spec_tells_the_task(setting):
    task, _, model = setting
    assert model.spec.task == task.name
    assert task_of(model.spec) is type(task)
    assert model.spec.preprocessing.input_size == (128 if task.name == "detect" else 192)
    assert (model.spec.things is not None and not all(model.spec.things)) == (task.name != "detect")


def test_a_prediction_tells_and_draws(setting):
    task, data, model = setting
    (answer,) = task.predict(model, [data.val[0].image.resize((150, 90))])
    json.dumps(answer.to_dict())
    assert answer.summary()
    assert min(answer.draw(data.val[0].image.resize((150, 90))).size) >= 90
    assert all(picture.size == (150, 90) for picture in answer.maps().values())


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.float16, torch.float64))],
)
@pytest.mark.parametrize(("task", "head"), [*HEADS.items(), ("detect", "dino"), ("segment", "mask2former")])
def test_predictions_of_weights_of_any_precision(task, head, dtype):
    torch.manual_seed(0)
    model = create_model(f"{head}_minifocal_128", classes=("a", "b"), **TINY).to(dtype).eval()
    model.spec = model.spec.replace(things=(True, False))
    (answer,) = get_task(task)(model=f"{head}_minifocal_128").predict(model, [Image.new("RGB", (70, 50), "red")])
    json.dumps(answer.to_dict())


def test_batches_of_unequal_pictures_are_for_training_only(setting):
    task, data, model = setting
    assert task.eval_batch_size(model.spec, data.val, 7) == 7
    for side, size in ((500, 4), (800, 1)):
        large = replace(model.spec.preprocessing, input_size=side, long_side=side)
        assert task.eval_batch_size(model.spec.replace(preprocessing=large), data.val, 7) == size
    data.val.sizes = [(128, 128), (128, 130)] * 100
    try:
        assert task.eval_batch_size(model.spec, data.val, 7) == 1
        assert task.groups(data.val)[:2] == [1, 1]
        data.val.sizes = [(130, 128), (128, 130)] * 100
        assert task.groups(data.val)[:2] == [0, 1]
    finally:
        data.val.sizes = [(128, 128)] * 200


def test_models_choose_their_tasks():
    names = ["mask_rcnn_focalnet_tiny_lrf", "dino_minifocal_128", "upernet_minifocal_128", "focalnet_tiny_srf", None]
    assert [options_of_model(name).name for name in names] == ["detect", "detect", "segment", "classify", "classify"]


@pytest.mark.parametrize(("task", "longest"), [(Detect, 128), (Segment, 256), (Panoptic, 128)])
def test_image_size_scales_the_longest_side(task, longest):
    """Published segmenters see the longer side up to four times the shorter one."""
    task = task(model=f"{HEADS[task.name]}_minifocal_128", image_size=64)
    data = Datasets(("a", "b"), [], [], "", (True, False))
    assert task.build_model(data).spec.preprocessing.long_side == longest


def test_the_recipe_of_ade20k_is_facebookresearchs(tmp_path):
    recipe = get_recipe("mask2former_ade20k", "mask2former_minifocal_128")
    task = Segment(model="mask2former_minifocal_128", **recipe.task)
    model = task.build_model(Datasets(("a", "b"), [], [], "", (False, False)))
    assert (
        model.spec.head_options["num_queries"] == len(model.net.model.transformer_module.queries_features.weight) == 100
    )
    assert (model.spec.preprocessing.input_size, model.spec.preprocessing.long_side) == (640, 2560)
    save_pretrained(create_model("mask2former_minifocal_128", num_classes=2), tmp_path)  # of 30 queries
    again = Segment(model="mask2former_minifocal_128", **{**recipe.task, "weights": str(tmp_path)})
    assert again.build_model(Datasets(("a", "b"), [], [], "", (False, False))).spec.head_options["num_queries"] == 30
    other = Segment(model="upernet_minifocal_128", **recipe.task)
    assert other.build_model(Datasets(("a", "b"), [], [], "", (False, False))).spec.head == "upernet"
    assert (recipe.train["schedule"], task.augment) == ("poly", "semantic_steps")


# detection


def detections(boxes, scores, labels, masks=None):
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), masks)


class Blob(torch.nn.Module):
    """Finds the bright rectangle of each image, exactly."""

    def detect(self, images, sizes, originals):
        answers = []
        for image, (h, w), (height, width) in zip(images, sizes.tolist(), originals.tolist(), strict=True):
            y, x = torch.nonzero(image[0, :h, :w] > 0.5, as_tuple=True)
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
            box = box * torch.tensor([width / w, height / h] * 2)
            mask = torch.zeros(1, height, width, dtype=torch.bool)
            left, top, right, bottom = box.round().int().tolist()
            mask[:, top:bottom, left:right] = True
            answers.append(Detections(box[None], torch.tensor([0.9]), torch.tensor([1]), mask))
        return answers


def ttaed_answers_come_back_into_place():
    image = torch.zeros(1, 3, 64, 96)
    image[..., 16:40, 8:32] = 1
    found = Detect(tta=True).find(Blob(), image, torch.tensor([[64, 96]]), [(128, 192)])
    assert len(found[0]) == 1  # six views, one object
    assert (found[0].boxes - torch.tensor([16.0, 32, 64, 80])).abs().max() <= 3
    assert found[0].masks[0, 40:72, 24:56].all()
    assert found[0].masks[0, :, 80:].sum() == 0


@pytest.mark.filterwarnings("ignore:OpenCV")  # supervision can do without, and says so
def test_prediction_of_a_detector():
    masks = torch.zeros(2, 10, 20, dtype=torch.bool)
    masks[0, 2:4, 3:7] = True
    found = detections([[3.0, 2, 7, 4], [0, 0, 1, 1]], [0.875, 0.5], [1, 0], masks)
    answer = DetectionPrediction(found, ("ant", "bee"))
    first = answer.to_dict()["objects"][0]
    assert (first["label"], first["score"], first["box"]) == ("bee", 0.875, [3, 2, 7, 4])
    assert first["mask"]["size"] == [10, 20]
    assert answer.summary() == "1 x ant, 1 x bee"
    assert DetectionPrediction(found.take(found.scores > 1), ("ant", "bee")).summary() == "nothing found"
    shown = answer.to_supervision()
    assert shown.xyxy.tolist() == [[3, 2, 7, 4], [0, 0, 1, 1]]
    assert shown.class_id.tolist() == [1, 0]
    assert shown.mask[0].sum() == 8
    assert shown.data["class_name"].tolist() == ["bee", "ant"]


def test_numbers_of_the_classes_in_result_files():
    assert category_ids(COCO_CLASSES)[-1] == 90
    assert category_ids(COCO_RAW_CLASSES)[1] == 1
    assert category_ids(["a", "b"]) == [1, 2]
    assert category_ids(["a", "b", "c"], (3, "x", 0)) == [3, "x", 0]
    assert category_ids(["a", "b", "c"], (2, None, None)) == [2, 1, 3]
    assert category_ids(["a", "b"], (None, 7)) == [1, 7]
    assert category_ids(COCO_CLASSES, (5, *[None] * 79))[:5] == [5, 2, 3, 4, 1]


# segmentation


def test_dice_is_measured_where_it_is_asked_for():
    task = Segment(model="focal_unet_minifocal_32", data="organs", dice=True, image_size=48, drop_path=0.0)
    data = task.datasets(0)
    model = task.build_model(data)
    metric = task.metric(model.spec)
    metric.update(Known(model.spec, [data.val[0], data.val[1]]), batch_of(task, data, model.spec))
    metrics, details = metric.compute(), metric.details()
    assert (metrics["miou"], metrics["dice"], metrics["hd95"], metrics["unmatched"]) == (1, 1, 0, 0)
    there = {label for index in range(2) for label in data.val[index].semantic.unique().tolist()}
    assert {label for label, row in enumerate(details["overlap"]) if row["dice"] == 1} == there - {0}
    sections = {section.title: section for section in task.show(model.eval(), [data.val[0]], data.val, details)}
    assert [*sections] == ["Overlap of the classes", "Classes", "Overlap per image", "Worst images", "Predictions"]
    assert sections["Overlap per image"].table[0] == ["class", "dice", "hd95"]


@pytest.mark.parametrize(("height", "width", "side"), [(100, 130, 64), (64, 64, 64), (50, 200, 64), (65, 64, 64)])
def test_windows_cover_a_picture(height, width, side):
    seen = torch.zeros(height, width)
    for top, left, h, w in windows(height, width, side):
        assert (h, w) == (min(side, height), min(side, width))
        assert 0 <= top <= height - h
        assert 0 <= left <= width - w
        seen[top : top + h, left : left + w] += 1
    assert seen.min() >= 1


class Brightness(torch.nn.Module):
    """Class 1 where the image is bright: what a window sees is what the whole shows."""

    def forward(self, images):
        return torch.stack([-images[:, 0], images[:, 0]], 1) * 50

    def semantic(self, outputs, sizes, originals=None):
        from focalnet.models.base import pairs
        from focalnet.models.segmentation import cut_and_resize

        maps = zip(outputs, pairs(sizes, originals), strict=True)
        return [cut_and_resize(logits, size, original).softmax(0) for logits, (size, original) in maps]


@pytest.mark.parametrize("options", [{"window": 40}, {"tta": True}, {"window": 40, "tta": True}])
def test_windows_and_augmentation_agree_with_the_whole(options):
    image = -torch.ones(1, 3, 64, 96)
    image[..., 16:40, 8:56] = 1
    sizes, original = torch.tensor([[64, 96]]), [(128, 192)]
    whole = Segment().scores(Brightness(), image, sizes, original)[0].argmax(0)
    seen = Segment(**options).scores(Brightness(), image, sizes, original)[0].argmax(0)
    assert seen.shape == whole.shape == (128, 192)
    assert (seen != whole).float().mean() < 0.02
    assert whole[40:70, 30:90].all()


def test_label_maps_as_mask2former_takes_them():
    task = Segment(model="mask2former_minifocal_128")
    labels = torch.tensor([[0, 0, 3], [255, 3, 0]], dtype=torch.uint8)
    (target,) = task.targets({"targets": [{"semantic": labels}]})
    assert target["labels"].tolist() == [0, 3]
    assert target["masks"].tolist() == [[[True, True, False], [False, False, True]], [[0, 0, 1], [0, 1, 0]]]


def test_prediction_of_a_segmenter():
    answer = SegmentPrediction(np.array([[0, 2, 2], [2, 0, 2]], np.uint8), ("sky", "sea", "sand"))
    assert answer.to_dict() == {
        "classes": [
            {"id": 2, "label": "sand", "pixels": 4, "share": 0.6667},
            {"id": 0, "label": "sky", "pixels": 2, "share": 0.3333},
        ]
    }
    assert answer.summary() == "sand 66.7%, sky 33.3%"
    assert np.asarray(answer.maps()["labels"]).tolist() == answer.labels.tolist()


def test_prediction_of_a_panoptic_segmenter():
    ids = np.array([[1, 1, 0], [300, 300, 300]])
    rows = [{"id": 1, "label": 0, "score": 0.9}, {"id": 300, "label": 1, "score": 0.8}]
    answer = PanopticPrediction(ids, rows, ("cow", "grass"))
    assert answer.to_dict()["segments"][0] == {"id": 1, "label": "cow", "score": 0.9, "pixels": 2}
    assert answer.summary() == "1 x cow, 1 x grass"
    pixels = np.asarray(answer.maps()["ids"]).astype(int)
    assert (pixels[..., 0] + 256 * pixels[..., 1]).tolist() == ids.tolist()


def test_weights_without_things_are_refused(setting):
    _, _, model = setting
    with pytest.raises(UserError, match="do not tell which classes are things"):
        things(model.spec.replace(things=None))


def test_a_window_of_nothing():
    for side in (0, 1, 31):
        with pytest.raises(UserError, match=f"--window is {side}; give the side of a square, 32 pixels or more"):
            Segment(window=side)


def test_published_classes():
    from focalnet.models.registry import get_family
    from focalnet.variants import get_variant

    tiny, large = get_variant("focalnet_tiny_lrf"), get_variant("focalnet_large_fl4")
    assert get_family("upernet").classes_of(150, tiny)["classes"] == ADE20K_CLASSES
    assert get_family("mask2former").classes_of(133, tiny)["task"] == "panoptic"
    assert sum(get_family("mask2former").classes_of(133, tiny)["things"]) == 80
    assert get_family("dino").classes_of(366, large) == {}


def test_a_picture_smaller_than_anything(setting):
    task, _, model = setting
    (answer,) = task.predict(model.eval(), [Image.new("RGB", (3, 2), "red")])
    json.dumps(answer.to_dict())
