"""Mask R-CNN against mmdet 3.3.0 (`fixtures/mask_rcnn/make.py`), and what no oracle is needed for."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import box_iou

from focalnet.errors import UserError
from focalnet.models.base import whole_sizes
from focalnet.models.detection.boxes import Anchors, MaxIoUMatcher
from focalnet.models.detection.proposals import Proposals
from focalnet.models.detection.regions import RoIPool, mask_targets, paste_masks
from focalnet.models.detection.sampling import assign, labels_of, sample, with_masks
from focalnet.models.mask_rcnn.layouts import LAYOUTS
from focalnet.models.mask_rcnn.model import MaskRCNN
from focalnet.variants import FocalNetConfig, get_variant

FIXTURES = Path(__file__).parents[1] / "fixtures" / "mask_rcnn"
spec = importlib.util.spec_from_file_location("make_mask_rcnn", FIXTURES / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
MMDET = LAYOUTS[0]


@pytest.fixture(scope="module")
def golden():
    with np.load(FIXTURES / "golden.npz") as arrays:
        return dict(arrays)


def tiny(num_classes=make.CLASSES, **options):
    head = MaskRCNN.Options(**{"fpn_channels": make.CHANNELS, "representation_size": make.WIDTH} | options)
    return MaskRCNN(FocalNetConfig(**make.TRUNK), num_classes=num_classes, options=head)


def weights(golden):
    shapes = [tuple(int(side) for side in text.strip("(),").split(",")) for text in golden["shapes"]]
    return {str(name): make.weight(str(name), shape) for name, shape in zip(golden["names"], shapes, strict=True)}


@pytest.fixture
def parity(golden):
    model = tiny(rpn_samples=make.MANY, roi_samples=4 * make.MANY)
    model.load_state_dict(MMDET.read(weights(golden)))
    return model


@pytest.mark.parametrize(("dtype", "pixels", "score"), [(torch.float64, 1e-6, 1e-8), (torch.float32, 2e-3, 5e-5)])
@pytest.mark.parametrize("case", make.CASES)
def test_detections_are_mmdets(parity, golden, case, dtype, pixels, score):
    """In float64 as recorded; these random weights enlarge the rounding of float32."""
    size, original = make.CASES[case]
    image = make.picture(case, size).to(dtype)
    found = parity.to(dtype).eval().detect(image, original_sizes=torch.tensor([original]))[0]
    boxes, scores, labels = (torch.from_numpy(golden[f"{case}_{key}"]) for key in ("boxes", "scores", "labels"))
    masks = torch.from_numpy(np.unpackbits(golden[f"{case}_masks"])[: len(boxes) * original[0] * original[1]])
    masks = masks.view(len(boxes), *original).bool()
    assert len(found) == len(boxes)
    overlap = box_iou(boxes, found.boxes.double()) * (labels[:, None] == found.labels)
    match = overlap.argmax(dim=1)
    assert len(match.unique()) == len(match)
    assert (found.boxes[match] - boxes).abs().max() <= pixels
    assert (found.scores[match] - scores).abs().max() <= score
    assert found.masks.shape == masks.shape
    assert (found.masks[match] ^ masks).sum() <= (1e-6 if dtype == torch.float64 else 1e-5) * masks.numel()


def test_losses_and_gradients_are_mmdets(parity, golden):
    images, targets = make.training_batch()
    targets = [{**target, "boxes": target["boxes"].double()} for target in targets]
    parity.double().train().zero_grad()
    losses = parity.loss(images.double(), targets, sizes=torch.tensor(make.TRAINED))
    losses["loss"].backward()
    names = ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"]
    values = np.array([losses[name].item() for name in names])
    np.testing.assert_allclose(values, golden["losses"], rtol=1e-7)
    np.testing.assert_allclose(losses["loss"].item(), golden["losses"].sum(), rtol=1e-7)
    grads = MMDET.write({name: p.grad for name, p in parity.named_parameters()})
    for name, (norm, probed) in zip(golden["grad_names"], golden["grads"], strict=True):
        grad = grads[str(name)]
        assert grad.norm().item() == pytest.approx(norm, rel=1e-6, abs=1e-12), name
        probe = make.drawn(f"probe {name}", tuple(grad.shape))
        assert (grad * probe).sum().item() == pytest.approx(probed, rel=1e-6, abs=1e-6 * norm), name


def test_weights_of_half_precision():
    """Boxes and scores are float32 all the same."""
    torch.manual_seed(0)
    model = tiny().bfloat16().eval()
    images, targets = make.training_batch()
    sizes = torch.tensor(make.TRAINED)
    found = model(images.bfloat16(), sizes=sizes)
    assert {found.boxes.dtype, found.scores.dtype} == {torch.float32}
    losses = model.train().loss(images.bfloat16(), targets, sizes=sizes)
    losses["loss"].backward()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_names_are_torchvisions():
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    with torch.device("meta"):
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81).state_dict()
        ours = MaskRCNN(get_variant("focalnet_tiny_srf")).state_dict()
    theirs = {name: tuple(x.shape) for name, x in theirs.items() if not name.startswith("backbone.body.")}
    ours = {name: tuple(x.shape) for name, x in ours.items() if not name.startswith("backbone.body.")}
    assert ours.keys() == theirs.keys()
    inner = [f"backbone.fpn.inner_blocks.{i}.0.weight" for i in range(4)]  # their stages have other channels
    assert {name for name in ours if ours[name] != theirs[name]} == set(inner)


@pytest.mark.parametrize(
    ("variant", "millions", "gigamacs"),
    [
        ("tiny_srf", 48.675, 265.7),
        ("tiny_lrf", 49.426, 270.7),
        pytest.param("small_srf", 70.913, 354.5, marks=pytest.mark.slow),
        pytest.param("small_lrf", 72.448, 362.5, marks=pytest.mark.slow),
        pytest.param("base_srf", 109.543, 493.7, marks=pytest.mark.slow),
        ("base_lrf", 111.589, 504.5),
    ],
)
def test_size_and_cost_are_the_published_ones(variant, millions, gigamacs):
    """Of mmdet's heads at 1280 x 800 with 1000 proposals and 100 masks; the paper gives 267 to 507 GFLOPs."""
    with torch.device("meta"):
        model = MaskRCNN(get_variant(f"focalnet_{variant}").replace(focal_windows=9)).eval()
        heads = model.roi_heads
        with FlopCounterMode(display=False) as counter:
            features = model.backbone(torch.empty(1, 3, 800, 1280))
            model.rpn.head(features)
            heads.box_predictor(heads.box_head(torch.empty(1000, 256, 7, 7)))
            heads.mask_predictor(heads.mask_head(torch.empty(100, 256, 14, 14)))
    background = 4 * (1024 + 1) + 256 + 1
    assert background == 4357
    assert sum(p.numel() for p in model.parameters()) - background == pytest.approx(millions * 1e6, abs=600)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gigamacs, rel=1e-3)


