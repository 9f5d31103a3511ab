"""Sparse R-CNN beside mmdetection 2.11: detections, losses, gradients; and what each of its peculiarities changes."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import focalnet
from focalnet.errors import UserError
from focalnet.models.detection import matching
from focalnet.models.detection.boxes import BoxCoder, clip
from focalnet.models.sparse_rcnn import heads
from focalnet.models.sparse_rcnn import model as sparse
from focalnet.models.sparse_rcnn.layouts import LAYOUTS
from focalnet.weights.hub import find

FIXTURE = Path(__file__).parents[2] / "fixtures" / "sparse_rcnn"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
with np.load(FIXTURE / "reference.npz") as file:
    NAMES = set(file["names"])
    REFERENCE = {name: torch.from_numpy(file[name]) for name in file.files if name != "names"}
MMDET = LAYOUTS[0]


@pytest.fixture
def drawn() -> sparse.SparseRCNN:
    return MADE["network"]()


@pytest.fixture
def taught() -> sparse.SparseRCNN:
    return MADE["network"](MADE["TAUGHT"])


def detections_differ(model: sparse.SparseRCNN, case: str, dtype: torch.dtype = torch.float32) -> list[str]:
    """What is not mmdetection's in the detections of a case."""
    images, sizes = MADE["batch"](case)
    with torch.no_grad():
        outputs = model.to(dtype)(images.to(dtype), sizes)
    pixels, share = (2e-1, 1e-5) if dtype == torch.float32 else (1e-6, 1e-9)
    wrong = []
    for index in range(len(images)):
        boxes, labels = (REFERENCE[f"{case}.{index}.{name}"] for name in ("boxes", "labels"))
        if (outputs.scores[index] - boxes[:, 4]).abs().max() > share:
            wrong.append("scores")
        if (outputs.boxes[index] - boxes[:, :4]).abs().max() > pixels:
            wrong.append("boxes")
        if not torch.equal(outputs.labels[index], labels):
            wrong.append("labels")
    return wrong


def losses_differ(model: sparse.SparseRCNN, then: Callable[[], None] = lambda: None) -> list[str]:
    """Terms and norms of gradients of a training step that are not mmdetection's; `then` happens after the backbone."""
    images, sizes = MADE["batch"]("padded")
    images = images.double()
    model.double()
    maps = [level.detach().requires_grad_() for level in model.backbone.body(model.backbone.whole_positions(images))]
    then()
    model.backbone.body.forward = lambda x: maps
    losses = model.loss(images, MADE["truth"](), sizes)
    losses["loss"].backward()
    found = {f"loss.{name}": value.item() for name, value in losses.items() if name != "loss"}
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    found |= {f"gradient.{name}": float(g.norm()) for name, g in MMDET.write(gradients).items()}
    wanted = {name: float(x) for name, x in REFERENCE.items() if name.startswith(("loss.", "gradient."))}
    wrong = [name for name, x in wanted.items() if abs(found.get(name, 0) - x) > 1e-5 * abs(x) + 1e-9]
    norms = torch.stack([level.grad.norm() for level in maps if level.grad is not None])
    return wrong + (["maps"] if not torch.allclose(norms, REFERENCE["gradients"], rtol=1e-5) else [])


@pytest.mark.parametrize("case", MADE["CASES"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_detections_of_mmdetection(drawn, case, dtype):
    assert detections_differ(drawn, case, dtype) == []


def test_the_losses_and_gradients_of_mmdetection(taught):
    assert losses_differ(taught) == []


def test_the_losses_of_mmdetection_in_single_precision(taught):
    images, sizes = MADE["batch"]("padded")
    losses = taught.loss(images, MADE["truth"](), sizes)
    assert len(losses) == 1 + 18
    for name, value in losses.items():
        if name != "loss":
            assert value.item() == pytest.approx(float(REFERENCE[f"loss.{name}"]), rel=1e-4), name


def test_the_names_of_mmdetection(drawn):
    assert {name for name in MMDET.write(drawn.state_dict()) if not name.startswith("backbone.")} == NAMES


def unpadded_forgotten(model, monkeypatch):
    extents = sparse.extents
    monkeypatch.setattr(sparse, "extents", lambda sizes, like: extents(sizes.amax(0).expand_as(sizes), like))


def samples_adaptive(model, monkeypatch):
    model.pool.samples = 0


def levels_from_224(model, monkeypatch):
    model.pool.strides = tuple(stride * 2 for stride in model.pool.strides)


def boxes_clipped(model, monkeypatch):
    decode = model.coder.decode_single
    size = torch.tensor([[150, 224]])
    monkeypatch.setattr(model.coder, "decode_single", lambda codes, boxes: clip(decode(codes, boxes), size))


def other_stds(model, monkeypatch):
    model.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))


