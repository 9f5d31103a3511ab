import sys

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from focalnet.errors import MissingExtraError, UserError
from focalnet.models.dino.model import Dino
from focalnet.models.dino.transformer import Pyramid
from focalnet.variants import FocalNetConfig

TRUNK = FocalNetConfig(embed_dim=8, depths=(1, 1, 1, 1), focal_levels=(1,))
OPTIONS = {
    "num_queries": 12, "hidden_dim": 32, "ffn_dim": 32, "heads": 4, "encoder_layers": 1,
    "decoder_layers": 3, "dn_number": 6,
}  # fmt: skip
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}


def build(seed: int = 0, trunk: FocalNetConfig = TRUNK, num_classes=5, recompute="none", **options) -> Dino:
    """A network whose heads have random weights: fresh ones move no box."""
    torch.manual_seed(seed)
    model = Dino(trunk, num_classes=num_classes, options=Dino.Options(**(OPTIONS | options)), recompute=recompute)
    for name, parameter in model.named_parameters():
        if "_embed." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def pictures(height: int = 70, width: int = 102, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def truth() -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[3.0, 4.0, 50.0, 60.0], [10.0, 20.0, 90.0, 66.0], [5.0, 5.0, 17.0, 30.0]])
    return [{"boxes": boxes, "labels": torch.tensor([1, 4, 1])}, {"boxes": boxes[:1], "labels": torch.tensor([0])}]


def without_gradient(model: Dino) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_predictions_are_finite_and_boxes_lie_in_the_picture():
    outputs = build().eval()(pictures())
    assert outputs.pred_logits.shape == (2, 12, 5)
    assert outputs.pred_boxes.shape == (2, 12, 4)
    assert outputs.pred_boxes.min() >= 0
    assert outputs.pred_boxes.max() <= 1
    assert outputs.pred_boxes.std(1).min() > 1e-3


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("targets", [truth(), [NOTHING, truth()[1]], [NOTHING, NOTHING]])
def test_every_parameter_gets_a_gradient_with_and_without_objects(shared, targets):
    model = build(shared_heads=shared)
    losses = model.loss(pictures(), targets)
    losses["loss"].backward()
    assert without_gradient(model) == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    objects = sum(len(x["labels"]) for x in targets)
    assert ("loss_ce_dn" in losses) == (objects > 0)
    assert (losses["loss_bbox"] > 0) == (objects > 0)
    assert losses["loss_ce"] > 0


def test_total_is_the_weighted_sum_of_the_terms():
    losses = build().loss(pictures(), truth())
    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    total = sum(weights[name.removesuffix("_dn")] * losses[name + layer] for name in
                ("loss_ce", "loss_bbox", "loss_giou", "loss_ce_dn", "loss_bbox_dn", "loss_giou_dn")
                for layer in ("", "_0", "_1"))  # fmt: skip
    total += sum(weight * losses[name + "_interm"] for name, weight in weights.items())
    assert losses["loss"].item() == pytest.approx(total.item(), rel=1e-5)


def test_evaluation_mode_has_no_denoising_and_no_randomness():
    model = build().eval()
    one, other = (model.loss(pictures(), truth()) for _ in range(2))
    assert not any("_dn" in name for name in one)
    assert one["loss"] == other["loss"]
    assert "loss_ce_dn" in model.train().loss(pictures(), truth())


def test_the_order_of_the_objects_does_not_matter():
    model = build().eval()
    turned = [{key: x.flip(0) for key, x in target.items()} for target in truth()]
    assert model.loss(pictures(), turned)["loss"].item() == pytest.approx(
        model.loss(pictures(), truth())["loss"].item()
    )


def test_whole_pictures_need_no_sizes():
    model = build().eval()
    sizes = torch.tensor([[70, 102]] * 2)
    for name, value in model.loss(pictures(), truth()).items():
        assert model.loss(pictures(), truth(), sizes)[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5)


def test_the_transformer_does_not_see_the_padding():
    """But for the queries' places, which the original embeds in units of the padded map; here they are left out.

    There are few queries, for padded tokens all have one score, that of zeros, and must not be among the best.
    """
    transformer = build(num_queries=6).transformer.eval()
    for parameter in transformer.decoder.ref_point_head.parameters():
        torch.nn.init.zeros_(parameter)
    generator = torch.Generator().manual_seed(3)
    wholes = [torch.randn(1, 32, 8 >> level, 16 >> level, generator=generator) for level in range(4)]
    padded = [7 * torch.randn(1, 32, 16 >> level, 24 >> level, generator=generator) for level in range(4)]
    for whole, other in zip(wholes, padded, strict=True):
        other[:, :, : whole.shape[2], : whole.shape[3]] = whole
    alone = transformer(wholes, Pyramid.of(wholes, (64, 128), None), None, None, None)
    pyramid = Pyramid.of(padded, (128, 192), torch.tensor([[64, 128]]))
    together = transformer(padded, pyramid, None, None, None)
    assert alone.hidden.std() > 0.1
    for one, other in zip(alone, together, strict=True):
        assert (one - other).abs().max() < 1e-4


