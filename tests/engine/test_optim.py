"""Decay groups of every variant, and the learning rate against the paper's schedule."""

import copy
import dataclasses

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from focalnet.engine.config import TrainConfig
from focalnet.engine.optim.build import build_optimizer, learning_rate
from focalnet.engine.optim.groups import parameter_groups
from focalnet.engine.optim.muon import Muon, orthogonalize, split_matrices
from focalnet.engine.recipes import get_recipe
from focalnet.errors import UserError
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.create import create_model
from focalnet.variants import VARIANTS


def config_of(recipe: str, model: str = "focalnet_tiny_lrf") -> TrainConfig:
    return TrainConfig(**get_recipe(recipe, model).train)


@pytest.mark.parametrize("name", VARIANTS)
def test_decay_groups(name):
    with torch.device("meta"):
        model = FocalNetClassifier(VARIANTS[name])
    decayed, plain = parameter_groups(model, 0.05)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter in decayed["params"]:
        assert parameter.ndim >= 2
        assert names[id(parameter)].endswith("weight")
        assert "norm" not in names[id(parameter)]
    for parameter in plain["params"]:
        assert parameter.ndim == 1
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_decay_groups_of_tiny_srf_have_the_numbers_of_the_fixed_official_code():
    with torch.device("meta"):
        model = FocalNetClassifier(VARIANTS["focalnet_tiny_srf"])
    decayed, plain = parameter_groups(model, 0.05)
    assert (len(decayed["params"]), len(plain["params"])) == (89, 123)  # timm's counts for the same net


def test_official_decay_bug_decays_nothing():
    model = FocalNetClassifier(VARIANTS["minifocal_32"])
    decayed, plain = parameter_groups(model, 0.05, official_decay_bug=True)
    assert decayed["params"] == []
    assert len(plain["params"]) == len(list(model.parameters()))
    optimizer = build_optimizer(model, TrainConfig(official_decay_bug=True))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0]


def test_weight_decay_is_really_applied():
    model = torch.nn.Linear(3, 3)
    optimizer = build_optimizer(model, TrainConfig(lr=0.1, weight_decay=0.5))
    before = model.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    bias = model.bias.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model.weight, before * (1 - 0.1 * 0.5))
    torch.testing.assert_close(model.bias, bias)


def test_frozen_parameters_are_left_out():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(model, 0.1)) == 2


STEPS = 1251  # 1,281,167 images in batches of 1024


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 1e-6), (10, 5.005e-4), (20, 9.89e-4), (150, 5.05e-4), (300, 1e-5)],
)
def test_learning_rate_of_imagenet1k(epoch, expected):
    assert learning_rate(config_of("imagenet1k"), epoch * STEPS, STEPS) == pytest.approx(expected, rel=2e-4)


def test_warm_up_reaches_the_peak_and_the_cosine_does_not_wait_for_it():
    config = config_of("imagenet1k")
    last, first = (learning_rate(config, 20 * STEPS + offset, STEPS) for offset in (-1, 0))
    assert last == pytest.approx(1e-3, rel=1e-4)
    assert first == pytest.approx(0.98917e-3, rel=1e-4)


@pytest.mark.parametrize(
    ("recipe", "start", "peak", "end"),
    [
        ("imagenet22k", 1e-6, 1e-3, 1e-5),
        ("imagenet1k_from_22k", 3e-5, 3e-5, 5e-6),
    ],
)
def test_learning_rate_of_the_other_published_recipes(recipe, start, peak, end):
    config = config_of(recipe)
    rates = [learning_rate(config, step, 100) for step in range(config.epochs * 100 + 1)]
    assert rates[0] == pytest.approx(start)
    assert max(rates) == pytest.approx(peak, rel=0.02)
    assert rates[-1] == pytest.approx(end)


def test_learning_rate_never_rises_after_the_warm_up():
    config = dataclasses.replace(config_of("digits"), epochs=7, warmup_epochs=1.5)
    rates = [learning_rate(config, step, 10) for step in range(71)]
    assert rates[:15] == sorted(rates[:15])
    assert rates[15:] == sorted(rates[15:], reverse=True)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}, {"lr": -1.0}, {"ema": 1.0}, {"clip_grad": -1.0}])
def test_options_out_of_range(change):
    with pytest.raises(UserError, match=next(iter(change)).replace("_", "-")):
        TrainConfig(**change)


def test_the_backbone_of_a_detector_has_groups_and_a_rate_of_its_own():
    with torch.device("meta"):
        model = create_model("dino_minifocal_128", num_classes=3)
    groups = parameter_groups(model, 1e-4, backbone_lr=0.1)
    assert [(group["weight_decay"], group.get("lr_share", 1.0)) for group in groups] == [
        (1e-4, 1.0), (0.0, 1.0), (1e-4, 0.1), (0.0, 0.1),
    ]  # fmt: skip
    inside = {id(parameter) for parameter in model.focalnet.parameters()}
    for group in groups:
        assert all((id(parameter) in inside) == ("lr_share" in group) for parameter in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert len(parameter_groups(model, 1e-4)) == 2


def test_steps_and_a_straight_line():
    config = TrainConfig(epochs=12, lr=1.0, schedule="step", schedule_options={"milestones": (9, 11)}, warmup_epochs=0)
    rates = [learning_rate(config, step, 10) for step in (0, 89, 90, 109, 110, 119)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    config = TrainConfig(epochs=10, lr=1.0, min_lr=0.0, schedule="linear", warmup_epochs=1)
    rates = [learning_rate(config, step, 10) for step in (0, 5, 10, 50, 99)]
    assert rates == pytest.approx([1e-3, 0.5005, 0.9, 0.5, 0.01])


def test_poly_is_what_is_left_to_the_power_0_9():
    config = TrainConfig(epochs=10, lr=1.0, min_lr=0.0, schedule="poly", warmup_epochs=0)
    rates = [learning_rate(config, step, 10) for step in (0, 50, 99, 100)]
    assert rates == pytest.approx([1, 0.5**0.9, 0.01**0.9, 0])


def test_restarts_are_those_of_torch():
    config = TrainConfig(epochs=7, lr=1.0, min_lr=0.1, schedule="restarts", warmup_epochs=0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2, eta_min=0.1)
    for step in range(70):
        assert learning_rate(config, step, 10) == pytest.approx(torchs.get_last_lr()[0]), step
        optimizer.step()
        torchs.step()
    with pytest.raises(UserError, match="first=0"):
        TrainConfig(schedule="restarts", schedule_options={"first": 0})


def test_embeddings_of_mask2former_are_not_decayed():
    with torch.device("meta"):
        model = create_model("mask2former_minifocal_128", num_classes=3)
    decayed, rest = (
        {name for name, p in model.named_parameters() if any(p is other for other in group["params"])}
        for group in parameter_groups(model, 0.05)
    )
    embeddings = {name for name in rest if model.get_parameter(name).ndim == 2}
    inside = "net.model.transformer_module."
    assert embeddings == {f"{inside}{name}.weight" for name in ("queries_embedder", "queries_features", "level_embed")}
    assert "net.model.pixel_level_module.decoder.level_embed" in decayed


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_everything_may_decay(optimizer):
    model = create_model("sparse_rcnn_minifocal_128", num_classes=3)
    config = TrainConfig(optimizer=optimizer, optimizer_options={"decay_all": True}, weight_decay=1e-4)
    groups = build_optimizer(model, config).param_groups
    assert {group["weight_decay"] for group in groups} == {1e-4}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_published_schedules_of_the_detectors():
    config = config_of("coco_3x", "mask_rcnn_focalnet_tiny_lrf")
    assert (config.epochs, config.schedule_options["milestones"], config.batch_size, config.lr) == (
        36,
        (27, 33),
        16,
        1e-4,
    )
    assert learning_rate(config, 7329 * 28, 7329) == pytest.approx(1e-5)
    assert round(config.warmup_epochs * 7329) == 500
    config = config_of("ade20k", "upernet_focalnet_tiny_lrf")
    assert config.epochs * 20210 // 16 == pytest.approx(160_000, rel=3e-3)
    assert (config.lr, config.weight_decay, config.schedule) == (6e-5, 0.01, "linear")
    config = config_of("dino_12ep", "dino_focalnet_large_fl4_5scale")
    assert (config.epochs, config.schedule_options["milestones"], config.backbone_lr, config.clip_grad) == (
        12,
        (11,),
        0.1,
        0.1,
    )


def muon_groups(model, **options):
    groups = split_matrices(model, parameter_groups(model, 0.05, **options))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [({names[id(p)] for p in group["params"]}, group) for group in groups]


def test_muon_takes_matrices_between_hidden_signals_and_nothing_else():
    model = create_model("upernet_minifocal_128", num_classes=3)
    groups = muon_groups(model, backbone_lr=0.5)
    assert sum(len(names) for names, _ in groups) == len(list(model.parameters()))
    trunk = "net.backbone.trunk."
    for names, group in groups:
        assert all(name.startswith(trunk) == ("lr_share" in group) for name in names)
    ours = set().union(*(names for names, group in groups if group["muon"]))
    kinds = {name: model.get_submodule(name.rpartition(".")[0]) for name in ours}
    assert all(isinstance(module, torch.nn.Linear | torch.nn.Conv2d) for module in kinds.values())
    assert not any("classifier" in name or name.endswith("bias") or "focal_layers" in name for name in ours)
    assert {"net.decode_head.bottleneck.conv.weight"} < ours
    assert any(name.startswith(trunk) and "mlp" in name for name in ours)


def test_muon_leaves_the_classes_of_a_classifier_to_adamw():
    model = FocalNetClassifier(VARIANTS["minifocal_32"], num_classes=10)
    ours = set().union(*(names for names, group in muon_groups(model) if group["muon"]))
    assert "head.weight" not in ours
    assert "layers.0.blocks.0.mlp.fc1.weight" in ours


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (16, 64), (64, 16)])
def test_orthogonalize_makes_singular_values_alike(shape, dtype):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    one, other = orthogonalize(torch.stack((matrix, torch.zeros(shape))), dtype)
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(one)
    assert before.max() / before.min() > 1.5
    assert 0.6 < after.min() < after.max() < 1.3
    assert other.eq(0).all()
    assert torch.equal(one, one.to(dtype).float())


@pytest.mark.parametrize(
    ("multiplies", "begun", "dtype"),
    [
        (True, "now", torch.bfloat16),
        (False, "now", torch.float32),
        (True, "before", torch.bfloat16),
        (False, "before", torch.bfloat16),
    ],
)
def test_muon_computes_in_what_the_processor_multiplies(monkeypatch, multiplies, begun, dtype):
    """But a run that an earlier version began goes on as it began."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2))
    optimizer = build_optimizer(model, TrainConfig(optimizer="muon"))
    if begun == "before":
        state = optimizer.state_dict()
        for group in state["param_groups"]:
            group["muon"] = bool(group.get("muon"))
        optimizer.load_state_dict(state)
    model(torch.randn(3, 4)).square().mean().backward()
    used = []
    monkeypatch.setattr("focalnet.engine.optim.muon.multiplies_bfloat16", lambda: multiplies)
    monkeypatch.setattr(
        "focalnet.engine.optim.muon.orthogonalize", lambda x, dtype: used.append(dtype) or orthogonalize(x, dtype)
    )
    optimizer.step()
    assert set(used) == {dtype}


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
def test_muon_steps_as_torchs_muon_and_adamw_do():
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 4))
    theirs = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 4))
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, TrainConfig(optimizer="muon", lr=0.01, weight_decay=0.1))
    assert isinstance(optimizer, Muon)
    weights = [theirs[0].weight, theirs[2].weight]
    muon = torch.optim.Muon(weights, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([theirs[0].bias, theirs[2].bias], lr=0.01, weight_decay=0.0)
    for _ in range(4):
        images = torch.randn(5, 6)
        for network, steps in ((ours, (optimizer,)), (theirs, (muon, adamw))):
            network(images).square().mean().backward()
            for one in steps:
                one.step()
                one.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-3, rtol=0)  # theirs rounds to bfloat16 before the norm
    assert (ours[0].weight - theirs[0].weight).abs().max() < 0.1 * 4 * 0.01 * 0.2 * 12**0.5


def test_muon_goes_on_from_its_saved_state_with_the_same_bits():
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    torch.manual_seed(0)
    config = TrainConfig(optimizer="muon", lr=0.01)
    one = FocalNetClassifier(VARIANTS["minifocal_32"], num_classes=3)
    other = FocalNetClassifier(VARIANTS["minifocal_32"], num_classes=3)
    optimizers = [build_optimizer(network, config) for network in (one, other)]

    def step(network, optimizer):
        for position, parameter in enumerate(network.parameters()):
            parameter.grad = (parameter.detach() + position).sin()
        optimizer.step()
        optimizer.zero_grad()

    step(one, optimizers[0])
    other.load_state_dict(one.state_dict())
    set_optimizer_state_dict(other, optimizers[1], copy.deepcopy(get_optimizer_state_dict(one, optimizers[0])))
    for network, optimizer in zip((one, other), optimizers, strict=True):
        step(network, optimizer)
    for mine, others in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, others)


def test_muon_needs_whole_matrices():
    with pytest.raises(UserError, match="whole matrices"):
        TrainConfig(optimizer="muon", strategy="fsdp")


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_new_run_takes_the_fused_step_and_an_old_one_goes_on_with_the_one_it_began_with(name):
    def network():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))

    def steps(model, optimizer, seeds):
        for seed in seeds:
            inputs = torch.randn(32, 8, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    def old(model):
        optimizer = build_optimizer(model, TrainConfig(optimizer=name))
        for group in optimizer.param_groups:
            group["fused"] = None  # what torch's default, and so every earlier checkpoint, says
        return optimizer

    config = TrainConfig(optimizer=name)
    by_adamw = [group for group in build_optimizer(network(), config).param_groups if not group.get("muon")]
    assert by_adamw
    assert all(group["fused"] for group in by_adamw)
    whole = network()
    expected = steps(whole, old(whole), range(6))
    stopped = network()
    before = old(stopped)
    steps(stopped, before, range(3))
    state = get_optimizer_state_dict(stopped, before)
    resumed = network()
    resumed.load_state_dict(stopped.state_dict())
    optimizer = build_optimizer(resumed, config)
    set_optimizer_state_dict(resumed, optimizer, state)
    assert torch.equal(steps(resumed, optimizer, range(3, 6)), expected)
    new = network()
    fused = steps(new, build_optimizer(new, config), range(6))
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-6)


def test_exponential_falls_after_every_epoch():
    options = {"schedule": "exponential", "schedule_options": {"factor": 0.9}}
    config = TrainConfig(epochs=9, lr=1.0, min_lr=0.5, warmup_epochs=0, **options)
    rates = [learning_rate(config, step, 3) for step in (0, 2, 3, 6, 26)]
    assert rates == pytest.approx([1.0, 1.0, 0.9, 0.81, 0.5])
