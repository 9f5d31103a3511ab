"""From what a user writes after `weights=` to a network's tensors under our names, what they are of, and into a model.

    weights.sources -> files -> a layout's names -> ours -> one description -> adapted -> `load_state_dict(strict=True)`

The file of a whole network (a detector, a segmenter) is seen from its names and read by a layout of its family. Any
other file goes the classifier's way, in which no family's code takes part.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from focalnet.backbone import FocalNetBase
from focalnet.errors import UserError
from focalnet.models.base import Network
from focalnet.models.registry import build, families, find_layout, get_family, names_of, parse_name
from focalnet.variants import FocalNetConfig, get_variant
from focalnet.weights.adapt import adapt_dense, adapt_state_dict
from focalnet.weights.architecture import UNSEEN, alike, contradiction, match_backbone, seen_facts, under
from focalnet.weights.files import IN_MEMORY, Checkpoint, amiss, checkpoint_of, read_checkpoint, whole
from focalnet.weights.hub import default_preprocessing
from focalnet.weights.layouts import Layout
from focalnet.weights.sources import (
    Located,
    Source,
    Weights,
    load_classifier,
    refuse_config,
    resolve,
    say_what_is_unsettled,
    stored_spec,
)
from focalnet.weights.spec import CUSTOM, UNKNOWN, ModelSpec, Said, merge

logger = logging.getLogger(__name__)


def load(weights: Source, variant: str | None = None, *, head: str = "classifier") -> Weights:
    """Find, read and rename weights.

    Args:
        weights: what `weights.sources` lists, or a state dict.
        variant: the model's name, where it is known.
        head: what stands on the model's backbone.

    Raises:
        UserError: they are not found, damaged, NaN, no FocalNet's, or a classifier's of an unknown variant and
            `variant` is not given.
    """
    if isinstance(weights, Mapping):
        located, checkpoint = Located(IN_MEMORY), checkpoint_of(weights)
    else:
        folder = Path(weights).expanduser()
        joined = read_parts(folder)
        located = Located(folder) if joined else resolve(os.fspath(weights), variant, head=head)
        checkpoint = joined or read_checkpoint(located.path)
    layout = find_layout(checkpoint.state_dict)
    if what := amiss(layout.read_by(checkpoint.state_dict) if layout else checkpoint.state_dict):
        raise UserError(f"{located.path} is of no use: {what}; take another file, or an earlier checkpoint.")
    with whole(located.path):
        if layout is None:
            return load_classifier(located, checkpoint, variant)
        ours = layout.read(checkpoint.state_dict)
        return Weights(ours, describe(layout, ours, located, checkpoint, variant), layout.backbone_prefix or "")


def read_parts(folder: Path) -> Checkpoint | None:
    """The files in a folder that are one network together, as one, if they are all there."""
    for family in families():
        if family.parts and all((folder / name).is_file() for name in family.parts):
            read = {prefix: read_checkpoint(folder / name).state_dict for name, prefix in family.parts.items()}
            return Checkpoint({prefix + name: row[name] for prefix, row in read.items() for name in row}, {})
    return None


def describe(
    layout: Layout, weights: Mapping[str, Tensor], located: Located, checkpoint: Checkpoint, variant: str | None = None
) -> ModelSpec:
    """The network that a file of a layout holds.

    Args:
        layout: what the file's names follow.
        weights: its tensors under our names.
        located: where the file was found.
        checkpoint: what is in it.
        variant: of the backbone, where it is known.

    Raises:
        UserError: a part is missing.
    """
    stored = stored_spec(located, checkpoint)
    if located.config is not None and layout.described is None:
        refuse_config(located)
    elif located.config is not None and layout.described is not None:
        stored = layout.described(located.config, str(located.path.with_name("config.json")), weights)
    described = stored is not None and stored.head == layout.head
    if stored is None or not described:
        stored = _read_off(layout, weights, located, variant)
    else:
        _check_description(stored, layout, weights, located.path)
        if stored.classes is not None or located.spec is not None:
            return stored
    if stored.architecture is None:
        return stored
    known = dict(get_family(layout.head).classes_of(stored.num_classes, stored.architecture))
    if described:
        known.pop("preprocessing", None)
    names = checkpoint.classes
    if names is not None and len(names) == stored.num_classes:
        return stored.replace(**(known if names == known.get("classes") else {"classes": names}))
    if names is not None:
        logger.info("%s: %d names for %d classes, left out", located.path.name, len(names), stored.num_classes)
    if not known or located.entry is not None:
        return stored.replace(**known)
    logger.info(
        "%s: %d classes without names are taken for %s, …; classes= says otherwise",
        located.path.name, stored.num_classes, ", ".join(known["classes"][:3]),
    )  # fmt: skip
    spec = stored.replace(**known)
    return spec.replace(said={**spec.said, **dict.fromkeys(known.keys() - {"preprocessing"}, Said.GUESS)})


def _check_description(stored: ModelSpec, layout: Layout, weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a description that is not of these tensors.

    Raises:
        UserError: it says otherwise than the shapes.
    """
    what, there = None, stored.facts()
    if stored.architecture is not None:
        what = contradiction(stored.architecture, under(weights, layout.backbone_prefix or ""))
    for fact, (shown, by) in layout.facts(weights).facts().items():
        if by == Said.SHAPES and fact in there and there[fact][0] != shown:
            what = what or f"the description says {fact.rpartition('.')[2]}={there[fact][0]}, the tensors show {shown}"
    if what:
        raise UserError(f"{path} and its description do not belong together: {what}; put the right one back.")


def _read_off(layout: Layout, weights: Mapping[str, Tensor], located: Located, variant: str | None) -> ModelSpec:
    """What the shapes of a file tell, what its layout means, and what is usual where neither does."""
    if layout.backbone_prefix is None:
        return _by_name(layout, weights, located, variant)
    backbone = under(weights, layout.backbone_prefix)
    seen, facts = seen_facts(backbone), layout.facts(weights)
    matched = match_backbone(backbone)
    name = matched or variant
    row = vars(get_variant(name)) if name else alike(seen)
    if (row.get("layerscale_value") is None) == (seen["layerscale_value"] is None):
        seen.pop("layerscale_value")  # shapes show whether there is one, not its first value
    published = layout.name != "focalnet"  # not our own names: the file is of the published network
    meant = {option: row[option] for option in UNSEEN if option in row} if published and name else {}
    entry = located.entry
    how = get_family(layout.head).preprocessing or default_preprocessing(name or CUSTOM)
    spec = merge(
        ModelSpec.partial(
            Said.FILE, head=layout.head, licence=entry.licence if entry else None,
            source=entry.url if entry else located.path.name,
        ),
        ModelSpec.partial(Said.SHAPES, architecture=seen),
        facts,
        ModelSpec.partial(Said.FILE, architecture=meant),
        ModelSpec.partial(
            Said.SHAPES if matched else Said.NAME if name else Said.GUESS, variant=name or CUSTOM
        ),
        ModelSpec.partial(Said.DEFAULT, architecture=row, preprocessing=how),
        UNKNOWN,
    )  # fmt: skip
    if name is None:
        logger.info(
            "%s: of no known variant, read off its shapes; taken for a network with use_postln=%s and "
            "normalize_modulator=%s, which no shape shows; name the model to say otherwise",
            located.path.name, spec.backbone.use_postln, spec.backbone.normalize_modulator,
        )  # fmt: skip
    say_what_is_unsettled(spec)
    return spec


def _by_name(layout: Layout, weights: Mapping[str, Tensor], located: Located, variant: str | None) -> ModelSpec:
    """What a file without a description holds of a family whose networks have names: the one that the call names."""
    family = get_family(layout.head)
    if variant not in family.networks:
        raise UserError(
            f"{located.path} does not say which {family.name} it is; give its folder with the config.json, or name one "
            f"of {', '.join(names_of(family))}."
        )
    facts = ModelSpec.partial(Said.FILE, source=located.path.name, licence=None)
    return merge(facts, layout.facts(weights), parse_name(f"{family.name}_{variant}"))


def config_of(model: nn.Module) -> FocalNetConfig:
    """The architecture of a model's backbone.

    Raises:
        UserError: it has none.
    """
    network: Any = model if isinstance(model, FocalNetBase) else model.focalnet
    return network.config


def fit(model: nn.Module, loaded: Weights, *, fresh_head: bool) -> dict[str, Tensor]:
    """A state dict that `model.load_state_dict(..., strict=True)` takes.

    Args:
        model: what is loaded.
        loaded: the weights.
        fresh_head: keep the model's own parameters of the classes, because the classes are others.

    Raises:
        UserError: blocks of another kind, or names or shapes that differ.
    """
    stored = loaded.spec
    if isinstance(model, Network) and model.backbone_prefix is None:
        if stored.head != model.spec.head:
            raise UserError(f"the weights are of a {stored.head}, the model is a {model.spec.head}.")
        return adapt_dense(loaded.state_dict, model, backbone=model, prefix="", class_parameters=(), whole=True)
    config = config_of(model)
    if stored.architecture is None:
        raise UserError(f"the weights are of a {stored.head}, which has no FocalNet inside.")
    there = stored.architecture.use_postln
    if stored.says("architecture.use_postln") <= Said.SHAPES and there != config.use_postln:
        raise UserError(other_blocks(there))
    if isinstance(model, FocalNetBase):
        return adapt_state_dict(loaded.backbone(), model, fresh_head=fresh_head)
    assert isinstance(model, Network)
    assert model.backbone_prefix is not None
    spec: ModelSpec = getattr(model, "spec", stored)
    same, written = spec.head == stored.head, None
    if same and (fresh_head or stored.num_classes != spec.num_classes):
        with torch.device("meta"):
            written = build(
                spec.replace(
                    num_classes=stored.num_classes, classes=None, things=None, category_ids=None, threshold=None
                )
            ).state_dict()
    return adapt_dense(
        loaded.state_dict if same else loaded.backbone(),
        model,
        backbone=model.focalnet,
        prefix=model.backbone_prefix,
        class_parameters=set(model.class_parameters()),
        whole=same,
        written=written,
    )


def other_blocks(use_postln: bool) -> str:
    """The sentence for weights whose blocks are of the other kind than the model's."""
    there, here = ("res-post-norm", "pre-norm")[:: 1 if use_postln else -1]
    return f"the weights are of {there} blocks, the model has {here} ones; build it with use_postln={use_postln}."


def check_unseen(model: nn.Module, loaded: Weights, weights: str) -> None:
    """Refuse weights of a whole network for a backbone that differs from theirs in what no shape shows.

    Raises:
        UserError: it differs, and the file or its layout says so.
    """
    stored = loaded.spec
    if not get_family(stored.head).named or stored.architecture is None:
        return
    here = config_of(model)
    for name in ("normalize_modulator", *(["stem_padding"] if here.use_conv_embed else [])):
        there = getattr(stored.architecture, name)
        if stored.says(f"architecture.{name}") == Said.FILE and there != getattr(here, name):
            raise UserError(
                f"{weights} is of a network with {name}={there}, the model has {name}={getattr(here, name)}; build it "
                "with the former, or give the weights to create_model."
            )
