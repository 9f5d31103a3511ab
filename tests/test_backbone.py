"""The network: grids, formulas written out by hand, stochastic depth, recomputation, freezing, initialisation."""

import math

import pytest
import torch
import torch.nn.functional as F
from timm.models.focalnet import FocalNet as TimmFocalNet
from torch import Tensor, nn

import focalnet
from focalnet.backbone import Block, FocalNet, FocalNetBase, PatchEmbed, drop_path
from focalnet.errors import UserError
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.variants import FocalNetConfig, get_variant

SMALL = FocalNetConfig(embed_dim=8, depths=(1, 2, 1, 1), focal_levels=(2,))
LARGE = SMALL.replace(
    use_conv_embed=True, use_postln=True, layerscale_value=1e-4, use_postln_in_modulation=True, normalize_modulator=True
)


def shallow(config: FocalNetConfig) -> FocalNetConfig:
    return config.replace(depths=(1, 1), focal_levels=(2,), focal_windows=(3,))


def grids(model: FocalNetBase, height: int, width: int) -> list[tuple[int, int]]:
    with torch.no_grad():
        return [(x.shape[1], x.shape[2]) for x in model.eval().forward_stages(torch.zeros(1, 3, height, width))]


@pytest.mark.parametrize("config", [SMALL, LARGE])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (33, 130), (1, 1), (7, 31)])
def test_the_pyramid_pads_to_the_ceiling(config, height, width):
    model = FocalNet(config).eval()
    with torch.no_grad():
        maps = model(torch.randn(2, 3, height, width))
    assert model.channels == (8, 16, 32, 64)
    assert model.strides == (4, 8, 16, 32)
    for feature, channels, stride in zip(maps, model.channels, model.strides, strict=True):
        assert feature.shape == (2, channels, math.ceil(height / stride), math.ceil(width / stride))
        assert feature.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(feature.mean(1), torch.zeros_like(feature[:, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        (SMALL, 224, [56, 28, 14, 7]),
        (SMALL, 225, [56, 28, 14, 7]),
        (SMALL, 227, [56, 28, 14, 7]),
        (SMALL, 228, [57, 28, 14, 7]),
        (SMALL, 255, [63, 31, 15, 7]),
        (LARGE, 224, [56, 28, 14, 7]),
        (LARGE, 227, [57, 29, 15, 8]),
        (LARGE, 228, [57, 29, 15, 8]),
    ],
)
def test_classification_floors(config, size, expected):
    """The grids of the official classification code."""
    model = FocalNetClassifier(config, num_classes=3)
    assert grids(model, size, 224) == [(tall, wide) for tall, wide in zip(expected, (56, 28, 14, 7), strict=True)]


def test_padding_is_zeros_right_and_below():
    embed = PatchEmbed(3, 8, stride=4, kernel_size=4, padding=0, pad_odd=True)
    x = torch.randn(1, 5, 6, 3)
    torch.testing.assert_close(embed(x), embed(F.pad(x, (0, 0, 0, 2, 0, 3))))


def test_out_indices_choose_the_maps():
    model = FocalNet(SMALL)
    some = FocalNet(SMALL, out_indices=(1, 3))
    some.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith(("norm0", "norm2"))})
    x = torch.randn(1, 3, 40, 40)
    maps = model(x)
    for got, expected in zip(some(x), (maps[1], maps[3]), strict=True):
        torch.testing.assert_close(got, expected)
    assert some.channels == (16, 64)
    assert some.strides == (8, 32)


@pytest.mark.parametrize("use_postln", [False, True])
@pytest.mark.parametrize("layerscale", [None, 0.5])
def test_the_block_is_its_formula(use_postln, layerscale):
    block = Block(SMALL.replace(use_postln=use_postln, layerscale_value=layerscale), 1).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 5, 6, 16, dtype=torch.float64)
    gamma_1, gamma_2 = (1, 1) if layerscale is None else (block.gamma_1, block.gamma_2)

    def norm(y: Tensor, layer: nn.Module) -> Tensor:
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return y * layer.weight + layer.bias

    def mlp(y: Tensor) -> Tensor:
        y = y @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
        y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
        return y @ block.mlp.fc2.weight.T + block.mlp.fc2.bias

    if use_postln:
        middle = x + gamma_1 * norm(block.modulation(x), block.norm1)
        expected = middle + gamma_2 * norm(mlp(middle), block.norm2)
    else:
        middle = x + gamma_1 * block.modulation(norm(x, block.norm1))
        expected = middle + gamma_2 * mlp(norm(middle, block.norm2))
    torch.testing.assert_close(block(x), expected)


