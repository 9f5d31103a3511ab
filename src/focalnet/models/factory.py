"""Models by name, with weights in them; and the way back into a folder or onto the hub.

A network is described by its `ModelSpec`; `HEADS` says which class builds each kind of head, and a new kind is one
entry there. `create_model` and `create_backbone` put together the spec, in this order of strength: what the call says,
what the weights say about themselves, the row of `variants`. Weights then go file -> official names -> adapted to this
network -> `load_state_dict(strict=True)`.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from focalnet.backbone import FocalNet, FocalTrunk, Recompute
from focalnet.errors import UserError, unknown
from focalnet.models.classifier import FocalNetClassifier
from focalnet.variants import get_variant
from focalnet.weights.adapt import CLASSES_1K, CLASSES_22K, adapt_state_dict
from focalnet.weights.card import model_card
from focalnet.weights.files import first_line, replacing, write_state_dict
from focalnet.weights.hub import default_preprocessing, imagenet_classes
from focalnet.weights.recognise import match_variant
from focalnet.weights.sources import Weights, load
from focalnet.weights.spec import ModelSpec

Trunk = TypeVar("Trunk", bound=FocalTrunk)


def _classifier(spec: ModelSpec, **options: Any) -> FocalNetClassifier:
    return FocalNetClassifier(spec.architecture, num_classes=spec.num_classes, **options)


def _backbone(spec: ModelSpec, **options: Any) -> FocalNet:
    options.setdefault("out_indices", range(len(spec.architecture.depths)))
    return FocalNet(spec.architecture, **options)


HEADS: dict[str, Callable[..., nn.Module]] = {"classifier": _classifier, "backbone": _backbone}
"""`ModelSpec.head` -> what builds such a network: `builder(spec, **options)`."""


def build(spec: ModelSpec, **options: Any) -> Any:
    """The network of `spec` with random weights; it carries `spec`.

    Args:
        spec: what to build.
        options: of the class, for example `recompute`.

    Raises:
        UserError: the head is of no known kind.
    """
    if spec.head not in HEADS:
        raise unknown("kind of head", spec.head, HEADS)
    model = HEADS[spec.head](spec, **options)
    model.spec = spec  # type: ignore[assignment]  # of any module
    return model


def create_model(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    recompute: Recompute = "none",
    device: torch.device | str | None = None,
    **overrides: Any,
) -> FocalNetClassifier:
    """A classifier.

    Args:
        name: a variant out of `list_models()`; may be left out when the weights tell it.
        weights: "official", "timm", "transformers", a weight file in any layout, a model folder, a run folder, a hub
            id, or None for random weights.
        num_classes: logits; without it, one per name in `classes`, else what the weights have, else 1000. Another
            number than the weights have gives a new head; 0 gives the pooled features.
        classes: names of the classes. Other names than the weights have give a new head.
        recompute: what the backward pass computes again to save memory: "none", "context" or "block".
        device: where to put the model.
        overrides: fields of `FocalNetConfig`, for example `drop_path_rate=0.3`, `focal_windows=9`.

    Returns:
        the model; `model.spec` tells its classes and how it wants its pictures. With weights it is in evaluation mode.

    Raises:
        UserError: an unknown name or option, or weights that are missing, damaged, or do not fit.

    Example:
        >>> model = focalnet.create_model("focalnet_tiny_lrf", weights="official")
        >>> model = focalnet.create_model("focalnet_base_srf", weights="b.pth", classes=["rose", "tulip"])
    """
    spec, loaded = _prepare(name, weights, overrides)
    if loaded and loaded.spec.head != "classifier":
        raise UserError(f"{weights} holds a {loaded.spec.head}, no classifier; use create_backbone for its features.")
    names = None if classes is None else tuple(classes)
    if num_classes is None:
        num_classes = len(names) if names is not None else spec.num_classes
    fresh_head = False
    if names is not None:
        fresh_head = loaded is not None and _class_names(loaded.spec, num_classes) not in (None, names)
    elif loaded is not None:
        names = _class_names(loaded.spec, num_classes)
    spec = spec.replace(num_classes=num_classes, classes=names)
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
    get_variant(str(model))
    if weights is None:
        raise UserError(f"{model} has no weights; say where they are, for example --weights official.")
    return create_model(str(model), weights=weights)


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
    spec, loaded = _prepare(name, weights, overrides)
    spec = spec.replace(head="backbone", num_classes=0, classes=None)
    options = {} if out_indices is None else {"out_indices": out_indices}
    model = build(spec, frozen_stages=frozen_stages, recompute=recompute, **options)
    return _finish(model, loaded, device)


def load_weights(model: Trunk, weights: str | Path) -> Trunk:
    """Put weights into a model that exists, adapting them as `create_model` does.

    Args:
        model: a classifier or backbone.
        weights: as in `create_model`.

    Returns:
        `model`, with `spec` brought up to date.

    Raises:
        UserError: weights that are missing, damaged, or do not fit.
    """
    spec: ModelSpec | None = getattr(model, "spec", None)
    loaded = load(weights, spec.variant if spec else match_variant(model.config))
    if spec is None:
        head = "classifier" if isinstance(model, FocalNetClassifier) else "backbone"
        spec = loaded.spec.replace(
            head=head, architecture=model.config, num_classes=getattr(model, "num_classes", 0), classes=None
        )
    model.load_state_dict(_fitted(model, loaded, fresh_head=False))
    model.spec = spec.replace(
        classes=_class_names(loaded.spec, spec.num_classes) or spec.classes,
        preprocessing=loaded.spec.preprocessing,
        licence=loaded.spec.licence,
        source=loaded.spec.source,
    )
    return model


def save_pretrained(model: FocalTrunk, folder: str | Path) -> Path:
    """Write a model folder: `config.json`, `model.safetensors`, a model card. `create_model(weights=folder)` reads it.

    Args:
        model: made by `create_model` or `create_backbone`.
        folder: made where needed; the three files in it are replaced.

    Returns:
        the folder.

    Raises:
        UserError: the model has no spec, or the disk is full or read-only.
    """
    return _save(model, Path(folder), address=Path(folder).name)


def push_to_hub(
    model: FocalTrunk, repo: str, *, private: bool = False, message: str = "Upload FocalNet", token: str | None = None
) -> str:
    """Publish a model on the Hugging Face hub, with its model card.

    Args:
        model: made by `create_model` or `create_backbone`.
        repo: "organisation/name"; made where needed.
        private: whether a new repository is private.
        message: of the commit.
        token: of the hub; without it, the one of `hf auth login`.

    Returns:
        the address of the repository.

    Raises:
        UserError: the model has no spec, or the hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        _save(model, Path(folder), address=repo)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
        except Exception as error:  # the hub and its http client have many
            raise UserError(
                f"{repo} could not be published ({first_line(error)}); check the name, the connection and "
                "`hf auth login`."
            ) from error
    return f"https://huggingface.co/{repo}"


