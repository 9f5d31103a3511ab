"""Models by name, with weights in them.

A network is described by its `ModelSpec`; its family says which class builds it. `create_model` and
`create_backbone` put together the spec, in this order of strength: what the call says, what the weights say about
themselves, the row of the name. Weights then go file -> official names -> adapted to this network ->
`load_state_dict(strict=True)`.

A detector or segmenter takes weights of its own kind whole, or the backbone out of any others: then its head is new.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from focalnet.backbone import FocalNet, Recompute
from focalnet.errors import UserError
from focalnet.models.base import DenseModel
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.models.fitting import config_of, fields, fitted, refuse_other, refuse_unseen
from focalnet.models.loading import load
from focalnet.models.registry import Wanted, build, get_family, parse_name, split_overrides
from focalnet.variants import get_variant
from focalnet.weights.adapt import CLASSES_1K, CLASSES_22K
from focalnet.weights.architecture import match_variant
from focalnet.weights.hub import default_preprocessing, imagenet_classes
from focalnet.weights.sources import Weights
from focalnet.weights.spec import ModelSpec

Model = TypeVar("Model", bound=nn.Module)


def create_model(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
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
            id, or None for random weights. A detector or segmenter takes the backbone out of weights of another kind.
        num_classes: logits; without it, one per name in `classes`, else what the weights have, else what the published
            network has. Another number than the weights have gives a new head; 0 gives a classifier's pooled features.
        classes: names of the classes. Other names than the weights have give a new head.
        head: a family of networks to put on a bare variant, for example "upernet".
        recompute: what the backward pass computes again to save memory: "none", "context" or "block".
        device: where to put the model.
        overrides: fields of `FocalNetConfig`, for example `drop_path_rate=0.3`, `focal_windows=9`, and arguments of the
            head's class, for example `num_queries=300`.

    Returns:
        the model; `model.spec` tells its classes and how it wants its images. With weights it is in evaluation mode.

    Raises:
        UserError: an unknown name or option, or weights that are missing, damaged, or do not fit.
        MissingExtraError: the head comes from a package that is not installed.

    Example:
        >>> model = focalnet.create_model("focalnet_tiny_lrf", weights="official")
        >>> model = focalnet.create_model("focalnet_base_srf", weights="b.pth", classes=["rose", "tulip"])
        >>> model = focalnet.create_model("mask_rcnn_focalnet_tiny_lrf", weights="official", classes=["cat", "dog"])
    """
    spec, loaded = _prepare(name, head, weights, overrides)
    if spec.head == "backbone":
        raise UserError(f"{weights} holds a backbone, no classifier; use create_backbone for its features.")
    return _assemble(spec, loaded, num_classes, classes, recompute, device)


def _assemble(
    spec: ModelSpec,
    loaded: Weights | None,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    recompute: Recompute = "none",
    device: torch.device | str | None = None,
) -> Any:
    names = None if classes is None else tuple(classes)
    if num_classes is None:
        num_classes = len(names) if names is not None else spec.num_classes
    if num_classes < get_family(spec.head).least_classes:
        raise UserError(f"a {spec.head} needs a class at least; create_backbone gives the maps alone.")
    fresh_head = False
    known = loaded.spec if loaded is not None and loaded.spec.head == spec.head else None
    if names is not None:
        guessed = loaded is not None and loaded.guessed
        fresh_head = known is not None and not guessed and _class_names(known, num_classes) not in (None, names)
    elif known is not None:
        names = _class_names(known, num_classes)
    things = spec.things if (spec.num_classes, spec.classes) == (num_classes, names) else None
    spec = spec.replace(num_classes=num_classes, classes=names, things=things)
    model = build(spec, recompute=recompute)
    return _finish(model, loaded, device, fresh_head=fresh_head)


def load_model(model: str | Path, weights: str | Path | None = None) -> Any:
    """A network to use as it is, from what a user wrote: a place, or a name and where its weights are.

    Args:
        model: a run folder, model folder, weight file or hub id; or, with `weights`, the name of a variant.
        weights: as in `create_model`.

    Raises:
        UserError: neither a place nor a name, or weights that are missing, damaged, or do not fit.
    """
    if weights is None and (Path(model).exists() or "/" in str(model)):
        return create_model(weights=model)
    parse_name(str(model))
    if weights is None:
        raise UserError(f"{model} has no weights; say where they are, for example --weights official.")
    spec, loaded = _prepare(str(model), None, weights, {})
    if loaded and loaded.spec.head != spec.head:
        raise UserError(
            f"{weights} holds a {loaded.spec.head}, so the head of {model} would be random; train it first, or name "
            f"a {loaded.spec.head}."
        )
    return _assemble(spec, loaded)