def starts_are_corners(model, monkeypatch):
    monkeypatch.setattr(sparse, "corners", lambda boxes: boxes)


def channels_first(model, monkeypatch):
    for stage in model.roi_head.bbox_head:
        weight = stage.instance_interactive_conv.fc_layer.weight.data
        weight.copy_(weight.unflatten(1, (-1, heads.POOLED**2)).transpose(1, 2).flatten(1))


def matrices_swapped(model, monkeypatch):
    for stage in model.roi_head.bbox_head:
        layer = stage.instance_interactive_conv.dynamic_layer
        layer.weight.data = layer.weight.data.roll(len(layer.bias) // 2, 0)


def attention_not_added(model, monkeypatch):
    forward = heads.Attention.forward
    monkeypatch.setattr(heads.Attention, "forward", lambda self, x: forward(self, x) - x)


def no_last_relu(model, monkeypatch):
    relu, whole = heads.F.relu, heads.DynamicConv.forward

    def forward(self, features, pooled):
        with monkeypatch.context() as inner:
            inner.setattr(heads.F, "relu", lambda x: x if x.ndim == 2 else relu(x))
            return whole(self, features, pooled)

    monkeypatch.setattr(heads.DynamicConv, "forward", forward)


def softmax_scores(model, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "sigmoid", lambda x: x.softmax(-1))


def one_class_per_box(model, monkeypatch):
    topk = torch.Tensor.topk

    def best(x, count, dim):
        x = x.unflatten(1, (-1, MADE["CLASSES"]))
        return topk(x.where(x == x.amax(2, keepdim=True), -1).flatten(1), count, dim=dim)

    monkeypatch.setattr(torch.Tensor, "topk", best)


@pytest.mark.parametrize(
    "mutation",
    [
        unpadded_forgotten, samples_adaptive, levels_from_224, boxes_clipped, other_stds, starts_are_corners,
        channels_first, matrices_swapped, attention_not_added, no_last_relu, softmax_scores, one_class_per_box,
    ],
)  # fmt: skip
def test_what_changes_the_detections(drawn, monkeypatch, mutation):
    mutation(drawn, monkeypatch)
    assert detections_differ(drawn, "padded")


def features_detached(monkeypatch):
    forward = sparse.Stage.forward
    monkeypatch.setattr(sparse.Stage, "forward", lambda self, x, pooled: forward(self, x.detach(), pooled))


def boxes_attached(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "detach", lambda x: x)


def classes_cost_nothing(monkeypatch):
    match = sparse.match
    monkeypatch.setattr(sparse, "match", lambda logits, *rest: match(torch.zeros_like(logits), *rest))


def overlap_costs_nothing(monkeypatch):
    def match(*arguments):
        with monkeypatch.context() as inner:
            inner.setattr(matching, "generalized_iou", lambda one, other, least: torch.zeros(()))
            return matching.match(*arguments)

    monkeypatch.setattr(sparse, "match", match)


def distance_costs_little(monkeypatch):
    def match(logits, boxes, truth, form):
        cost = matching.matching_cost
        with monkeypatch.context() as inner:
            inner.setattr(
                matching, "matching_cost",
                lambda logits, boxes, labels, targets, form: cost(logits, boxes, labels, targets, form)
                - 4 * (boxes[..., None, :] - targets).abs().sum(-1),
            )  # fmt: skip
            return matching.match(logits, boxes, truth, form)

    monkeypatch.setattr(sparse, "match", match)


def first_stage_matches_for_all(monkeypatch):
    match = sparse.match

    def once(logits, boxes, *rest):
        return match(logits[:1].expand_as(logits), boxes[:1].expand_as(boxes), *rest)

    monkeypatch.setattr(sparse, "match", once)


def centres_compared(monkeypatch):
    centred = matching.Form(matching.corners, matching.centred, 1e-12, 1e-12)
    monkeypatch.setattr(
        sparse, "set_losses",
        lambda logits, boxes, pairs, truth, form: matching.set_losses(
            logits, matching.centred(boxes), pairs, matching.Truth(
                matching.centred(truth.boxes), truth.labels, truth.images, truth.places, truth.counts
            ), centred,
        ),
    )  # fmt: skip


def divided_by_images(monkeypatch):
    monkeypatch.setattr(sparse, "average_count", lambda count: torch.tensor(2.0))


def weights_of_dino(monkeypatch):
    monkeypatch.setitem(sparse.WEIGHTS, "loss_cls", 1.0)


@pytest.mark.parametrize(
    "mutation",
    [
        features_detached, boxes_attached, classes_cost_nothing, overlap_costs_nothing, distance_costs_little,
        first_stage_matches_for_all, centres_compared, divided_by_images, weights_of_dino,
    ],
)  # fmt: skip
def test_what_changes_the_losses(taught, monkeypatch, mutation):
    assert losses_differ(taught, lambda: mutation(monkeypatch))


@pytest.mark.parametrize(
    ("field", "millions", "gigamacs"),
    [pytest.param("srf", 110.528, 175.72, marks=pytest.mark.slow), ("lrf", 111.216, 181.30)],
)
def test_the_published_sizes(field, millions, gigamacs):
    """At 1280 x 800. The paper gives 110.5 / 111.2 M and 172 / 178 G; its counter sees no product of two results."""
    model = focalnet.create_model(f"sparse_rcnn_focalnet_tiny_{field}", device="meta").eval()
    with FlopCounterMode(display=False) as counter:
        model.backbone(torch.empty(1, 3, 800, 1280, device="meta"))
        features = torch.empty(1, 300, 256, device="meta")
        for stage in model.roi_head.bbox_head:
            features = stage(features, torch.empty(300, 256, 7, 7, device="meta"))[2]
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 3) == millions
    assert counter.get_total_flops() / 2e9 == pytest.approx(gigamacs, abs=0.01)
    assert model.spec.architecture.focal_windows == (11, 9, 9, 7)