def test_class_parameters_are_those_that_depend_on_the_classes():
    shapes = [{name: x.shape for name, x in tiny(num_classes=n).state_dict().items()} for n in (3, 4)]
    assert set(tiny().class_parameters()) == {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}


def test_strides_follow_the_trunk():
    options = MaskRCNN.Options(fpn_channels=8, representation_size=8)
    model = MaskRCNN(get_variant("minifocal_64"), num_classes=2, options=options)
    assert model.rpn.anchor_generator.strides == (2, 4, 8, 16, 32)
    assert model.rpn.anchor_generator.sizes[0] == (16,)
    assert model.focalnet is model.backbone.body


def test_anchors_are_exact_at_odd_sizes():
    anchors = Anchors((4, 8), 8.0)
    grid = anchors([torch.zeros(1, 1, 3, 5), torch.zeros(1, 1, 2, 3)])
    width = 32 * 2**0.5
    torch.testing.assert_close(grid[0][0], torch.tensor([-width / 2, -width / 4, width / 2, width / 4]))
    centres = (grid[1][:, :2] + grid[1][:, 2:]) / 2
    assert centres[-1].tolist() == [16, 8]


def test_an_objects_best_boxes_belong_to_it_from_an_overlap_on():
    overlaps = torch.tensor([[0.8, 0.2, 0.4, 0.0], [0.75, 0.25, 0.6, 0.0], [0.1, 0.29, 0.0, 0.0]])
    assert MaxIoUMatcher(0.7, 0.3, best=0.3)(overlaps.clone()).tolist() == [1, -1, -2, -1]


def test_objects_among_the_proposals_belong_to_themselves_only():
    objects = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    proposals = torch.tensor([[0.0, 0, 10, 9.8], [0, 0, 30, 30]])  # the first one is the best of both objects
    matcher = MaxIoUMatcher(0.5, 0.5, best=0.5)
    assert assign(proposals, objects, matcher).tolist() == [1, -1, 0, 1]
    assert assign(proposals, objects, MaxIoUMatcher(0.5, 0.5, best=None)).tolist() == [0, -1, 0, 1]
    assert assign(proposals, objects[:0], matcher).tolist() == [-1, -1]
    assert assign(proposals[:0], objects, matcher).tolist() == [0, 1]


