"""Models by name, with weights in them.

A network is described by its `ModelSpec` (`describe` puts it together), and its family says which class builds it.
Weights then go file -> our names -> adapted to this network -> `load_state_dict(strict=True)` (`loading`).

A detector or segmenter takes weights of its own kind whole, or the backbone out of any others: then its head is new.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack, overload

import torch
from torch import nn

from focalnet.backbone import FocalNet, Recompute
from focalnet.errors import UserError
from focalnet.models.arguments import ArchitectureOptions, ClassifierName, ModelOptions
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.describe import class_names, describe_call
from focalnet.models.exported import is_exported, open_exported
from focalnet.models.loading import check_unseen, config_of, fit, load
from focalnet.models.registry import build, get_family, parse_name
from focalnet.weights.architecture import match_variant
from focalnet.weights.sources import Source, Weights, named
from focalnet.weights.spec import ModelSpec, Said

Model = TypeVar("Model", bound=nn.Module)


@overload
def create_model(
    name: ClassifierName,
    *,
    weights: Source | None = None,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    head: None = None,
    recompute: Recompute = "none",
    device: torch.device | str | None = None,
    **overrides: Unpack[ArchitectureOptions],
) -> FocalNetClassifier: ...
@overload
def create_model(
    name: str | None = None,
    *,
    weights: Source | None = None,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    head: str | None = None,
    recompute: Recompute = "none",
    device: torch.device | str | None = None,
    **overrides: Unpack[ModelOptions],
) -> Any: ...
def create_model(
    name: str | None = None,
    *,
    weights: Source | None = None,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    head: str | None = None,
    recompute: Recompute = "none",
    device: torch.device | str | None = None,
    **overrides: Any,
) -> Any:
    """A classifier, a detector or a segmenter.

    Args:
        name: out of `list_models()`, or any other HEAD_VARIANT; may be left out when the weights tell it.
        weights: "official", "timm", "transformers", a weight file in any layout, a model folder, a run folder, a hub
            id, a state dict, or None for random weights. A detector or segmenter takes the backbone out of weights of
            another kind.
        num_classes: logits; without it, one per name in `classes`, else what the weights have, else what the published
            network has. Another number than the weights have gives a new head; 0 gives a classifier's pooled features.
        classes: names of the classes. Other names than the weights have give a new head.
        head: a family of networks to put on a bare variant, for example "upernet".
        recompute: what the backward pass computes again to save memory: "none", "context" or "block".
        device: where to put the model.
        overrides: fields of `FocalNetConfig`, for example `drop_path_rate=0.3`, `focal_windows=9`, and arguments of the
            head's class, for example `num_queries=300`.

    Returns:
        the model, of its family's class; `model.spec` tells its classes and how it wants its images. With weights it
        is in evaluation mode.

    Raises:
        UserError: an unknown name or option, or weights that are missing, damaged, or do not fit.
        MissingExtraError: the head comes from a package that is not installed.

    Example:
        >>> model = focalnet.create_model("focalnet_tiny_lrf", weights="official")
        >>> model = focalnet.create_model("focalnet_base_srf", weights="b.pth", classes=["rose", "tulip"])
        >>> model = focalnet.create_model("mask_rcnn_focalnet_tiny_lrf", weights="official", classes=["cat", "dog"])
    """
    spec, loaded, fresh_head = describe_call(name, head, weights, overrides, num_classes, classes)
    if spec.head == "backbone":
        where = named(weights or "")
        raise UserError(f"{where} holds a backbone, no classifier; use create_backbone for its features.")
    if spec.num_classes < get_family(spec.head).least_classes:
        raise UserError(f"a {spec.head} needs a class at least; create_backbone gives the maps alone.")
    return _finish(build(spec, recompute=recompute), loaded, device, fresh_head=fresh_head)


def load_model(model: str | Path, weights: Source | None = None) -> Any:
    """A network to use as it is, from what a user wrote: a place, or a name and where its weights are.

    Args:
        model: a run folder, model folder, weight file, exported file or hub id; or, with `weights`, the name of a
            variant.
        weights: as in `create_model`.

    Raises:
        UserError: neither a place nor a name, or weights that are missing, damaged, or do not fit.
    """
    if weights is None and is_exported(model):
        return open_exported(model)
    if weights is None and (Path(model).exists() or "/" in str(model)):
        return create_model(weights=os.fspath(model))
    parse_name(str(model))
    if weights is None:
        raise UserError(f"{model} has no weights; say where they are, for example --weights official.")
    spec, loaded, _ = describe_call(str(model), None, weights, {})
    if loaded and loaded.spec.head != spec.head:
        raise UserError(
            f"{named(weights)} holds a {loaded.spec.head}, so the head of {model} would be random; train it first, or "
            f"name a {loaded.spec.head}."
        )
    return _finish(build(spec), loaded)


def create_backbone(
    name: str | None = None,
    *,
    weights: Source | None = None,
    out_indices: Sequence[int] | None = None,
    frozen_stages: int = -1,
    recompute: Recompute = "none",
    device: torch.device | str | None = None,
    **overrides: Unpack[ArchitectureOptions],
) -> FocalNet:
    """The dense backbone: feature maps for detection and segmentation.

    Args:
        name: a variant out of `list_models()`; may be left out when the weights tell it.
        weights: as in `create_model`; the classifier's norm and head are left out.
        out_indices: the stages to return, all of them by default.
        frozen_stages: see `FocalNet`.
        recompute: as in `create_model`.
        device: where to put the model.
        overrides: fields of `FocalNetConfig`. Published detectors grow the kernels: `focal_windows=9`.

    Returns:
        the backbone, with `.channels` and `.strides`. With weights it is in evaluation mode.

    Raises:
        UserError: an unknown name or option, or weights that are missing, damaged, or do not fit.
    """
    spec, loaded, _ = describe_call(name, "backbone", weights, overrides)
    spec = spec.replace(num_classes=0, classes=None)
    options = {} if out_indices is None else {"out_indices": out_indices}
    model = build(spec, frozen_stages=frozen_stages, recompute=recompute, **options)
    return _finish(model, loaded, device)


def load_weights(model: Model, weights: Source) -> Model:
    """Put weights into a model that exists, adapting them as `create_model` does.

    Args:
        model: a classifier, a backbone, a detector or a segmenter.
        weights: as in `create_model`: a source, a file, a folder, or a state dict in any layout.

    Returns:
        `model`, with `spec` brought up to date.

    Raises:
        UserError: weights that are missing, damaged, or do not fit.
    """
    spec: ModelSpec | None = getattr(model, "spec", None)
    head = spec.head if spec else "classifier" if isinstance(model, FocalNetClassifier) else "backbone"
    loaded = load(weights, spec.variant if spec else match_variant(config_of(model)), head=head)
    if spec is None:
        architecture, num_classes = config_of(model), getattr(model, "num_classes", 0)
        spec = loaded.spec.replace(
            head=head, architecture=architecture, num_classes=num_classes, classes=None, things=None,
            category_ids=None, threshold=None, head_options={},
        )  # fmt: skip
    check_unseen(model, loaded, named(weights))
    model.load_state_dict(fit(model, loaded, fresh_head=False))
    stored = loaded.spec
    names = class_names(stored, spec.num_classes) if stored.head == head else None
    if names not in (None, spec.classes) and not (stored.says("classes") == Said.GUESS and spec.classes):
        spec = spec.replace(
            classes=names, things=stored.things, category_ids=stored.category_ids, task=stored.task,
            threshold=stored.threshold,
        )  # fmt: skip
    model.spec = spec.replace(  # type: ignore[assignment]  # of any module
        preprocessing=spec.preprocessing if get_family(head).named else stored.preprocessing,
        licence=stored.licence,
        source=stored.source,
    )
    return model


def _finish(
    model: Any, loaded: Weights | None, device: torch.device | str | None = None, *, fresh_head: bool = False
) -> Any:
    if loaded is not None:
        model.load_state_dict(fit(model, loaded, fresh_head=fresh_head))
        model.eval()
    return model if device is None else model.to(device)
