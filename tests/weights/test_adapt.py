import logging

import pytest
import torch

from focalnet.backbone import FocalNet
from focalnet.errors import UserError
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.variants import FocalNetConfig
from focalnet.weights.adapt import adapt_state_dict

SMALL = FocalNetConfig(embed_dim=8, depths=(1, 2, 1), focal_levels=(2,))
F_WEIGHT = "layers.1.blocks.1.modulation.f.weight"
F_BIAS = "layers.1.blocks.1.modulation.f.bias"
WIDTH = 16  # of stage 1


def classifier(config: FocalNetConfig = SMALL, num_classes: int = 5, seed: int = 0) -> FocalNetClassifier:
    torch.manual_seed(seed)
    model = FocalNetClassifier(config, num_classes=num_classes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def backbone(config: FocalNetConfig = SMALL, seed: int = 1, **options) -> FocalNet:
    torch.manual_seed(seed)
    return FocalNet(config, out_indices=options.pop("out_indices", (0, 1, 2)), **options).eval()


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="focalnet")
    return caplog


def test_weights_that_fit_are_taken_as_they_are_and_nothing_is_said(log):
    weights = classifier().state_dict()
    adapted = adapt_state_dict(weights, classifier(seed=1))
    assert list(adapted) == list(weights)
    assert all(torch.equal(adapted[key], weights[key]) for key in weights)
    assert not log.records


def test_another_number_of_classes_keeps_the_own_head(log):
    weights, model = classifier().state_dict(), classifier(num_classes=7, seed=1)
    adapted = adapt_state_dict(weights, model)
    for key in ("head.weight", "head.bias"):
        assert torch.equal(adapted[key], model.state_dict()[key])
    assert torch.equal(adapted["norm.weight"], weights["norm.weight"])
    assert [record.message for record in log.records] == ["head: new and random, 7 classes (the weights have 5)"]


def test_other_classes_of_the_same_number_keep_the_own_head(log):
    weights, model = classifier().state_dict(), classifier(seed=1)
    adapted = adapt_state_dict(weights, model, fresh_head=True)
    assert torch.equal(adapted["head.weight"], model.state_dict()["head.weight"])
    assert len(log.records) == 1


def test_weights_without_a_head_and_models_without_one(log):
    headless = classifier(num_classes=0).state_dict()
    model = classifier(seed=1)
    assert torch.equal(adapt_state_dict(headless, model)["head.weight"], model.state_dict()["head.weight"])
    assert "head: new and random, 5 classes (the weights have no head)" in log.text
    assert not any(key.startswith("head") for key in adapt_state_dict(model.state_dict(), classifier(num_classes=0)))
    assert "head: left out, the model has none (the weights have 5 classes)" in log.text


def test_22k_head_gives_its_first_thousand_rows(log):
    weights, model = classifier(num_classes=21842), classifier(num_classes=1000, seed=1)
    model.load_state_dict(adapt_state_dict(weights.state_dict(), model))
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(images), weights(images)[:, :1000])
    assert len(log.records) == 1
    assert "rows 0 to 999 of 21842" in log.text
    assert "row 850 (teddy bear) was never trained" in log.text
    fresh = adapt_state_dict(weights.state_dict(), model, fresh_head=True)
    assert torch.equal(fresh["head.weight"], model.state_dict()["head.weight"])


@pytest.mark.parametrize(("levels", "there", "here"), [(2, 3, 9), (3, 3, 5), (1, 5, 11)])
def test_grown_kernels_leave_the_outputs_as_they_are(log, levels, there, here):
    source = backbone(SMALL.replace(focal_levels=levels, focal_windows=there), seed=0)
    target = backbone(SMALL.replace(focal_levels=levels, focal_windows=here))
    weights = source.state_dict()
    target.load_state_dict(adapt_state_dict(weights, target))
    kernel = target.layers[0].blocks[0].modulation.focal_layers[0][0].weight
    margin = (here - there) // 2
    assert torch.equal(
        kernel[..., margin:-margin, margin:-margin], weights["layers.0.blocks.0.modulation.focal_layers.0.0.weight"]
    )
    assert kernel.count_nonzero() == there * there * 8
    images = torch.randn(2, 3, 45, 67, dtype=torch.float64)
    for grown, original in zip(target.double()(images), source.double()(images), strict=True):
        torch.testing.assert_close(grown, original, rtol=1e-12, atol=1e-12)
    assert len(log.records) == 1
    assert f"4 of {there} -> {here} (zero-padded)" in log.text


def test_larger_kernels_keep_their_centre(log):
    source = classifier(SMALL.replace(focal_windows=(9, 5, 3)))
    adapted = adapt_state_dict(source.state_dict(), classifier(seed=1))
    for stage, sizes in enumerate(((9, 11), (5, 7), (3, 5))):
        for level, size in enumerate(sizes):
            name, margin = (
                f"layers.{stage}.blocks.0.modulation.focal_layers.{level}.0.weight",
                (size - 3 - 2 * level) // 2,
            )
            whole = source.state_dict()[name]
            assert torch.equal(adapted[name], whole[..., margin : size - margin, margin : size - margin])
    assert "1 of 9 -> 3 (centre kept, the rest cut off)" in log.text
    assert "2 of 5 -> 3 (centre kept" in log.text