def test_sampled_boxes_know_their_objects_through_the_batch():
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 9]])
    empty = {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.int64)}
    targets = [{"boxes": boxes[:1], "labels": torch.tensor([3])}, empty,
               {"boxes": boxes[[1, 0]], "labels": torch.tensor([4, 5])}]  # fmt: skip
    proposals = Proposals(boxes, torch.tensor([0, 1, 2]))
    sampled = sample(proposals, targets, MaxIoUMatcher(0.5, 0.5, best=None), BalancedPositiveNegativeSampler(99, 1.0))
    assert sampled.images.tolist() == [0, 0, 1, 2, 2, 2]
    assert sampled.owners.tolist() == [0, 0, -1, 2, 1, 2]
    assert sampled.added.tolist() == [False, True, False, False, True, True]
    assert labels_of(sampled, targets, background=9).tolist() == [3, 3, 9, 5, 4, 5]
    targets[2]["outlined"] = torch.tensor([True, False])
    assert with_masks(sampled, targets).tolist() == [0, 1, 4]


def test_boxes_are_pooled_from_the_level_of_their_size():
    levels = [torch.full((2, 1, 64 // s, 64 // s), float(s)) for s in (1, 2, 4, 8)]
    levels[0][1] = -1
    boxes = torch.tensor([[0.0, 0, 60, 60], [5, 5, 15, 15], [3, 3, 12, 20], [0, 0, 28, 28]])
    pooled = RoIPool(2, (1, 2, 4, 8))(levels, boxes, torch.tensor([0, 0, 1, 1]))
    assert pooled[:, 0, 0, 0].tolist() == [4, 1, -1, 2]
    assert RoIPool(2, (1, 2, 4, 8))(levels, boxes[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, 1, 2, 2)


def test_masks_are_pasted_on_exact_boxes():
    probs = torch.zeros(4, 28, 28)
    probs[:, :, 14:] = 1
    boxes = torch.tensor([[2.5, 1.0, 7.5, 5.0], [-4.0, -4.0, 4.0, 4.0], [3.0, 3.0, 3.0, 3.0], [90.0, 90.0, 99.0, 99.0]])
    masks = paste_masks(probs, boxes, (6, 9))
    assert masks.shape == (4, 6, 9)
    assert torch.where(masks[0].any(0))[0].tolist() == [5, 6, 7]  # the step lies at x = 5, the box ends within column 7
    assert torch.where(masks[0].any(1))[0].tolist() == [1, 2, 3, 4]
    assert masks[1].sum() == 16
    assert masks[2].sum() <= 4  # a box without area: as in mmdet, the pixels around it
    assert not masks[3].any()


def test_mask_targets_are_cut_at_one_half():
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[1, 2:6, 2:6] = True
    targets = mask_targets(mask, torch.tensor([[0.0, 0, 8, 8], [2, 2, 6, 6]]), torch.tensor([1, 1]), 4)
    assert targets[0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert targets[1].sum() == 16


def without_objects(height, width):
    labels = torch.zeros(0, dtype=torch.int64)
    return {"boxes": torch.zeros(0, 4), "labels": labels, "masks": torch.zeros(0, height, width, dtype=torch.bool)}


@pytest.mark.parametrize("autocast", [False, True])
def test_every_parameter_learns_from_a_picture_without_objects(autocast):
    model = tiny(proposals=50)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model.loss(make.picture("none", (70, 90)), [without_objects(70, 90)])
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert losses["loss_mask"] == losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0
    parts = sum(value.item() for name, value in losses.items() if name != "loss")
    assert losses["loss"].item() == pytest.approx(parts, rel=1e-5)


def test_bfloat16_keeps_losses_and_boxes():
    torch.manual_seed(0)
    model = tiny(rpn_samples=make.MANY, roi_samples=4 * make.MANY)
    images, targets = make.training_batch()
    sizes = torch.tensor(make.TRAINED)
    exact = model.loss(images, targets, sizes)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.loss(images, targets, sizes)
        found = model.eval()(images)
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        assert rough[name].item() == pytest.approx(value.item(), rel=0.1, abs=1e-3), name
    assert all(value.dtype == torch.float32 for value in (found.boxes, found.mask_probs))


def test_rows_of_the_background_stay_zero():
    torch.manual_seed(0)
    model = tiny(proposals=100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    images, targets = make.training_batch()
    model.loss(images, targets, torch.tensor(make.TRAINED))["loss"].backward()
    optimizer.step()
    boxes, masks = model.roi_heads.box_predictor.bbox_pred, model.roi_heads.mask_predictor.mask_fcn_logits
    for layer, rows in ((boxes, 4), (masks, 1)):
        assert not layer.weight[:rows].any()
        assert not layer.bias[:rows].any()
        assert layer.weight[rows:].all()


def test_it_learns_one_picture():
    torch.manual_seed(0)
    model = tiny(proposals=50, rpn_samples=64, roi_samples=32, anchor_size=4)
    size = (64, 96)
    images, target = make.picture("learn", size), make.truth("learn", size, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(images, [target])["loss"].backward()
        optimizer.step()
    found = model.eval().detect(images)[0]
    overlap = box_iou(target["boxes"], found.boxes) * (target["labels"][:, None] == found.labels)
    best = overlap.max(dim=1)
    assert best.values.min() > 0.7
    masks = found.masks[best.indices]
    union = (masks | target["masks"]).sum((1, 2))
    assert ((masks & target["masks"]).sum((1, 2)) / union).min() > 0.7


def test_raw_output_is_in_pixels_of_the_input(parity):
    images, _ = make.training_batch()
    parity.eval()
    sizes = torch.tensor(make.TRAINED)
    with torch.no_grad():
        outputs = parity(images, sizes)
    raw = parity.postprocess(outputs, whole_sizes(images))
    found = parity.detect(images, sizes, torch.tensor([(300, 448), (75, 95), (128, 224)]))
    for index, (one, detections, (height, width)) in enumerate(zip(raw, found, make.TRAINED, strict=True)):
        assert one.masks.shape == (len(one.boxes), *images.shape[2:])
        assert outputs.mask_probs[index, : len(one.boxes)].shape == (len(one.boxes), 28, 28)
        assert torch.equal(one.boxes, outputs.boxes[index, : len(one.boxes)])
        assert not any(values[index, len(one.boxes) :].any() for values in outputs)
        assert one.boxes.min() >= 0
        assert (one.boxes.amax(0)[2:] <= torch.tensor([width, height])).all()
        assert 0 <= one.labels.min() <= one.labels.max() < make.CLASSES
        torch.testing.assert_close(one.scores, detections.scores)
    torch.testing.assert_close(found[1].boxes, raw[1].boxes / 2)
    assert found[1].masks.shape[1:] == (75, 95)
    assert torch.equal(found[2].masks, raw[2].masks[:, :128, :224])


def test_nothing_found_is_an_empty_answer():
    found = tiny(score_threshold=0.99).eval().detect(make.picture("none", (64, 64)))[0]
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, 64, 64)


def test_wrong_targets_are_refused():
    images, target = make.picture("none", (64, 64)), make.truth("none", (64, 64), 2)
    with pytest.raises(UserError, match="target 0 has no `masks`"):
        tiny().loss(images, [{name: target[name] for name in ("boxes", "labels")}])
    with pytest.raises(UserError, match=r"labels from 5 to 5, but the model has 5 classes"):
        tiny().loss(images, [{**target, "labels": torch.tensor([5, 5])}])


def test_objects_without_a_mask_teach_boxes_alone():
    images, targets = make.training_batch()
    sizes = torch.tensor(make.TRAINED)
    known = [torch.arange(len(target["labels"])) % 2 == 0 for target in targets]
    partly = [{**target, "outlined": rows} for target, rows in zip(targets, known, strict=True)]
    model = tiny(rpn_samples=make.MANY, roi_samples=4 * make.MANY).train()

    def losses(targets):
        torch.manual_seed(0)
        return {name: value.item() for name, value in model.loss(images, targets, sizes=sizes).items()}

    whole = losses(targets)
    assert losses([{**t, "outlined": torch.ones(len(t["labels"]), dtype=torch.bool)} for t in targets]) == whole
    wrong = [{**t, "masks": t["masks"] & k[:, None, None]} for t, k in zip(partly, known, strict=True)]
    assert losses(partly) == losses(wrong), "the mask of an object without one is not looked at"
    assert losses(partly)["loss_mask"] != whole["loss_mask"]
    same = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
    assert all(losses(partly)[name] == whole[name] for name in same)
    bare = [{**t, "outlined": torch.zeros(len(t["labels"]), dtype=torch.bool)} for t in targets]
    assert losses(bare)["loss_mask"] == 0
    model.loss(images, bare, sizes=sizes)["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_more_detections_than_there_were_proposals():
    model = tiny(proposals=20, detections=5, score_threshold=0.0).eval()
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert len(model.detect(image)[0]) == model.detections == 5
    model.detections = 60
    assert 20 < len(model.detect(image)[0]) <= 60