def test_proposals_begin_as_the_whole_image_and_scores_low():
    model = focalnet.create_model("sparse_rcnn_minifocal_128", num_classes=3, start="image")
    assert model.rpn_head.init_proposal_bboxes.weight.unique(dim=0).tolist() == [[0.5, 0.5, 1, 1]]
    assert model.rpn_head.init_proposal_features.weight.std().item() == pytest.approx(1, abs=0.1)
    assert model.roi_head.bbox_head[0].fc_cls.bias.sigmoid().tolist() == [pytest.approx(0.01)] * 3


@pytest.mark.parametrize(("number", "rows", "columns"), [(1, 1, 1), (7, 2, 4), (30, 5, 6), (300, 17, 18)])
def test_proposals_may_begin_on_a_grid(number, rows, columns):
    """Row by row, each two cells wide and high: every place but those of the missing cells is in a box."""
    boxes = heads.grid(number)
    assert boxes[:, 2:].unique(dim=0).tolist() == [[pytest.approx(2 / columns), pytest.approx(2 / rows)]]
    places = [[column + 0.5, row + 0.5] for row in range(rows) for column in range(columns)][:number]
    torch.testing.assert_close(boxes[:, :2] * torch.tensor([columns, rows]), torch.tensor(places))


def test_the_proposals_of_small_networks_begin_on_a_grid():
    model = focalnet.create_model("sparse_rcnn_minifocal_128", num_classes=3)
    assert torch.equal(model.rpn_head.init_proposal_bboxes.weight, heads.grid(30))
    assert model.rpn_head.init_proposal_features.weight.std().item() == pytest.approx(1, abs=0.1)


