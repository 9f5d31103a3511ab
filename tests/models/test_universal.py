import copy
import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch.utils.flop_counter import FlopCounterMode

from focalnet.errors import UserError
from focalnet.models.mask2former.model import Mask2Former, Mask2FormerOutputs
from focalnet.models.mask2former.postprocess import instances, panoptic, semantic
from focalnet.models.upernet.model import IGNORE, UperNet, UperNetOutputs
from focalnet.structures import Segment
from focalnet.variants import FocalNetConfig, get_variant

SMALL = FocalNetConfig(embed_dim=8, depths=(1, 1, 1, 1), focal_levels=2)
FIXTURES = Path(__file__).parents[1] / "fixtures" / "universal"
MAKE = runpy.run_path(str(FIXTURES / "make.py"))


def upernet(num_classes=5, recompute="none", **options) -> UperNet:
    options = UperNet.Options(**{"channels": 16, "aux_channels": 8, **options})
    return UperNet(SMALL, num_classes=num_classes, options=options, recompute=recompute)


def mask2former(architecture=SMALL, num_classes=5, recompute="none", **options) -> Mask2Former:
    small = {
        "num_queries": 12, "hidden_dim": 32, "ffn_dim": 32, "encoder_ffn_dim": 32,
        "encoder_layers": 1, "decoder_layers": 3, "heads": 4, "points": 64,
    }  # fmt: skip
    options = Mask2Former.Options(**{**small, **options})
    return Mask2Former(architecture, num_classes=num_classes, options=options, recompute=recompute)


def things(size: tuple[int, int] = (45, 67)) -> list[dict[str, torch.Tensor]]:
    left = torch.zeros(1, *size, dtype=torch.bool)
    left[:, :, :20] = True
    return [
        {"labels": torch.tensor([1, 3]), "masks": torch.cat([left, ~left])},
        {"labels": torch.zeros(0, dtype=torch.long), "masks": torch.zeros(0, *size, dtype=torch.bool)},
    ]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tiny_srf", 60.82), ("tiny_lrf", 61.57), ("small_srf", 83.06), ("small_lrf", 84.59), ("base_srf", 123.68),
     ("base_lrf", 125.73)],
)  # fmt: skip
def test_parameters_of_the_published_upernets(name, millions):
    with torch.device("meta"):
        model = UperNet(get_variant(f"focalnet_{name}").replace(focal_windows=9))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("tiny_srf", 946),
        ("base_lrf", 1194),
        *(
            pytest.param(name, giga, marks=pytest.mark.slow)
            for name, giga in (("tiny_lrf", 951), ("small_srf", 1037), ("small_lrf", 1045), ("base_srf", 1183))
        ),
    ],
)
def test_multiplications_of_the_published_upernets(name, giga):
    with torch.device("meta"):
        model = UperNet(get_variant(f"focalnet_{name}").replace(focal_windows=9)).eval()
        images = torch.empty(1, 3, 512, 2048)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(images)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, rel=0.01)


def test_parameters_of_mask2former_with_a_large_backbone():
    with torch.device("meta"):
        model = Mask2Former(get_variant("focalnet_large_fl4"), options=Mask2Former.Options(num_queries=200))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(226.1, abs=0.05)


def test_raw_outputs_on_odd_sizes():
    images = torch.randn(2, 3, 45, 67)
    outputs = upernet().eval()(images)
    assert {name: tuple(value.shape) for name, value in outputs._asdict().items()} == {
        "logits": (2, 5, 45, 67),
        "aux_logits": (2, 5, 3, 5),
    }
    outputs = mask2former().eval()(images)
    assert {name: tuple(value.shape) for name, value in outputs._asdict().items()} == {
        "class_logits": (2, 12, 6),
        "mask_logits": (2, 12, 12, 17),
    }


