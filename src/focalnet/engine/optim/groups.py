"""Parameter groups, optimiser and learning rate of the paper (Table 18; official `optimizer.py`, `lr_scheduler.py`).

AdamW decays the weights that multiply (two or more dimensions) and leaves biases, norms, LayerScale and Mask2Former's
embeddings alone. The official code means the same but decays nothing: its list of names to skip is `{''}`, and the
empty string is in every name. Which of the two made the published weights is not known; `official_decay_bug=True`
reproduces the code.

Muon instead (`muon.py`) is not the paper's: from random weights it needs about half the steps (docs/log.md).

The learning rate is a function of the step and of nothing else, so there is no scheduler to save. Classification has
a cosine, UPerNet a straight line (mmseg's "poly" of power 1), Mask2Former on ADE20K "poly" of power 0.9, detectors a
constant that falls to a tenth at given epochs. As in the official schedule the curve does not wait for the warm-up:
after it, the rate continues where the curve is by then, a little under the peak.
"""

import math
from typing import Any

import torch
from torch import nn

from focalnet.engine.config import TrainConfig
from focalnet.engine.optim.muon import Muon, matrices
from focalnet.models.base import DenseModel


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    official_decay_bug: bool = False,
    backbone_lr: float = 1.0,
    muon: bool = False,
) -> list[dict[str, Any]]:
    """Groups for an optimiser: decayed weights, and everything else. Frozen parameters are left out.

    Args:
        model: the network.
        weight_decay: for parameters of two or more dimensions that are no `DenseModel.embeddings`.
        official_decay_bug: put everything into the second group.
        backbone_lr: where it is not 1, the backbone of a detector or segmenter has two groups of its own, with this
            number as `lr_share`.
        muon: put the matrices of `muon.matrices` into groups of their own, and say `muon` in every group.
    """
    trunk = model.focalnet.parameters() if backbone_lr != 1 and isinstance(model, DenseModel) else ()
    inside = {id(parameter) for parameter in trunk}
    classes = set(model.class_parameters()) if isinstance(model, DenseModel) else {"head.weight"}
    added = {id(parameter) for parameter in model.embeddings()} if isinstance(model, DenseModel) else set()
    hidden = {id(model.get_parameter(name)) for name in matrices(model, classes)} if muon else set()
    groups: list[dict[str, Any]] = []
    for backbone in (False, True) if inside else (False,):
        parameters = [p for p in model.parameters() if p.requires_grad and (id(p) in inside) == backbone]
        decayed = [] if official_decay_bug else [p for p in parameters if p.ndim >= 2 and id(p) not in added]
        chosen = {id(parameter) for parameter in decayed}
        rest = [parameter for parameter in parameters if id(parameter) not in chosen]
        part = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        if muon:
            part = [
                {**group, "params": [p for p in group["params"] if (id(p) in hidden) == own], "muon": own}
                for group in part
                for own in (True, False)
            ]
        groups += [{**group, "lr_share": backbone_lr} if backbone else group for group in part]
    return groups


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with betas (0.9, 0.999) and eps 1e-8, or Muon, on `parameter_groups`."""
    muon = config.optimizer == "muon"
    groups = parameter_groups(
        model,
        config.weight_decay,
        official_decay_bug=config.official_decay_bug,
        backbone_lr=config.backbone_lr,
        muon=muon,
    )
    return (Muon if muon else torch.optim.AdamW)([group for group in groups if group["params"]], lr=config.lr)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step `step`, counted from 0 over the whole run."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        start = config.lr * 1e-3
        return start + (config.lr - start) * step / warmup
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(step >= round(epoch * steps_per_epoch) for epoch in config.drop_at)
    progress = min(step / (config.epochs * steps_per_epoch), 1.0)
    shapes = {"linear": 1 - progress, "poly": (1 - progress) ** 0.9, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return config.min_lr + (config.lr - config.min_lr) * shapes[config.schedule]
