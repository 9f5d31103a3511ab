"""Find, read and understand weights of any family: a detector's or segmenter's file is seen from its names, and read by
the layout of its family; any other file goes the classifier's way, which no detector's code takes part in.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from focalnet.errors import UserError
from focalnet.models.registry import find_layout, get_family
from focalnet.variants import get_variant
from focalnet.weights.architecture import infer_architecture, match_backbone, under
from focalnet.weights.files import Checkpoint, read_checkpoint, whole
from focalnet.weights.layouts import Layout
from focalnet.weights.sources import Located, Weights, load_classifier, resolve, say_what_is_unsettled, stored_spec
from focalnet.weights.spec import ModelSpec

logger = logging.getLogger(__name__)


def load(weights: str | Path, variant: str | None = None, *, head: str = "classifier") -> Weights:
    """Find, read and rename weights.

    Args:
        weights: what `weights.sources` lists.
        variant: the model's name, where it is known.
        head: what stands on the model's backbone.

    Raises:
        UserError: they are not found, damaged, no FocalNet's, or of an unknown variant and `variant` is not given.
    """
    located = resolve(weights, variant, head=head)
    checkpoint = read_checkpoint(located.path)
    with whole(located.path):
        layout = find_layout(checkpoint.state_dict)
        if layout is None:
            return load_classifier(located, checkpoint, variant)
        return _load_dense(layout, located, checkpoint, variant)


def _load_dense(layout: Layout, located: Located, checkpoint: Checkpoint, variant: str | None) -> Weights:
    weights = layout.read(checkpoint.state_dict)
    spec, guessed = describe_dense(layout, weights, located, checkpoint, variant)
    if spec is None:
        raise UserError(f"{located.path} fits no known variant; name the model, with what was changed.")
    told = layout.name != "focalnet" or stored_spec(located, checkpoint) is not None
    return Weights(weights, spec, spec.architecture.use_postln, layout.backbone_prefix, guessed=guessed, told=told)


def describe_dense(
    layout: Layout,
    weights: Mapping[str, Tensor],
    located: Located,
    checkpoint: Checkpoint,
    variant: str | None = None,
) -> tuple[ModelSpec | None, bool]:
    """The network of a detector or segmenter, and whether its class names are guessed from their number.

    Args:
        layout: what the file's names follow.
        weights: under our names.
        located: where the file was found.
        checkpoint: what is in it.
        variant: of the backbone, where it is known.

    Returns:
        None in place of the network where its backbone is of no known variant and `variant` is not given.

    Raises:
        UserError: a part is missing.
    """
    spec = stored_spec(located, checkpoint)
    described = spec is not None and spec.head == layout.head
    if spec is not None and described and (spec.classes is not None or located.spec is not None):
        return spec, False
    if spec is None or not described:
        facts = layout.facts(weights)
        trunk = under(weights, layout.backbone_prefix)
        name = match_backbone(trunk) or variant
        if name is None:
            return None, False
        seen = infer_architecture(trunk)
        shapes = {field: getattr(seen, field) for field in ("focal_levels", "focal_windows", "focal_factor")}
        spec = ModelSpec(
            variant=name,
            architecture=get_variant(name).replace(**shapes, **facts.overrides),
            head=layout.head,
            head_options=facts.head_options,
            num_classes=facts.num_classes,
            preprocessing=facts.preprocessing,
            licence=located.entry.licence if located.entry else None,
            source=located.entry.url if located.entry else located.path.name,
        )
        say_what_is_unsettled(spec)
    known = dict(get_family(layout.head).classes_of(spec.num_classes, spec.architecture))
    if described:
        known.pop("preprocessing", None)
    names = checkpoint.classes
    if names is not None and len(names) != spec.num_classes:
        logger.info("%s: %d names for %d classes, left out", located.path.name, len(names), spec.num_classes)
    elif names is not None:
        return spec.replace(**(known if names == known.get("classes") else {"classes": names})), False
    guessed = bool(known) and located.entry is None
    if guessed:
        logger.info(
            "%s: %d classes without names are taken for %s, …; classes= says otherwise",
            located.path.name, spec.num_classes, ", ".join(known["classes"][:3]),
        )  # fmt: skip
    return spec.replace(**known), guessed