@pytest.mark.parametrize("patch_size", [2, 4])
def test_mask2former_predicts_at_the_stride_of_the_stem(patch_size):
    model = mask2former(architecture=SMALL.replace(patch_size=patch_size)).eval()
    assert model(torch.randn(1, 3, 64, 96)).mask_logits.shape[2:] == (64 // patch_size, 96 // patch_size)


@pytest.mark.parametrize("build", [upernet, mask2former])
def test_every_parameter_learns(build):
    torch.manual_seed(0)
    model = build()
    targets = things() if build is mask2former else torch.randint(0, 5, (2, 45, 67))
    losses = model.loss(torch.randn(2, 3, 45, 67), targets)
    losses["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(value.isfinite() for value in losses.values())


def test_class_parameters_are_those_that_change_shape():
    for build in (upernet, mask2former):
        one, other = build(num_classes=5).state_dict(), build(num_classes=7).state_dict()
        differ = {name for name in one if one[name].shape != other[name].shape}
        assert differ == set(build().class_parameters())


def test_the_trunk_is_ours_and_recomputes():
    for build in (upernet, mask2former):
        model = build(recompute="block")
        assert model.focalnet.config == SMALL
        assert all(stage.recompute == "block" for stage in model.focalnet.layers)
        assert any(name.startswith(model.backbone_prefix + "patch_embed.proj") for name in model.state_dict())


def test_upernet_drops_channels_only_while_training():
    model = upernet(dropout=0.5)
    images = torch.randn(2, 3, 32, 32)
    head = model.net.decode_head.classifier
    zeros = []
    head.drop.register_forward_hook(lambda module, args, out: zeros.append((out.flatten(2).abs().sum(2) == 0).float()))
    model(images)
    model.eval()(images)
    assert zeros[0].mean() > 0.1
    assert zeros[1].mean() < zeros[0].mean()


def test_ignored_pixels_teach_nothing():
    model = upernet(dropout=0.0).eval()
    images = torch.randn(2, 3, 32, 48)
    target = torch.randint(0, 5, (2, 32, 48))
    target[:, :10] = IGNORE
    logits = model(images).logits
    expected = F.cross_entropy(logits[:, :, 10:], target[:, 10:], reduction="sum") / target.numel()
    assert model.loss(images, target)["loss_main"].item() == pytest.approx(expected.item(), rel=1e-5)
    nothing = torch.full_like(target, IGNORE)
    for average in (True, False):
        model.options = dataclasses.replace(model.options, average_ignored=average)
        assert model.loss(images, nothing)["loss"].item() == 0


def test_mask2former_learns_from_pictures_without_objects():
    empty = things()[1:] * 2
    losses = mask2former().loss(torch.randn(2, 3, 45, 67), empty)
    assert losses["loss_mask"].item() == 0
    assert losses["loss_cross_entropy"].item() > 0
    losses["loss"].backward()


def test_losses_under_autocast_are_float32():
    images = torch.randn(2, 3, 45, 67)
    for build, targets in ((upernet, torch.randint(0, 5, (2, 45, 67))), (mask2former, things())):
        model = build()
        with torch.autocast("cpu", torch.bfloat16):
            losses = model.loss(images, targets)
        assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
        losses["loss"].backward()


@torch.no_grad()
def test_the_pixel_decoder_keeps_its_precision_under_autocast():
    """As in the official code: bfloat16 has 8 bits, a place between the pixels of a map needs more."""
    model = mask2former().eval()
    images = torch.randn(1, 3, 64, 96)
    decoder = model.net.model.pixel_level_module.decoder
    seen = []
    decoder.register_forward_hook(lambda module, inputs, outputs: seen.append((inputs[0], outputs)))
    with torch.autocast("cpu", torch.bfloat16):
        model(images)
    maps, outputs = seen[0]
    assert {feature.dtype for feature in maps} & {torch.bfloat16}
    alone = decoder([feature.float() for feature in maps])
    assert torch.equal(outputs.mask_features, alone.mask_features)
    assert all(map(torch.equal, outputs.multi_scale_features, alone.multi_scale_features))


def test_the_deformable_attention_of_mask2former_is_transformers():
    torch.manual_seed(0)
    model = mask2former().double()
    plain = transformers.Mask2FormerForUniversalSegmentation(model.net.config).double()
    assert list(plain.state_dict()) == list(model.net.state_dict())
    theirs = plain.model.pixel_level_module.decoder.encoder.layers[0].self_attn
    ours = model.net.model.pixel_level_module.decoder.encoder.layers[0].self_attn
    for linear in theirs.children():
        torch.nn.init.normal_(linear.weight, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    shapes = [(5, 7), (3, 4), (2, 2)]
    tokens = sum(height * width for height, width in shapes)
    inputs = [torch.randn(2, tokens, theirs.d_model, dtype=torch.float64) for _ in range(2)]
    places = torch.rand(2, tokens, 3, 2, dtype=torch.float64)

    def called(layer, x, embedding):
        mask = torch.zeros(2, tokens, dtype=torch.bool)
        return layer(
            hidden_states=x,
            attention_mask=mask,
            encoder_hidden_states=x,
            encoder_attention_mask=mask,
            position_embeddings=embedding,
            reference_points=places,
            spatial_shapes_list=shapes,
            level_start_index=None,
            output_attentions=False,
        )[0]

    found = []
    for layer in (ours, theirs):
        x, embedding = (value.clone().requires_grad_() for value in inputs)
        values = called(layer, x, embedding)
        values.sin().sum().backward()
        found.append([values, x.grad, embedding.grad, *(p.grad for p in layer.parameters())])
        with torch.no_grad():
            assert (called(layer, x, embedding) - values).abs().max() < 1e-12
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_first_weights_of_mask2former_are_facebookresearchs():
    """Bounds of uniform distributions, from the shapes: xavier, kaiming with a=1, and PyTorch's own for Linear."""
    torch.manual_seed(0)
    model = mask2former(hidden_dim=64, ffn_dim=48, encoder_ffn_dim=80, num_classes=30)
    pixel = model.net.model.pixel_level_module.decoder
    encoder, query = pixel.encoder.layers[0], model.net.model.transformer_module.decoder.layers[0]

    def xavier(tensor: torch.Tensor) -> float:
        return (6 / (tensor.shape[0] + tensor[0].numel())) ** 0.5

    for weight in (pixel.input_projections[0][0].weight, encoder.fc1.weight, encoder.fc2.weight, query.fc1.weight,
                   query.self_attn.out_proj.weight, query.cross_attn.in_proj_weight):  # fmt: skip
        assert weight.flatten(1).abs().max().item() == pytest.approx(xavier(weight.flatten(1)), rel=0.03)
        assert abs(weight.mean().item()) < 0.1 * weight.abs().max().item()
    for linear in (query.self_attn.q_proj, query.self_attn.k_proj, query.self_attn.v_proj):  # one matrix there
        assert linear.weight.abs().max().item() == pytest.approx((6 / (64 + 3 * 64)) ** 0.5, rel=0.03)
        assert linear.bias.abs().max() == 0
    for weight in (pixel.mask_projection.weight, pixel.adapter_1[0].weight, pixel.layer_1[0].weight):
        assert weight.abs().max().item() == pytest.approx((3 / weight[0].numel()) ** 0.5, rel=0.03)
    for linear in (model.net.class_predictor, query.fc1, query.fc2, encoder.fc1, encoder.fc2):
        assert linear.bias.abs().max().item() == pytest.approx(linear.in_features**-0.5, rel=0.15)
    assert model.net.class_predictor.weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.03)
    for bias in (pixel.input_projections[0][0].bias, pixel.mask_projection.bias, query.cross_attn.in_proj_bias):
        assert bias.abs().max() == 0
    for embedding in (pixel.level_embed, *model.embeddings()):
        assert embedding.std().item() == pytest.approx(1, rel=0.2)


def test_mask_losses_are_those_of_the_padded_map():
    """At 45x67 the map of stride 4 covers 48x68 pixels: a mask is compared with that part of the map it stands on."""
    model = mask2former(points=512).eval()
    images, target = torch.randn(1, 3, 45, 67), things()[:1]
    whole = [{"labels": target[0]["labels"], "masks": F.pad(target[0]["masks"], (0, 1, 0, 3))}]
    torch.manual_seed(1)
    one = model.loss(images, target)
    torch.manual_seed(1)
    other = model.loss(F.pad(images, (0, 1, 0, 3)), whole)
    assert other["loss"].item() == pytest.approx(one["loss"].item(), rel=1e-6)


def test_masks_are_counted_over_all_processes(monkeypatch):
    model = mask2former().eval()
    images = torch.randn(2, 3, 45, 67)
    torch.manual_seed(0)
    alone = model.loss(images, things())
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(4))
    torch.manual_seed(0)
    shared = model.loss(images, things())
    assert shared["loss_dice"].item() == pytest.approx(alone["loss_dice"].item() * 2 / 3, rel=1e-5)
    assert shared["loss_cross_entropy"].item() == pytest.approx(alone["loss_cross_entropy"].item(), rel=1e-5)


@pytest.mark.parametrize("build", [upernet, mask2former])
def test_a_copy_is_independent_and_equal(build):
    model = build().eval()
    images = torch.randn(1, 3, 64, 64)
    twin = copy.deepcopy(model)
    expected = [value.clone() for value in model(images)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(map(torch.equal, twin(images), expected))


def test_first_weights_of_the_classifiers():
    for std in (0.01, 0.1):
        model = upernet(channels=256, aux_channels=128, **({} if std == 0.01 else {"classifier_std": std}))
        for head in (model.net.decode_head, model.net.auxiliary_head):
            assert head.classifier.weight.std().item() == pytest.approx(std, rel=0.15)


def test_bad_arguments_are_refused():
    with pytest.raises(UserError, match="four stages, this one has 3"):
        UperNet(get_variant("minifocal_32"))
    with pytest.raises(UserError, match="hidden_dim=40"):
        mask2former(hidden_dim=40)


def test_boxes_alone_teach_mask2former_nothing():
    with pytest.raises(UserError, match="target 0 has no `masks`, from which Mask2Former learns"):
        mask2former().loss(torch.randn(1, 3, 32, 32), [{"labels": torch.tensor([1]), "boxes": torch.ones(1, 4)}])


def test_one_picture_is_too_few_to_learn_from():
    model = upernet()
    with pytest.raises(UserError, match="batch size >= 2"):
        model(torch.randn(1, 3, 32, 32))
    assert model.eval()(torch.randn(1, 3, 32, 32)).logits.shape == (1, 5, 32, 32)


@pytest.mark.parametrize("build", [upernet, mask2former])
def test_the_network_inside_is_plain_transformers(build, tmp_path):
    model = build().eval()
    model.net.save_pretrained(tmp_path)
    net = getattr(transformers, type(model.net).__name__).from_pretrained(tmp_path).eval()
    net = copy.deepcopy(net)  # weights out of a file are not aligned, and some processors add those in another order
    images = torch.randn(1, 3, 64, 64)
    if build is upernet:
        assert torch.equal(net(images).logits, model(images).logits)
    else:  # our deformable attention adds in another order
        theirs, ours = net.double()(images.double()), model.double()(images.double())
        torch.testing.assert_close(theirs.class_queries_logits, ours.class_logits, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(theirs.masks_queries_logits, ours.mask_logits, rtol=1e-10, atol=1e-10)


def test_padding_is_cut_before_the_resize():
    model = upernet().eval()
    logits = torch.randn(2, 5, 40, 60)
    sizes = torch.tensor([[(40, 60), (20, 31)], [(80, 120), (20, 31)]])
    scores = model.semantic(UperNetOutputs(logits, logits), *sizes)
    assert [tuple(score.shape) for score in scores] == [(5, 80, 120), (5, 20, 31)]
    assert torch.allclose(scores[1], logits[1, :, :20, :31].softmax(0))

    model = mask2former()
    outputs = Mask2FormerOutputs(torch.randn(1, 12, 6), torch.randn(1, 12, 10, 15))
    sizes = torch.tensor([[(24, 30)], [(50, 61)]])
    one = model.semantic(outputs, *sizes)
    outputs.mask_logits[:, :, 8:] = 9
    outputs.mask_logits[:, :, :, 10:] = -9
    assert one[0].shape == (5, 50, 61)
    assert torch.allclose(model.semantic(outputs, *sizes)[0], one[0])


def reference_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """As `make.py` resizes them: to the padded input, cut, to the size of the image."""
    classes, masks = MAKE["blobs"]()
    masks = F.interpolate(masks[None], size=(64, 96), mode="bilinear", align_corners=False)
    return classes, F.interpolate(masks[:, :, :60, :90], size=(45, 71), mode="bilinear", align_corners=False)[0]


def test_semantic_and_panoptic_maps_are_those_of_the_reference():
    expected = np.load(FIXTURES / "facebookresearch.npz")
    classes, masks = reference_masks()
    assert np.allclose(semantic(classes, masks)[:, ::3, ::3], expected["semantic"], atol=1e-5)
    ids, segments = panoptic(classes, masks, {0, 1, 2}, 0.5, 0.6)
    assert np.array_equal(ids.numpy(), expected["panoptic"])
    assert [(s.id, s.label) for s in segments] == [tuple(row) for row in expected["segments"]]
    assert len(segments) >= 4


def test_models_give_the_maps_of_the_reference():
    expected = np.load(FIXTURES / "facebookresearch.npz")
    classes, masks = MAKE["blobs"]()
    outputs = Mask2FormerOutputs(classes[None], masks[None])
    sizes = torch.tensor([[(60, 90)], [(45, 71)]])
    model = mask2former()
    ids, _ = model.panoptic(outputs, *sizes, things=[0, 1, 2], object_mask_threshold=0.5, overlap_threshold=0.6)[0]
    assert np.array_equal(ids.numpy(), expected["panoptic"])
    assert len(model.instances(outputs, *sizes, top=20, things=[0, 1, 2])[0]) == len(expected["scores"])
    assert np.allclose(model.semantic(outputs, *sizes)[0][:, ::3, ::3], expected["semantic"], atol=1e-5)


def test_instances_are_those_of_the_reference():
    expected = np.load(FIXTURES / "facebookresearch.npz")
    found = instances(*reference_masks(), top=20, things={0, 1, 2})
    order = np.argsort(-expected["scores"], kind="stable")
    assert len(found) > 5
    assert np.allclose(found.scores, expected["scores"][order], atol=1e-5)
    clear = expected["scores"][order] > 1e-4  # the order of those without a mask, all 0, means nothing
    assert np.array_equal(found.labels[clear], expected["labels"][order][clear])
    assert found.masks is not None
    assert np.array_equal(found.masks.flatten(1).sum(1)[clear], expected["areas"][order][clear])


def test_boxes_are_the_edges_of_the_masks():
    masks = torch.full((3, 20, 30), -5.0)
    masks[0, 4:9, 10:11] = 5
    masks[1, 0:20, 28:30] = 5
    classes = torch.tensor([[9.0, 0, 0], [6.0, 0, 0], [7.0, 0, 0]])
    found = instances(classes, masks, top=3)
    boxes = {tuple(box.tolist()) for box in found.boxes}
    assert {(10, 4, 11, 9), (28, 0, 30, 20)} <= boxes
    assert found.boxes[-1].tolist() == [0, 0, 0, 0]  # the mask that is empty, with score 0
    assert found.scores[-1] == 0
    assert (found.scores.diff() <= 0).all()


def test_stuff_is_merged_and_weak_or_covered_queries_leave():
    masks = torch.full((5, 4, 12), -8.0)
    masks[0, :, :3] = 8  # class 2, stuff
    masks[1, :, 3:6] = 8  # class 2 again
    masks[2, :, 6:9] = 8  # class 0, a thing
    masks[3, :, 6:10] = 4  # class 0, covered by three quarters
    masks[4, :, 10:] = 8  # "none"
    classes = torch.full((5, 4), -9.0)
    for query, label in enumerate((2, 2, 0, 0, 3)):
        classes[query, label] = 9 if query != 1 else 0  # the second one is less sure
    ids, segments = panoptic(classes, masks, things=[0])
    assert [(s.id, s.label) for s in segments] == [(1, 2), (2, 0)]
    assert segments[0].score == classes.softmax(-1)[0].max().item()
    assert torch.equal(ids[0], torch.tensor([1] * 6 + [2] * 3 + [0] * 3, dtype=torch.int32))
    ids, segments = panoptic(classes, masks, things=[0], overlap_threshold=0.2)
    assert [s.label for s in segments] == [2, 0, 0]
    ids, segments = panoptic(classes, masks, things=[0], object_mask_threshold=1.1)
    assert segments == []
    assert ids.dtype == torch.int32
    assert ids.sum() == 0
    assert isinstance(panoptic(classes, masks, things=[])[1][0], Segment)