def test_weights_begin_where_they_were_left(tmp_path):
    """The start is no fact of a file: a run of another start goes on."""
    model = focalnet.create_model("sparse_rcnn_minifocal_128", num_classes=3, start="image")
    focalnet.save_pretrained(model, tmp_path)
    again = focalnet.create_model("sparse_rcnn_minifocal_128", weights=tmp_path)
    assert torch.equal(again.rpn_head.init_proposal_bboxes.weight, model.rpn_head.init_proposal_bboxes.weight)
    with pytest.raises(UserError, match="start"):
        focalnet.create_model("sparse_rcnn_minifocal_128", num_classes=3, start="centre")


def test_a_file_of_mmdetection_is_read_strictly(drawn, tmp_path):
    weights = MMDET.write(drawn.state_dict())
    torch.save({"state_dict": weights, "meta": {"epoch": 36}}, tmp_path / "sparse.pth")
    again = focalnet.create_model(weights=tmp_path / "sparse.pth", detections=MADE["FOUND"])
    assert (again.spec.head, again.spec.num_classes) == ("sparse_rcnn", MADE["CLASSES"])
    assert again.options == drawn.options
    assert all(torch.equal(tensor, drawn.state_dict()[name]) for name, tensor in again.state_dict().items())
    back = MMDET.write(again.state_dict())
    assert list(back) == list(weights)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_names_that_do_not_belong_are_told(drawn, tmp_path):
    odd = {"roi_head.bbox_head.0.modulation.f.weight": torch.zeros(3), "roi_head.bbox_head.5.extra": torch.zeros(1)}
    torch.save({"state_dict": MMDET.write(drawn.state_dict()) | odd}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="2 unexpected") as error:
        focalnet.create_model(weights=tmp_path / "odd.pth")
    assert all(name in str(error.value) for name in odd)
    torch.save({"state_dict": MMDET.write(drawn.state_dict()) | {"extra.weight": torch.zeros(1)}}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"extra\.weight"):
        focalnet.create_model(weights=tmp_path / "odd.pth")


def test_the_released_file_is_known_and_not_fetched():
    row = find("focalnet_tiny_lrf", head="sparse_rcnn")
    assert "FocalNet#30" in row.unreachable


def test_a_batch_without_objects_teaches_the_background(drawn):
    images, sizes = MADE["batch"]("padded")
    nothing = MADE["truth"]()[1]
    losses = drawn.loss(images, [nothing, nothing], sizes)
    assert all(losses[f"stage{stage}_{term}"] == 0 for stage in range(6) for term in ("loss_bbox", "loss_iou"))
    assert torch.isfinite(losses["loss"])
    losses["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in drawn.parameters() if p.grad is not None)


def test_more_objects_than_proposals():
    model = focalnet.create_model("sparse_rcnn_minifocal_128", num_classes=3, num_queries=2, stages=1)
    boxes = torch.tensor([[0.0, 0, 30, 30], [10, 10, 60, 60], [20, 40, 90, 100]])
    losses = model.loss(torch.randn(1, 3, 64, 96), [{"boxes": boxes, "labels": torch.tensor([0, 1, 2])}])
    assert torch.isfinite(losses["loss"])


def test_the_number_of_detections_is_set(drawn):
    images, _ = MADE["batch"]("odd")
    drawn.detections = 3
    assert len(drawn.detect(images)[0].scores) == 3
    drawn.detections = 1000  # all pairs of a proposal and a class
    assert len(drawn.detect(images)[0].scores) == MADE["PROPOSALS"] * MADE["CLASSES"]


@pytest.mark.parametrize("options", [{"channels": 20}, {"stages": 0}])
def test_options_that_do_not_fit(options):
    with pytest.raises(UserError, match="make the channels a multiple of the heads"):
        focalnet.create_model("sparse_rcnn_minifocal_128", num_classes=3, **options)