def test_look_forward_twice():
    """The box of layer i is made by head i and, through the reference, by head i - 1; other heads have no part."""
    model = build(shared_heads=False)
    maps, pyramid = model.features(pictures(), None)
    _, boxes = model.predict(model.transformer(maps, pyramid, None, None, None))
    heads = [head.layers[-1].weight for head in model.bbox_embed]
    seen = [
        [
            gradient is not None and bool(gradient.abs().max() > 0)
            for gradient in torch.autograd.grad(layer.sum(), heads, retain_graph=True, allow_unused=True)
        ]
        for layer in boxes
    ]
    assert seen == [[True, False, False], [True, True, False], [False, True, True]]


def test_queries_are_the_best_tokens():
    model = build(num_queries=12).eval()
    maps, pyramid = model.features(pictures(), None)
    transformer = model.transformer
    logits, boxes = transformer.select(transformer.encode(maps, pyramid), pyramid)
    transformer.num_queries = 10**6
    all_logits, all_boxes = transformer.select(transformer.encode(maps, pyramid), pyramid)
    assert all_logits.shape[1] == sum(height * width for height, width in pyramid.shapes)  # no more than there are
    best = all_logits.amax(-1).topk(12).indices
    assert torch.allclose(logits, all_logits.gather(1, best[..., None].expand(-1, -1, 5)), atol=1e-5)
    assert torch.allclose(boxes, all_boxes.gather(1, best[..., None].expand(-1, -1, 4)), atol=1e-5)


def test_small_pictures_give_fewer_queries():
    model = build(num_queries=900)
    tokens = 25 * 33 // 15 + 12
    losses = model.loss(pictures(40, 52), truth())
    losses["loss"].backward()
    assert without_gradient(model) == []
    assert model.eval()(pictures(40, 52)).pred_boxes.shape[1] < tokens


def test_detections_are_in_pixels_of_the_original_picture():
    model = build().eval()
    sizes = torch.tensor([[70, 90], [64, 102]])
    original = torch.tensor([[140, 180], [32, 51]])
    outputs = model(pictures(), sizes=sizes)
    found = model.detect(pictures(), sizes, original, top=7)
    for picture, detections in enumerate(found):
        scores = outputs.pred_logits[picture].sigmoid()
        place = int(scores.argmax())
        query, label = place // 5, place % 5
        cx, cy, w, h = outputs.pred_boxes[picture, query].tolist()
        height, width = original[picture].tolist()
        expected = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        assert detections.boxes[0].tolist() == pytest.approx(expected, abs=1e-3)
        assert detections.labels[0] == label
        assert detections.scores.tolist() == pytest.approx(scores.flatten().sort(descending=True).values[:7].tolist())
        assert detections.masks is None
        assert len(detections) == 7
    whole, resized = (model.detect(pictures(), original_sizes=size)[1] for size in (None, original))
    assert torch.allclose(whole.boxes * 0.5, resized.boxes * torch.tensor([1, 70 / 64, 1, 70 / 64]), atol=1e-4)
    assert len(whole) == 12 * 5  # no more than there are


@pytest.mark.parametrize("recompute", ["none", "block"])
def test_bfloat16_autocast_trains_and_detects(recompute):
    model = build(recompute=recompute)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(pictures(), truth())["loss"]
        assert loss.dtype == torch.float32
    loss.backward()
    assert without_gradient(model) == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    model.eval()
    plain = model(pictures()).pred_boxes
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(pictures()).pred_boxes - plain).abs().mean() < 0.1
        assert model.detect(pictures())[0].boxes.dtype == torch.float32


def test_the_network_can_be_exported():
    model = build(decoder_layers=2, num_feature_levels=3).eval()
    program = torch.export.export(model, (pictures(),))
    for value, expected in zip(program.module()(pictures()), model(pictures()), strict=True):
        assert (value - expected).abs().max() < 1e-5


def test_objects_are_counted_over_all_processes(monkeypatch):
    model = build().eval()
    alone = model.loss(pictures(), truth())
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda count: count.add_(12))  # the other process has 12 objects, this 4
    together = model.loss(pictures(), truth())
    assert together["loss_giou"].item() == pytest.approx(alone["loss_giou"].item() * 4 / 8)


def test_parameters_that_other_classes_need_anew():
    five, seven = (build(num_classes=n).state_dict() for n in (5, 7))
    differ = {name for name in five if five[name].shape != seven[name].shape}
    assert set(build().class_parameters()) == differ


def test_levels_decide_the_stages():
    assert build(num_feature_levels=5).focalnet.out_indices == (0, 1, 2, 3)
    assert build().focalnet.out_indices == (1, 2, 3)
    three = FocalNetConfig(embed_dim=8, depths=(1, 1, 1), focal_levels=(1,), patch_size=2)
    assert build(trunk=three, num_feature_levels=3).focalnet.out_indices == (1, 2)
    assert build(num_feature_levels=3, out_indices=[0, 2]).focalnet.out_indices == (0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_feature_levels": 6}, "num_feature_levels=6; 4 stages give 2 to 5 levels"),
        ({"hidden_dim": 48}, "hidden_dim=48; make it a multiple of 32 and of heads=4"),
        ({"out_indices": (2, 3)}, r"out_indices=\(2, 3\) with num_feature_levels=4; give 3 stages"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


def test_training_without_scipy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingExtraError, match=r"training a detector of queries needs .* \[train\]"):
        build().loss(pictures(), truth())
