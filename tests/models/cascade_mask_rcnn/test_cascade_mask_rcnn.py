"""Cascade Mask R-CNN beside mmdetection 2.11 (`fixtures/cascade_mask_rcnn/make.py`), and mutants of it that this
comparison catches."""

import importlib.util
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.utils.flop_counter import FlopCounterMode

import focalnet
from focalnet.errors import UserError
from focalnet.models.cascade_mask_rcnn.layouts import LAYOUTS
from focalnet.models.cascade_mask_rcnn.model import CascadeMaskRCNN
from focalnet.models.detection.boxes import inside_image
from focalnet.models.registry import families
from focalnet.variants import FocalNetConfig

FIXTURE = Path(__file__).parents[2] / "fixtures" / "cascade_mask_rcnn"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
PICTURE = MADE["SHARED"]["picture"]
REFERENCE = np.load(FIXTURE / "reference.npz")
MMDET, OWN = LAYOUTS
SMALL = FocalNetConfig(embed_dim=8, depths=(1, 1, 1, 1), focal_levels=(1,), focal_windows=(3,))


def tiny(num_classes=3, **options):
    options = {"fpn_channels": 8, "representation_size": 8, "head_depth": 1, "proposals": 30} | options
    return CascadeMaskRCNN(SMALL, num_classes=num_classes, options=CascadeMaskRCNN.Options(**options))


def assert_detections(model, case, *, pixels, score, wrong):
    """Those of mmdetection, found with another rank maybe; `wrong` is the share of pixels of masks that may differ."""
    size, original = MADE["CASES"][case]
    image = PICTURE(case, size).to(next(model.parameters()).dtype)
    found = model.eval().detect(image, original_sizes=torch.tensor([original]))[0]
    boxes, scores, labels = (torch.from_numpy(REFERENCE[f"{case}_{key}"]) for key in ("boxes", "scores", "labels"))
    masks = torch.from_numpy(np.unpackbits(REFERENCE[f"{case}_masks"])[: len(boxes) * original[0] * original[1]])
    masks = masks.view(len(boxes), *original).bool()
    assert len(found) == len(boxes) > 50
    rows, others = (  # boxes without area are found too, some of them twice: overlaps tell nothing
        torch.cat([one.double(), 1e2 * two.double(), 1e6 * three[:, None]], dim=1)
        for one, two, three in ((boxes, scores, labels), (found.boxes, found.scores[:, None], found.labels))
    )
    match = torch.from_numpy(linear_sum_assignment(torch.cdist(rows, others, p=float("inf")).numpy())[1])
    assert torch.equal(found.labels[match], labels)
    assert (found.boxes[match] - boxes).abs().max() <= pixels
    assert (found.scores[match] - scores[:, 0]).abs().max() <= score
    assert (found.masks[match] ^ masks).sum() <= wrong * masks.numel()


def assert_step(model):
    """The losses of mmdetection, the gradients, and the statistics of the batch norms behind it."""
    images, targets = MADE["training_batch"]()
    targets = [{**target, "boxes": target["boxes"].double()} for target in targets]
    maps: list[torch.Tensor] = []

    def keep(module, inputs, output):
        maps.extend(level.detach().requires_grad_() for level in output)
        return tuple(maps)

    model.backbone.body.register_forward_hook(keep)
    losses = model.double().train().loss(images.double(), targets, torch.tensor(MADE["TRAINED"]))
    names = {"loss_rpn_cls": "loss_objectness", "loss_rpn_bbox": "loss_rpn_box_reg"}
    terms = [losses[names.get(str(name), str(name))].item() for name in REFERENCE["loss_names"]]
    assert len(terms) == len(losses) - 1 == 11
    np.testing.assert_allclose(terms, REFERENCE["losses"], rtol=1e-6)
    np.testing.assert_allclose(losses["loss"].item(), REFERENCE["losses"].sum(), rtol=1e-6)
    losses["loss"].backward()
    norms = [level.grad.norm().item() for level in maps if level.grad is not None]
    np.testing.assert_allclose(norms, REFERENCE["map_gradients"], rtol=1e-5)
    state = model.state_dict()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    gradients = MMDET.write({name: gradients.get(name, state[name]) for name in state})
    norms = [gradients[str(name)].norm().item() for name in REFERENCE["grad_names"]]
    np.testing.assert_allclose(norms, REFERENCE["gradients"], rtol=1e-5, atol=1e-9)
    written = MMDET.write(state)
    statistics = [written[str(name)].norm().item() for name in REFERENCE["names"] if "running" in str(name)]
    np.testing.assert_allclose(statistics, REFERENCE["statistics"], rtol=1e-6)


