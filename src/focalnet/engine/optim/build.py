"""From the options of a run to its optimizer and its learning rate."""

import importlib

import torch
from torch import nn

from focalnet.engine.config import TrainConfig
from focalnet.engine.optim import OPTIMIZERS, SCHEDULES, Place, build_options, find
from focalnet.engine.optim.groups import parameter_groups


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` names, on the `parameter_groups` of a network or of a part of one."""
    row = find("optimizer", config.optimizer, OPTIMIZERS)
    options = build_options(row, config.optimizer_options)
    groups = parameter_groups(
        network,
        config.weight_decay,
        decay_all=getattr(options, "decay_all", False),
        official_decay_bug=config.official_decay_bug,
        backbone_lr=config.backbone_lr,
    )
    groups = [group for group in groups if group["params"]]
    build = row.build
    if isinstance(build, str):
        module, function = build.split(":")
        build = getattr(importlib.import_module(module), function)
    return build(network, groups, config.lr, options)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0 over the whole run."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        start = config.lr * 1e-3
        return start + (config.lr - start) * step / warmup
    row = find("schedule", config.schedule, SCHEDULES)
    place = Place(step, steps_per_epoch, config.epochs)
    return row.rate(place, config.lr, config.min_lr, build_options(row, config.schedule_options))