def test_new_levels_get_zero_gates_and_keep_the_global_one(log):
    source, model = classifier(), classifier(SMALL.replace(focal_levels=(2, 4, 2)), seed=1)
    weights, own = source.state_dict(), model.state_dict()
    adapted = adapt_state_dict(weights, model)
    for name in (F_WEIGHT, F_BIAS):
        before, after = weights[name], adapted[name]
        assert torch.equal(after[: 2 * WIDTH + 2], before[: 2 * WIDTH + 2])  # query, context, gates 1 and 2
        assert not after[2 * WIDTH + 2 : 2 * WIDTH + 4].any()
        assert torch.equal(after[-1], before[-1])
    for level in (2, 3):
        name = f"layers.1.blocks.0.modulation.focal_layers.{level}.0.weight"
        assert torch.equal(adapted[name], own[name])
        assert adapted[name].any()  # zeros would silence the global context
    assert torch.equal(
        adapted["layers.0.blocks.0.modulation.f.weight"], weights["layers.0.blocks.0.modulation.f.weight"]
    )
    assert len(log.records) == 1
    assert "focal levels: stage 1 2 -> 4; new gates are zero, new kernels random" in log.text


def test_a_new_level_changes_the_output_because_the_global_context_moves():
    source, target = backbone(seed=0), backbone(SMALL.replace(focal_levels=3))
    for parameter in source.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    target.load_state_dict(adapt_state_dict(source.state_dict(), target))
    images = torch.randn(1, 3, 64, 64)
    assert (target(images)[0] - source(images)[0]).abs().max() > 1e-3
    for model in (source, target):  # without the global gate both are the same
        for name, parameter in model.named_parameters():
            if ".modulation.f." in name:
                parameter.data[-1] = 0
    for grown, original in zip(target(images), source(images), strict=True):
        torch.testing.assert_close(grown, original, rtol=1e-5, atol=1e-5)


def test_fewer_levels_are_refused():
    weights = classifier(SMALL.replace(focal_levels=3)).state_dict()
    with pytest.raises(UserError, match=r"have 3 focal levels in stage 0, the model 2.* focal_levels=3"):
        adapt_state_dict(weights, classifier())


def test_dense_use_leaves_out_norm_and_head(log):
    weights, model = classifier().state_dict(), backbone(out_indices=(0, 2))
    model.norm0.weight.data.fill_(3.0)
    adapted = adapt_state_dict(weights, model)
    assert set(adapted) == set(model.state_dict())
    assert torch.equal(adapted["norm0.weight"], torch.full((8,), 3.0))
    assert [record.message for record in log.records] == [
        "dense use: left out head, norm; start as identity: norm0, norm2"
    ]


def test_dense_weights_keep_the_norms_that_both_have(log):
    source = backbone(out_indices=(0, 1, 2))
    source.norm2.weight.data.fill_(3.0)
    adapted = adapt_state_dict(source.state_dict(), backbone(out_indices=(2,), seed=2))
    assert torch.equal(adapted["norm2.weight"], torch.full((32,), 3.0))
    assert "dense use: left out norm0, norm1; start as identity: nothing" in log.text


def test_what_still_differs_is_listed():
    weights = classifier().state_dict()
    with pytest.raises(
        UserError,
        match=r"\d+ of another shape \(patch_embed.proj.weight \(8, 3, 4, 4\) instead of \(16, 3, 4, 4\), .*…\)",
    ):
        adapt_state_dict(weights, classifier(SMALL.replace(embed_dim=16)))
    with pytest.raises(UserError, match=r"8 missing \(layers.0.blocks.0.gamma_1, layers.0.blocks.0.gamma_2, .*, …\)"):
        adapt_state_dict(weights, classifier(SMALL.replace(layerscale_value=1e-4)))
    with pytest.raises(UserError, match=r"1 unexpected \(extra\); they look like none of the known variants"):
        adapt_state_dict(weights | {"extra": torch.zeros(1)}, classifier())
    del weights["layers.1.blocks.0.mlp.fc1.weight"]
    with pytest.raises(UserError, match=r"1 missing \(layers.1.blocks.0.mlp.fc1.weight\)"):
        adapt_state_dict(weights, classifier())


def test_the_variant_that_the_weights_look_like_is_named():
    weights = classifier(FocalNetConfig(embed_dim=32, depths=(1, 2, 1), focal_levels=(2,), patch_size=2)).state_dict()
    with pytest.raises(UserError, match="they look like minifocal_32"):
        adapt_state_dict(weights, classifier())


def test_the_original_is_left_alone():
    weights = classifier(num_classes=21842).state_dict()
    shapes = {key: value.shape for key, value in weights.items()}
    adapt_state_dict(weights, classifier(SMALL.replace(focal_windows=9, focal_levels=3), num_classes=1000, seed=1))
    assert {key: value.shape for key, value in weights.items()} == shapes


def test_half_precision_files_fill_a_float_model():
    weights = {key: value.half() for key, value in classifier().state_dict().items()}
    model = classifier(SMALL.replace(focal_windows=5), seed=1)
    model.load_state_dict(adapt_state_dict(weights, model))
    assert model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, weights["head.weight"].float())


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_a_stem_for_other_channels_is_that_of_timm(log, channels):
    from timm.models._manipulate import adapt_input_conv

    source, target = classifier(), classifier(SMALL.replace(in_channels=channels), seed=3)
    theirs = adapt_input_conv(channels, source.patch_embed.proj.weight.detach())
    ours = adapt_state_dict(source.state_dict(), target)
    torch.testing.assert_close(ours["patch_embed.proj.weight"], theirs)
    assert f"stem: for {channels} channel" in log.text
    target.load_state_dict(ours)
    if channels == 1:
        grey = torch.randn(1, 1, 32, 32)
        torch.testing.assert_close(target.eval()(grey), source.eval()(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
