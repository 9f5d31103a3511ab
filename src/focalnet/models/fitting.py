"""Whether weights fit a model: what is refused before a tensor is copied, and the tensors that then go in.

Shapes show most of a network, and `weights.adapt` compares them. What no shape shows (padding of the stem, order of
the norms, division of the modulator) is compared here, with what the weights say about themselves.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from focalnet.errors import UserError
from focalnet.models.base import DenseModel
from focalnet.models.registry import Wanted, build
from focalnet.variants import FocalNetConfig
from focalnet.weights.adapt import adapt_dense, adapt_state_dict
from focalnet.weights.sources import Weights
from focalnet.weights.spec import ModelSpec


def config_of(model: nn.Module) -> FocalNetConfig:
    """The architecture of a model's backbone."""
    network: Any = model.focalnet if isinstance(model, DenseModel) else model
    return network.config


def fields(architecture: FocalNetConfig) -> dict[str, Any]:
    """An architecture, field by field."""
    return dataclasses.asdict(architecture)


def refuse_other(
    wanted: Wanted, changes: Mapping[str, Any], options: Mapping[str, Any], stored: ModelSpec, weights: str
) -> None:
    """Refuse weights of this head whose shapes another name describes: half a fit gives garbage in silence."""
    there, here = fields(stored.architecture), fields(wanted.architecture.replace(**changes))
    for name in ("embed_dim", "depths", "focal_levels", "focal_windows"):
        if there[name] != here[name]:
            raise UserError(
                f"{weights} has {name}={there[name]}, {wanted.name} has {here[name]}; take the name that fits the "
                "file, or leave it out."
            )
    kept = stored.head_options
    for name, value in options.items():
        if name in kept and kept[name] != value:
            raise UserError(
                f"{weights} has {name}={kept[name]}, {wanted.name} asks for {value}; leave the option out, or take "
                "weights that fit."
            )


def refuse_unseen(model: FocalNetConfig, stored: FocalNetConfig, weights: str) -> None:
    """Refuse a detector's or segmenter's weights for a backbone that differs from theirs in what no shape shows."""
    for name in ("normalize_modulator", *(["stem_padding"] if model.use_conv_embed else [])):
        there, here = getattr(stored, name), getattr(model, name)
        if there != here:
            raise UserError(
                f"{weights} is of a network with {name}={there}, the model has {name}={here}; build it with the "
                "former, or give the weights to create_model."
            )


def fitted(model: nn.Module, loaded: Weights, *, fresh_head: bool) -> dict[str, torch.Tensor]:
    """A state dict that `model.load_state_dict(..., strict=True)` takes.

    Args:
        model: what is loaded.
        loaded: the weights.
        fresh_head: keep the model's own parameters of the classes, because the classes are others.

    Raises:
        UserError: blocks of another kind, or names or shapes that differ.
    """
    config = config_of(model)
    if loaded.use_postln not in (None, config.use_postln):
        there, here = ("res-post-norm" if post else "pre-norm" for post in (loaded.use_postln, config.use_postln))
        raise UserError(
            f"the weights are of {there} blocks, the model has {here} ones; build it with "
            f"use_postln={loaded.use_postln}."
        )
    if not isinstance(model, DenseModel):
        return adapt_state_dict(loaded.trunk(), model, fresh_head=fresh_head)
    spec: ModelSpec = getattr(model, "spec", loaded.spec)
    same, there = spec.head == loaded.spec.head, loaded.spec.num_classes
    written = None
    if same and (fresh_head or there != spec.num_classes):
        with torch.device("meta"):
            written = build(spec.replace(num_classes=there, classes=None, things=None)).state_dict()
    return adapt_dense(
        loaded.state_dict if same else loaded.trunk(),
        model,
        trunk=model.focalnet,
        prefix=model.backbone_prefix,
        class_parameters=set(model.class_parameters()),
        whole=same,
        written=written,
    )