def test_the_classifier_is_its_formula():
    model = FocalNetClassifier(SMALL, num_classes=5).double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    tokens = model.norm(model.forward_stages(x)[-1])
    torch.testing.assert_close(model(x), model.head(tokens.flatten(1, 2).mean(1)))
    headless = FocalNetClassifier(SMALL, num_classes=0).double().eval()
    headless.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head")})
    torch.testing.assert_close(headless(x), tokens.mean((1, 2)))


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3, 5)
    y = drop_path(x, 0.3, training=True)
    per_sample = y.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0, 1 / 0.7])
    assert (per_sample[:, 0] == 0).float().mean() == pytest.approx(0.3, abs=0.03)
    assert drop_path(x, 0.3, training=False) is x
    assert drop_path(x, 0.0, training=True) is x


def test_drop_path_draws_for_each_branch():
    torch.manual_seed(0)
    block = Block(SMALL, 0, drop_path_rate=0.5)
    x = torch.randn(1, 3, 3, 8).expand(256, 3, 3, 8)
    kinds = {tuple(row) for row in block(x).flatten(1).round(decimals=3).tolist()}
    assert len(kinds) == 4  # both branches, the first, the second, none
    assert len({tuple(row) for row in block.eval()(x).flatten(1).round(decimals=3).tolist()}) == 1


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    torch.manual_seed(3)
    y = model(x)
    sum(part.square().mean() for part in (y if isinstance(y, tuple) else [y])).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("build", [FocalNet, FocalNetClassifier])
def test_recomputed_blocks_give_the_same_gradients(build):
    """Dropout and stochastic depth included: the recomputation draws the same numbers."""
    model = build(SMALL.replace(drop_rate=0.2, drop_path_rate=0.4), recompute="block")
    x = torch.randn(3, 3, 45, 38)
    ours = gradients(model, x)
    model.set_recompute("none")
    for a, b in zip(ours, gradients(model, x), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(UserError, match="recompute='all'"):
        model.set_recompute("all")


@pytest.mark.parametrize(("frozen", "stages"), [(-1, 0), (0, 0), (1, 0), (2, 1), (4, 3)])
def test_frozen_stages(frozen, stages):
    model = FocalNet(SMALL.replace(drop_rate=0.1), frozen_stages=frozen)
    stopped = [model.patch_embed] if frozen >= 0 else []
    stopped += [model.pos_drop, *model.layers[:stages]] if stages else []
    for _ in range(2):
        assert model.eval() is model
        assert not any(module.training for module in model.modules())
        assert model.train() is model
        for module in stopped:
            assert not any(part.training for part in module.modules())
            assert not any(parameter.requires_grad for parameter in module.parameters())
        free = [model.layers[stages:], *(getattr(model, f"norm{i}") for i in range(4))]
        free += [] if frozen >= 0 else [model.patch_embed]
        for module in free:
            assert all(part.training for part in module.modules())
            assert all(parameter.requires_grad for parameter in module.parameters())
    model.train()(torch.randn(1, 3, 32, 32))[-1].sum().backward()
    assert model.layers[3].blocks[0].mlp.fc1.weight.grad is not None
    assert (model.patch_embed.proj.weight.grad is None) == (frozen >= 0)


def test_initialisation_is_the_official_one():
    """Linear layers truncated normal 0.02 and zero; convolutions as PyTorch makes them; norms one and zero (F0.8)."""
    torch.manual_seed(0)
    model = FocalNetClassifier(get_variant("focalnet_tiny_srf").replace(layerscale_value=1e-4)).requires_grad_(False)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std() == pytest.approx(0.02, rel=0.05), name
            assert module.weight.abs().max() <= 2.0
            assert not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
        elif isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())  # kaiming uniform with a = sqrt 5
            assert module.weight.abs().max() <= bound
            assert module.weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
    assert (model.layers[0].blocks[0].gamma_1 == 1e-4).all()