def _prepare(
    name: str | None, weights: str | Path | None, overrides: dict[str, Any]
) -> tuple[ModelSpec, Weights | None]:
    """What to build, and the weights for it: the call over the weights over the table."""
    if name is None and weights is None:
        raise UserError("give the name of a model, for example 'focalnet_tiny_lrf', or weights that tell it.")
    if name is not None:
        get_variant(name)
    loaded = None if weights is None else load(weights, name)
    variant = name or (loaded.spec.variant if loaded else "")
    same = loaded is not None and loaded.spec.variant == variant
    architecture = loaded.spec.architecture if loaded and same else get_variant(variant)
    spec = ModelSpec(
        variant=variant,
        architecture=architecture.replace(**overrides),
        num_classes=loaded.spec.num_classes if loaded else CLASSES_1K,
        preprocessing=loaded.spec.preprocessing if loaded else default_preprocessing(variant),
        licence=loaded.spec.licence if loaded else None,
        source=loaded.spec.source if loaded else None,
    )
    return spec, loaded


def _class_names(spec: ModelSpec, num_classes: int) -> tuple[str, ...] | None:
    """Names of the first `num_classes` logits of weights, if they keep a meaning."""
    if num_classes == spec.num_classes:
        return spec.classes
    return imagenet_classes() if (spec.num_classes, num_classes) == (CLASSES_22K, CLASSES_1K) else None


def _finish(model: Any, loaded: Weights | None, device: torch.device | str | None, *, fresh_head: bool = False) -> Any:
    if loaded is not None:
        model.load_state_dict(_fitted(model, loaded, fresh_head=fresh_head))
        model.eval()
    return model if device is None else model.to(device)


def _fitted(model: FocalTrunk, loaded: Weights, *, fresh_head: bool) -> dict[str, torch.Tensor]:
    if loaded.use_postln not in (None, model.config.use_postln):
        there, here = (
            ("res-post-norm" if post else "pre-norm") for post in (loaded.use_postln, model.config.use_postln)
        )
        raise UserError(
            f"the weights are of {there} blocks, the model has {here} ones; build it with "
            f"use_postln={loaded.use_postln}."
        )
    return adapt_state_dict(loaded.state_dict, model, fresh_head=fresh_head)


def _save(model: FocalTrunk, folder: Path, address: str) -> Path:
    spec = getattr(model, "spec", None)
    if spec is None:
        raise UserError("the model does not say what it is; make it with create_model or create_backbone.")
    write_state_dict(folder / "model.safetensors", model.state_dict())
    for name, text in (("config.json", spec.to_json()), ("README.md", model_card(spec, address))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder
