"""Decay groups of every variant, and the learning rate against the paper's schedule."""

import dataclasses

import pytest
import torch

from focalnet.engine.config import TrainConfig
from focalnet.engine.optim import build_optimizer, learning_rate, parameter_groups
from focalnet.engine.recipes import get_recipe
from focalnet.errors import UserError
from focalnet.models.classifier import FocalNetClassifier
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


STEPS = 1251  # 1,281,167 pictures in batches of 1024


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