@pytest.mark.parametrize(
    ("config", "options", "sentence"),
    [
        (SMALL, {"out_indices": ()}, "out_indices"),
        (SMALL, {"out_indices": (0, 4)}, "out of 0 to 3"),
        (SMALL, {"out_indices": (2, 1)}, "rising"),
        (SMALL, {"frozen_stages": 6}, "frozen_stages=6"),
        (SMALL, {"recompute": "some"}, "recompute='some'"),
    ],
)
def test_bad_options(config, options, sentence):
    with pytest.raises(UserError, match=sentence):
        FocalNet(config, **options)


def test_bad_pictures():
    model = FocalNetClassifier(SMALL)
    with pytest.raises(UserError, match=r"\(B, 3, H, W\), got \(1, 1, 64, 64\)"):
        model(torch.zeros(1, 1, 64, 64))
    with pytest.raises(UserError, match=r"\(B, 3, H, W\), got \(3, 64, 64\)"):
        model(torch.zeros(3, 64, 64))
    with pytest.raises(UserError, match="needs 32 or more"):
        model(torch.zeros(1, 3, 64, 31))


def test_isotropic():
    config = get_variant("focalnet_tiny_iso").replace(depths=(2,), embed_dim=16)
    model = FocalNet(config, out_indices=(0,)).eval()
    assert model.strides == (16,)
    assert model(torch.zeros(1, 3, 50, 32))[0].shape == (1, 16, 4, 2)
    assert grids(FocalNetClassifier(config), 50, 32) == [(3, 2)]
    assert model.layers[0].downsample is None


BLOCK_KEYS = [
    *["gamma_1", "gamma_2", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"],
    *["modulation.f.weight", "modulation.f.bias", "modulation.h.weight", "modulation.h.bias"],
    *["modulation.focal_layers.0.0.weight", "modulation.focal_layers.1.0.weight"],
    *["modulation.ln.weight", "modulation.ln.bias", "modulation.proj.weight", "modulation.proj.bias"],
    *["mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"],
]


def test_the_keys_are_the_official_ones():
    embed = ["proj.weight", "proj.bias", "norm.weight", "norm.bias"]
    expected = {f"patch_embed.{key}" for key in embed}
    for stage, depth in enumerate(LARGE.depths):
        expected |= {f"layers.{stage}.blocks.{block}.{key}" for block in range(depth) for key in BLOCK_KEYS}
        expected |= {f"layers.{stage}.downsample.{key}" for key in embed if stage < 3}
    ends = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    state = FocalNetClassifier(LARGE).state_dict()
    assert set(state) == expected | ends
    assert state["layers.1.blocks.0.modulation.h.weight"].shape == (16, 16, 1, 1)
    assert state["layers.1.blocks.0.modulation.f.weight"].shape == (2 * 16 + 3, 16)
    assert state["layers.1.blocks.0.modulation.focal_layers.1.0.weight"].shape == (16, 1, 5, 5)
    dense = set(FocalNet(LARGE).state_dict())
    assert dense == expected | {f"norm{stage}.{key}" for stage in range(4) for key in ("weight", "bias")}
    plain = set(FocalNetClassifier(SMALL).state_dict())
    assert plain == {key for key in expected | ends if not any(part in key for part in ("gamma_", ".ln."))}


def test_builds_on_the_meta_device():
    with torch.device("meta"):
        for build in (FocalNet, FocalNetClassifier):
            model = build(LARGE)
            assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
            model(torch.empty(2, 3, 64, 64))


@pytest.mark.parametrize("config", [SMALL, LARGE])
def test_precisions_and_memory_formats(config):
    model = FocalNetClassifier(config, num_classes=7).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, 3, 64, 70)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), expected)
        torch.testing.assert_close(model.to(memory_format=torch.channels_last)(x), expected, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x)
        assert half.dtype == torch.bfloat16
        assert (half - expected).abs().max() <= 0.05 * expected.abs().max()
        half = model.bfloat16()(x.bfloat16())
        assert (half - expected).abs().max() <= 0.1 * expected.abs().max()
    double = FocalNetClassifier(config, num_classes=7).double()
    assert double(x.double()).dtype == torch.float64


BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("build", "config", "recompute"), [(FocalNet, SMALL, "none"), (FocalNetClassifier, LARGE, "block")]
)
def test_compiles_as_one_graph(build, config, recompute, backend):
    torch.compiler.reset()
    options = {"out_indices": (0, 1)} if build is FocalNet else {}
    model = build(shallow(config), recompute=recompute, **options)
    x = torch.randn(2, 3, 32, 32)
    expected = gradients(model, x)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    compiled(x)
    for a, b in zip(gradients(compiled, x), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("config", [SMALL, LARGE])
@pytest.mark.parametrize(("build", "options"), [(FocalNet, {"out_indices": (0, 1)}), (FocalNetClassifier, {})])
def test_exports_with_dynamic_sizes(build, options, config):
    model = build(shallow(config), **options).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    height, width = (torch.export.Dim(name, min=32, max=2048) for name in ("height", "width"))
    program = torch.export.export(
        model, (torch.randn(2, 3, 64, 72),), dynamic_shapes=({0: batch, 2: height, 3: width},), strict=False
    )
    for sizes in [(1, 3, 45, 39), (3, 3, 64, 33)]:
        x = torch.randn(sizes)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_habits_of_timm():
    model = FocalNetClassifier(SMALL, num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    assert model.num_features == 64
    assert [(row["num_chs"], row["reduction"]) for row in model.feature_info] == [(8, 4), (16, 8), (32, 16), (64, 32)]
    assert all(
        model.get_submodule(row["module"]) is stage for row, stage in zip(model.feature_info, model.layers, strict=True)
    )
    with torch.no_grad():
        features = model.forward_features(images)
        torch.testing.assert_close(model.forward_head(features), model(images), rtol=0, atol=0)
        pooled = model.forward_head(features, pre_logits=True)
        model.set_grad_checkpointing()
        assert {stage.recompute for stage in model.layers} == {"block"}
        model.set_grad_checkpointing(False)
        assert {stage.recompute for stage in model.layers} == {"none"}
        model.reset_classifier(0)
        torch.testing.assert_close(model(images), pooled, rtol=0, atol=0)
        model.double().reset_classifier(3)
        assert model(images.double()).shape == (2, model.num_classes) == (2, 3)
    assert model.get_classifier() is model.head


def test_the_habits_are_those_of_timms_own():
    """The same calls on timm's network and ours with its weights; only maps differ, which ours have channels last."""
    theirs = TimmFocalNet(embed_dim=8, depths=(1, 2, 1, 1), focal_levels=(2, 2, 2, 2), num_classes=5).eval()
    ours = FocalNetClassifier(SMALL.replace(focal_levels=2), num_classes=5).eval()
    ours.load_state_dict(focalnet.convert_state_dict(theirs.state_dict(), to="official", use_postln=False))
    images = torch.randn(2, 3, 64, 64)
    for name in ("num_features", "head_hidden_size", "num_classes", "feature_info"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for row in theirs.feature_info:
        assert type(ours.get_submodule(row["module"])).__name__.endswith("Stage")
    with torch.no_grad():
        features, maps = ours.forward_features(images), theirs.forward_features(images)
        torch.testing.assert_close(features.permute(0, 3, 1, 2), maps, rtol=1e-4, atol=1e-5)
        for pre_logits in (True, False):
            one, other = (m.forward_head(x, pre_logits=pre_logits) for m, x in ((ours, features), (theirs, maps)))
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for count, pool in ((0, None), (7, None), (3, "avg")):
        for model in (ours, theirs):
            model.reset_classifier(count, pool) if pool else model.reset_classifier(count)
        assert type(ours.get_classifier()) is type(theirs.get_classifier())
        assert (ours.num_classes, ours(images).shape) == (theirs.num_classes, theirs(images).shape)
    for model in (ours, theirs):
        model.set_grad_checkpointing()
        model.train()(images).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        model.set_grad_checkpointing(enable=False)
    with pytest.raises(UserError, match="global_pool='max'; a FocalNet averages"):
        ours.reset_classifier(3, "max")


def test_a_reset_classifier_forgets_the_names_of_its_classes(tmp_path):
    model = focalnet.create_model("minifocal_32", classes=["cat", "dog"])
    model.reset_classifier(4)
    focalnet.save_pretrained(model, tmp_path / "model")
    again = focalnet.create_model(weights=tmp_path / "model")
    assert (again.spec.num_classes, again.spec.classes) == (4, None)
    torch.testing.assert_close(again.head.weight, model.head.weight, rtol=0, atol=0)