def create_backbone(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    out_indices: Sequence[int] | None = None,
    frozen_stages: int = -1,
    recompute: Recompute = "none",
    device: torch.device | str | None = None,
    **overrides: Any,
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
    spec, loaded = _prepare(name, "backbone", weights, overrides)
    spec = spec.replace(num_classes=0, classes=None)
    options = {} if out_indices is None else {"out_indices": out_indices}
    model = build(spec, frozen_stages=frozen_stages, recompute=recompute, **options)
    return _finish(model, loaded, device)


def load_weights(model: Model, weights: str | Path) -> Model:
    """Put weights into a model that exists, adapting them as `create_model` does.

    Args:
        model: a classifier, a backbone, a detector or a segmenter.
        weights: as in `create_model`.

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
            head=head, architecture=architecture, num_classes=num_classes, classes=None, head_options={}
        )
    if loaded.told:
        refuse_unseen(config_of(model), loaded.spec.architecture, str(weights))
    model.load_state_dict(fitted(model, loaded, fresh_head=False))
    names = _class_names(loaded.spec, spec.num_classes) if loaded.spec.head == head else None
    if names is not None and names != spec.classes and not (loaded.guessed and spec.classes):
        spec = spec.replace(classes=names, things=loaded.spec.things, task=loaded.spec.task)
    model.spec = spec.replace(  # type: ignore[assignment]  # of any module
        preprocessing=spec.preprocessing if isinstance(model, DenseModel) else loaded.spec.preprocessing,
        licence=loaded.spec.licence,
        source=loaded.spec.source,
    )
    return model


def _prepare(
    name: str | None, head: str | None, weights: str | Path | None, overrides: dict[str, Any]
) -> tuple[ModelSpec, Weights | None]:
    """What to build, and the weights for it: the call over the weights over the table."""
    if name is None and weights is None:
        raise UserError("give the name of a model, for example 'focalnet_tiny_lrf', or weights that tell it.")
    wanted = None if name is None else parse_name(name, head)
    kind = wanted.head if wanted else head or "classifier"
    loaded = None if weights is None else load(weights, wanted.variant if wanted else None, head=kind)
    if wanted is None:
        assert loaded is not None
        kind = head or loaded.spec.head
        wanted = _as_loaded(loaded, kind)
    architecture, options = split_overrides(kind, overrides)
    if loaded is not None and loaded.spec.head == kind and get_family(kind).named:
        scales = {key: wanted.head_options[key] for key in ("num_feature_levels",) if key in wanted.head_options}
        refuse_other(wanted, architecture, {**scales, **options}, loaded.spec, str(weights))
        spec = loaded.spec
        spec = spec.replace(
            architecture=spec.architecture.replace(**architecture),
            head_options={**(wanted.head_options if name else {}), **spec.head_options, **options},
        )
        return spec, loaded
    base = wanted.architecture
    if loaded is not None and loaded.spec.variant == wanted.variant:
        row = fields(get_variant(wanted.variant))
        grown = {name: value for name, value in fields(base).items() if value != row[name]}
        base = loaded.spec.architecture.replace(**grown)
    like = default_preprocessing(wanted.variant) if loaded is None else loaded.spec.preprocessing
    if wanted.preprocessing is not None:
        like = dataclasses.replace(wanted.preprocessing, mean=like.mean, std=like.std)
    spec = ModelSpec(
        variant=wanted.variant,
        architecture=base.replace(**architecture),
        head=kind,
        head_options={**wanted.head_options, **options},
        num_classes=wanted.num_classes or (loaded.spec.num_classes if loaded else CLASSES_1K),
        preprocessing=like,
        licence=loaded.spec.licence if loaded else None,
        source=loaded.spec.source if loaded else None,
    )
    return spec, loaded


def _as_loaded(loaded: Weights, head: str) -> Wanted:
    """The call that names nothing: what the weights are, or their backbone under another head."""
    spec = loaded.spec
    if head in ("classifier", "backbone", spec.head):
        if head == "classifier" and spec.head != head:
            raise UserError(
                f"{spec.source or 'the weights'}: a {spec.head}, no classifier; take its own kind of model."
            )
        return Wanted(
            name=spec.variant, head=head, variant=spec.variant, architecture=spec.architecture,
            head_options=spec.head_options if head == spec.head else {},
        )  # fmt: skip
    return parse_name(spec.variant, head)


def _class_names(spec: ModelSpec, num_classes: int) -> tuple[str, ...] | None:
    """Names of the first `num_classes` logits of weights, if they keep a meaning."""
    if num_classes == spec.num_classes:
        return spec.classes
    return imagenet_classes() if (spec.num_classes, num_classes) == (CLASSES_22K, CLASSES_1K) else None


def _finish(model: Any, loaded: Weights | None, device: torch.device | str | None, *, fresh_head: bool = False) -> Any:
    if loaded is not None:
        model.load_state_dict(fitted(model, loaded, fresh_head=fresh_head))
        model.eval()
    return model if device is None else model.to(device)