@pytest.mark.parametrize("case", MADE["CASES"])
def test_the_detections_of_mmdetection(case):
    assert_detections(MADE["network"]().double(), case, pixels=1e-6, score=1e-8, wrong=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", MADE["CASES"])
def test_the_detections_of_mmdetection_in_float32(case):
    """These random weights, whose classes are drawn 25 times as wide, enlarge its rounding in the scores."""
    assert_detections(MADE["network"](), case, pixels=1e-2, score=1e-4, wrong=1e-5)


def test_a_training_step_of_mmdetection():
    assert_step(MADE["network"]())


HEADS, MODEL = "cascade_mask_rcnn.heads", "cascade_mask_rcnn.model"
ORDER = ("detection.boxes", "detection.proposals", "detection.regions", "detection.sampling", "detection.two_stage",
         HEADS, MODEL)  # fmt: skip
FOUND = {
    "probabilities averaged": (
        HEADS, ("total = logits", "total = logits.softmax(-1)"), ("total + logits", "total + logits.softmax(-1)"),
        ("(total / len(STAGES)).softmax(-1)", "(total / len(STAGES))"),
    ),
    "the last stage's classes": (HEADS, ("total = total + logits", "total = 3 * logits")),
    "mask logits averaged": (
        HEADS, (", label).sigmoid() for", ", label) for"), ("sum(0) / len(masks))", "sum(0).div(3).sigmoid())"),
    ),
    "the last stage's masks": (HEADS, ("for stage in range(len(STAGES))]", "for stage in [2]]")),
    "one box for all classes": (HEADS, ("labels]\n        return clip", "0 * labels]\n        return clip")),
    "stds of the first stage": (HEADS, ("(0.05, 0.05, 0.1, 0.1)", "(0.1, 0.1, 0.2, 0.2)")),
    "stds of the last stage": (HEADS, ("(0.033, 0.033, 0.067, 0.067)", "(0.05, 0.05, 0.1, 0.1)")),
    "boxes beyond the image": (
        HEADS, ("return clip(self.coders[stage].decode_single(codes, boxes), sizes)",
                "return self.coders[stage].decode_single(codes, boxes)"),
    ),
    "twice the proposals": (MODEL, ("= num_classes, options.proposals", "= num_classes, 2 * options.proposals")),
    "classes suppress each other": (HEADS, ("boxes, score, label, images,\n", "boxes, score, 0 * label, images,\n")),
}  # fmt: skip
TRAINED = {
    "anchors beyond the image": (MODEL, ("only_inside=True", "only_inside=False")),
    "L1 for anchors": (MODEL, ("beta=BETA", "beta=0.0")),
    "as many proposals": (MODEL, ("(2 * options.proposals, options.proposals)", "(options.proposals,) * 2")),
    "the best box": (HEADS, ("best=None", "best=stage.overlap")),
    "objects stay": (HEADS, ("torch.where(~added)[0]", "torch.arange(len(added))")),
    "objects in the first stage only": (
        HEADS, ("owners, added = sampled\n",
                "owners, added = sampled = type(sampled)(*(x[~sampled.added | (index == 0)] for x in sampled))\n"),
    ),
    "an overlap of 0.5": (HEADS, ("0.6, 0.5)", "0.5, 0.5)")),
    "weights of one": (HEADS, ("0.7, 0.25)", "0.7, 1.0)")),
    "GIoU over the objects' boxes": (HEADS, ("* apart / count", "* apart / max(len(positive), 1)")),
    "GIoU of clipped boxes": (
        HEADS, ("label[positive]], boxes[positive])\n",
                "label[positive]], boxes[positive])\n            found = clip(found, sizes[images[positive]])\n"),
    ),
    "one box for all classes": (HEADS, ("codes[positive, label[positive]]", "codes[positive, 0]")),
    "the background's code": (HEADS, ("owners >= 0, logits[:, :-1].argmax(1))", "owners >= 0, 0 * label)")),
    "gradients between stages": (HEADS, ("codes[kept].detach()", "codes[kept]")),
    "batch norms at rest": (HEADS, ("norm(self.conv(x))", "norm.eval()(self.conv(x))")),
    "another momentum": (HEADS, ("nn.BatchNorm2d(channels)", "nn.BatchNorm2d(channels, momentum=0.01)")),
}  # fmt: skip
"""What is wrong -> the module, and what is written in it instead."""


def mutant(monkeypatch, where, *changes):
    """The network of the reference, with some of the source changed."""
    for name in ORDER:
        spec = importlib.util.find_spec(f"focalnet.models.{name}")
        module, source = importlib.util.module_from_spec(spec), Path(spec.origin).read_text()
        for old, new in changes if name == where else ():
            assert source.count(old) == 1, old
            source = source.replace(old, new)
        monkeypatch.setitem(sys.modules, spec.name, module)
        exec(compile(source, spec.origin, "exec"), module.__dict__)
    return MADE["network"]().double()


@pytest.mark.slow
def test_a_mutant_without_a_change_passes(monkeypatch):
    model = mutant(monkeypatch, HEADS)
    assert type(model) is not CascadeMaskRCNN
    assert_step(model)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", FOUND)
def test_wrong_detections_are_noticed(wrong, monkeypatch):
    model = mutant(monkeypatch, *FOUND[wrong])
    with pytest.raises(AssertionError):
        assert_detections(model, "odd", pixels=1e-2, score=1e-4, wrong=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", TRAINED)
def test_wrong_steps_are_noticed(wrong, monkeypatch):
    model = mutant(monkeypatch, *TRAINED[wrong])
    with pytest.raises(AssertionError):
        assert_step(model)


@pytest.fixture(scope="module")
def published():
    """A file of mmdetection: every number another one."""
    state = MMDET.write(MADE["network"]().state_dict())
    return {name: torch.randn_like(x) if x.is_floating_point() else x + 7 for name, x in state.items()}


def test_the_names_of_mmdetection(published):
    assert {name for name in published if not name.startswith("backbone.")} == set(REFERENCE["names"])


def test_a_file_of_mmdetection_is_read_strictly_and_written_the_same(published, tmp_path):
    torch.save({"state_dict": published, "meta": {"epoch": 36}}, tmp_path / "cascade.pth")
    model = focalnet.create_model(weights=tmp_path / "cascade.pth")
    assert (model.spec.head, model.spec.num_classes) == ("cascade_mask_rcnn", MADE["CLASSES"])
    assert model.spec.head_options == {"fpn_channels": 32, "representation_size": 64, "head_depth": 4}
    written = MMDET.write(model.state_dict())
    assert list(written) == list(published)
    assert all(written[name].numpy().tobytes() == x.numpy().tobytes() for name, x in published.items())
    torch.save({"state_dict": published | {"roi_head.odd.weight": torch.zeros(1)}}, tmp_path / "more.pth")
    short = {name: x for name, x in published.items() if name != "roi_head.bbox_head.1.shared_convs.2.bn.running_var"}
    torch.save({"state_dict": short}, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"roi_head\.odd\.weight"):
        focalnet.create_model(weights=tmp_path / "more.pth")
    with pytest.raises(UserError, match=r"bbox_head\.1\.shared_convs\.2\.bn\.running_var"):
        focalnet.create_model(weights=tmp_path / "short.pth")


def test_layouts_are_told_apart(published):
    layouts = [layout for family in families() for layout in family.layout_tables]
    assert [layout for layout in layouts if layout.matches(published)] == [MMDET]
    assert [layout for layout in layouts if layout.matches(MMDET.read(published))] == [OWN]


def test_an_overlapped_stem_is_padded_as_the_published_ones():
    model = focalnet.create_model("cascade_mask_rcnn_focalnet_tiny_srf_overlap", device="meta")
    state = model.state_dict()
    assert model.spec.architecture.stem_padding == 3
    assert MMDET.facts(state).architecture == OWN.facts(state).architecture == {"stem_padding": 3}


@pytest.mark.parametrize(("field", "parameters"), [("srf", 86.417), ("lrf", 87.105)])
def test_the_published_sizes(field, parameters):
    model = focalnet.create_model(f"cascade_mask_rcnn_focalnet_tiny_{field}", device="meta")
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 3) == parameters
    assert model.spec.architecture.focal_windows == (11, 9, 9, 7)
    assert model.rpn._pre_nms_top_n == model.rpn._post_nms_top_n == {"training": 2000, "testing": 1000}
    assert (model.rpn.fg_bg_sampler.batch_size_per_image, model.roi_head.sampler.batch_size_per_image) == (256, 512)
    assert model.detections == 100


@pytest.mark.slow
@pytest.mark.parametrize(("field", "gmacs"), [("srf", 744.96), ("lrf", 750.54)])
def test_multiplications_at_the_published_size(field, gmacs):
    """Those of convolutions and matrices, with 1000 boxes and 100 masks: the paper's counter adds the norms."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = focalnet.create_model(f"cascade_mask_rcnn_focalnet_tiny_{field}", device="meta").eval()
        model.rpn.head(model.backbone(torch.empty(1, 3, 800, 1280)))
        for boxes, masks in zip(model.roi_head.bbox_head, model.roi_head.mask_head, strict=True):
            boxes(torch.empty(1000, 256, 7, 7))
            masks(torch.empty(100, 256, 14, 14))
    assert round(counter.get_total_flops() / 2e9, 2) == gmacs


def test_random_weights_begin_as_the_official_ones():
    torch.manual_seed(0)
    model = tiny(fpn_channels=32, representation_size=64)
    for boxes, masks in zip(model.roi_head.bbox_head, model.roi_head.mask_head, strict=True):
        deviations = {
            boxes.fc_cls: 0.01, boxes.fc_reg: 0.001, masks.conv_logits: (2 / 3) ** 0.5,
            boxes.shared_convs[0].conv: (2 / 32 / 9) ** 0.5, masks.convs[0].conv: (2 / 32 / 9) ** 0.5,
            boxes.shared_fcs[0]: (2 / (64 + 32 * 49)) ** 0.5,
        }  # fmt: skip
        for layer, deviation in deviations.items():
            assert layer.weight.std().item() == pytest.approx(deviation, rel=0.3)
            assert layer.bias is None or not layer.bias.any()
        assert boxes.shared_convs[0].conv.bias is None
    assert not torch.equal(model.roi_head.bbox_head[0].fc_cls.weight, model.roi_head.bbox_head[1].fc_cls.weight)


def test_class_parameters_are_those_that_depend_on_the_classes():
    shapes = [{name: x.shape for name, x in tiny(n).state_dict().items()} for n in (3, 4)]
    assert set(tiny().class_parameters()) == {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}


def test_anchors_wholly_inside_the_image():
    anchors = torch.tensor([[0.0, 0, 9, 7], [0, 0, 10, 7], [-0.1, 0, 9, 7], [0, 1, 9, 8], [1, -1, 2, 2]])
    assert inside_image(anchors, 8, 10).tolist() == [True, False, False, False, False]


def without_objects(height, width):
    labels = torch.zeros(0, dtype=torch.int64)
    return {"boxes": torch.zeros(0, 4), "labels": labels, "masks": torch.zeros(0, height, width, dtype=torch.bool)}


@pytest.mark.parametrize("autocast", [False, True])
def test_every_parameter_learns_from_an_image_without_objects(autocast):
    model = tiny()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model.loss(PICTURE("none", (70, 90)), [without_objects(70, 90)])
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    nothing = [name for name, value in losses.items() if not value]
    assert nothing == ["loss_rpn_box_reg", *(f"s{s}.loss_{kind}" for s in range(3) for kind in ("bbox", "mask"))]
    assert all(value.dtype == torch.float32 for value in losses.values())


def test_an_image_smaller_than_every_anchor_teaches_the_second_stage():
    target = {"boxes": torch.tensor([[2.0, 2, 14, 15]]), "labels": torch.tensor([1]),
              "masks": torch.ones(1, 16, 16, dtype=torch.bool)}  # fmt: skip
    losses = tiny().loss(PICTURE("none", (16, 16)), [target])
    losses["loss"].backward()
    assert losses["loss_objectness"] == losses["loss_rpn_box_reg"] == 0
    assert all(losses[f"s{stage}.loss_{kind}"] > 0 for stage in range(3) for kind in ("cls", "bbox", "mask"))


def test_objects_without_a_mask_teach_boxes_alone():
    images, targets = MADE["training_batch"]()
    sizes = torch.tensor(MADE["TRAINED"])
    model = tiny(MADE["CLASSES"])
    known = [torch.arange(len(target["labels"])) % 2 == 0 for target in targets]
    partly = [{**target, "outlined": rows} for target, rows in zip(targets, known, strict=True)]
    whole, partial = model.loss(images, targets, sizes), model.loss(images, partly, sizes)
    masks = [f"s{stage}.loss_mask" for stage in range(3)]
    assert all(whole[name] == value for name, value in partial.items() if name not in ("loss", *masks))
    assert all(whole[name] != partial[name] > 0 for name in masks)


def test_more_detections_on_request():
    model = tiny(proposals=10, detections=5, score_threshold=0.0).eval()
    image = PICTURE("none", (96, 96))
    assert len(model.detect(image)[0]) == model.detections == 5
    model.detections = 40
    assert 10 < len(model.detect(image)[0]) <= 40


def test_weights_of_half_precision():
    """Boxes and scores are float32 all the same."""
    images, targets = MADE["training_batch"]()
    model = tiny(MADE["CLASSES"]).bfloat16()
    losses = model.loss(images.bfloat16(), targets, torch.tensor(MADE["TRAINED"]))
    losses["loss"].backward()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    assert {values.dtype for values in model.eval()(images.bfloat16())[:2]} == {torch.float32}


def test_wrong_targets_are_refused():
    images, targets = MADE["training_batch"]()
    with pytest.raises(UserError, match=r"target 0 has no `masks`, from which Cascade Mask R-CNN learns"):
        tiny().loss(images, [{name: target[name] for name in ("boxes", "labels")} for target in targets])
    with pytest.raises(UserError, match="but the model has 3 classes"):
        tiny().loss(images, targets)
