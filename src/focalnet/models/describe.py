"""One description out of what a call says, what weights say of themselves, and what a name means.

The strongest wins, fact by fact (`weights.spec.Said`). Weights of a whole network are described by their file, and a
name or an option that contradicts them is refused: half a fit gives garbage in silence. Weights of another kind, and a
classifier's, only start a network: the name says what to build, and they are adapted to it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from focalnet import inputs
from focalnet.errors import UserError, unknown
from focalnet.models.family import Family
from focalnet.models.loading import load, other_blocks
from focalnet.models.registry import get_family, parse_name, usual
from focalnet.variants import VARIANTS, FocalNetConfig
from focalnet.weights.adapt import CLASSES_1K, CLASSES_22K
from focalnet.weights.hub import imagenet_classes
from focalnet.weights.sources import Source, Weights
from focalnet.weights.sources import named as source_name
from focalnet.weights.spec import UNKNOWN, UNSET, ModelSpec, Said, merge

COMPARED = (
    "embed_dim", "depths", "focal_levels", "focal_windows", "mlp_ratio", "patch_size", "in_channels", "use_conv_embed",
    "use_postln_in_modulation", "spatial_dims",
)  # fmt: skip
"""What a name must say as the shapes of a whole network do."""
CALL = ("name", "weights", "num_classes", "classes", "head", "recompute", "device")
"""The arguments of `create_model` itself, for whom one was misspelled."""
ELSEWHERE = {
    "pretrained": 'weights="official" loads the released weights, and weights="timm" those of timm',
    "checkpoint_path": "weights=PATH loads a file",
    "in_chans": "it is in_channels here",
    "features_only": "create_backbone gives the maps of all stages",
    "out_indices": "create_backbone gives the maps of all stages",
    "global_pool": "a FocalNet averages; forward_features gives the map",
}
"""What calls of timm say, and what they mean here."""


def describe_call(
    name: str | None,
    head: str | None,
    weights: Source | None,
    overrides: Mapping[str, Any],
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[ModelSpec, Weights | None, bool]:
    """What to build, the weights for it, and whether its head is to be new although the weights have one.

    Args:
        name, head, weights, num_classes, classes: as in `create_model`.
        overrides: fields of `FocalNetConfig` and options of the family.

    Raises:
        UserError: an unknown name or option, or weights that are missing, damaged, or contradict the call.
    """
    if name is None and weights is None:
        raise UserError("give the name of a model, for example 'focalnet_tiny_lrf', or weights that tell it.")
    named = None if name is None else parse_name(name, head)
    kind = named.head if named else head or "classifier"
    loaded = None if weights is None else load(weights, named.variant if named else None, head=kind)
    if named is None:
        assert loaded is not None
        named = _unnamed(loaded.spec, head)
    family = get_family(named.head)
    call = _call(family, overrides, num_classes, classes)
    if loaded is None:
        return _for_channels(merge(call, named, UNKNOWN)), None, False
    stored, same = loaded.spec, loaded.spec.head == family.name
    if not same and (family.networks or stored.architecture is None):
        raise UserError(f"{source_name(weights or '')} holds a {stored.head}, no start for a {family.name}.")
    check(stored, call, named, where=source_name(weights or ""), name=name, whole=same and family.named)
    kept = _of_classes(stored, call) if same else _start(stored, family, named)
    if not family.named and stored.variant != named.variant and name is not None:
        kept = kept.replace(variant=UNSET, architecture={})
    spec = _for_channels(merge(call, kept, named, UNKNOWN))
    others = same and classes is not None and kept.classes not in (None, spec.classes)
    return spec, loaded, others and stored.says("classes") != Said.GUESS


def check(stored: ModelSpec, call: ModelSpec, named: ModelSpec, *, where: str, name: str | None, whole: bool) -> None:
    """Refuse weights that contradict what is asked for.

    Args:
        stored: what the weights say of themselves.
        call: what the arguments of the call say.
        named: what the name means.
        where: the weights, as they were written.
        name: the name, as it was written.
        whole: whether the weights are a whole network of this family, which nothing adapts.

    Raises:
        UserError: two disagree; the sentence has both, and how to mend it.
    """
    claims = merge(call, named)
    asked = {path: value for path, (value, by) in claims.facts().items() if by < Said.DEFAULT}
    prefix = "architecture."
    fields = {path.removeprefix(prefix): value for path, value in asked.items() if path.startswith(prefix)}
    if stored.architecture is not None:
        full = vars(stored.architecture.replace(**fields))  # one number for all stages, or one per stage
        asked |= {f"{prefix}{field}": full[field] for field in fields}
    there = {path: value for path, (value, _) in stored.facts().items()}
    free = {f"head_options.{option}" for option in get_family(stored.head).free}
    options = [path for path in there if path.startswith("head_options.") and path not in free]
    adapted = f"{prefix}in_channels"
    compared = [path for field in COMPARED if (path := f"{prefix}{field}") in there]
    for path in (*compared, *options) if whole else ():
        if asked.get(path, there[path]) == there[path] or (path == adapted and claims.says(path) == Said.CALL):
            continue
        field, who = path.partition(".")[2], "the call" if claims.says(path) == Said.CALL else name
        if who == name and path not in options:
            says, mend = f"{who} has {asked[path]}", "take the name that fits the file, or leave it out"
        else:
            says, mend = f"{who} asks for {asked[path]}", "leave the option out, or take weights that fit"
        raise UserError(f"{where} has {field}={there[path]}, {says}; {mend}.")
    post = f"{prefix}use_postln"
    if stored.says(post) == Said.SHAPES and asked.get(post, there[post]) != there[post]:
        raise UserError(other_blocks(there[post]))


def class_names(spec: ModelSpec, num_classes: int) -> tuple[str, ...] | None:
    """Names of the first `num_classes` logits of weights, if they keep a meaning."""
    if num_classes == spec.num_classes:
        return spec.classes
    return imagenet_classes() if (spec.num_classes, num_classes) == (CLASSES_22K, CLASSES_1K) else None


def _call(
    family: Family, overrides: Mapping[str, Any], num_classes: int | None, classes: Sequence[str] | None
) -> ModelSpec:
    """What the arguments of a call say."""
    fields: Mapping[str, Any] = {} if family.networks else FocalNetConfig.__dataclass_fields__
    if family.networks and (num_classes or classes):
        raise UserError(f"a {family.name} knows no classes; leave num_classes and classes out.")
    own = family.options() if overrides.keys() - fields.keys() else []
    for option in overrides:
        if option not in own and option not in fields:
            if option in ELSEWHERE:
                raise UserError(f"create_model has no option {option!r}: {ELSEWHERE[option]}.")
            raise unknown(
                f"option of {family.name}" if family.named else "FocalNet option", option, [*fields, *own, *CALL]
            )
    facts: dict[str, Any] = {"architecture": {key: value for key, value in overrides.items() if key in fields}}
    facts["head_options"] = {key: value for key, value in overrides.items() if key not in fields}
    if classes is not None:
        facts["classes"] = tuple(classes)
    if num_classes is not None or classes is not None:
        facts["num_classes"] = len(facts["classes"]) if num_classes is None else num_classes
    return ModelSpec.partial(Said.CALL, **facts)


def _for_channels(spec: ModelSpec) -> ModelSpec:
    """The spec, with a mean and a std for each channel of its images."""
    how = spec.preprocessing
    if spec.architecture is None or not isinstance(how, inputs.Image) or how.channels == spec.architecture.in_channels:
        return spec
    return dataclasses.replace(spec, preprocessing=how.for_channels(spec.architecture.in_channels))


def _unnamed(stored: ModelSpec, head: str | None) -> ModelSpec:
    """What a call without a name means: the network that the weights are of, or their backbone in another family."""
    family = get_family(head or stored.head)
    if not family.named and family.learns == "class" and stored.head != family.name:
        raise UserError(
            f"{stored.source or 'the weights'}: a {stored.head}, no {family.name}; take its own kind of model."
        )
    if family.named and family.name != stored.head and stored.variant in VARIANTS:
        return parse_name(stored.variant, family.name)
    plain = usual(family, stored.variant)
    return plain.replace(head_options={})


def _start(stored: ModelSpec, family: Family, named: ModelSpec) -> ModelSpec:
    """What weights of another family say of a network that they start."""
    facts: dict[str, Any] = {"licence": stored.licence, "source": stored.source}
    if not family.named:
        facts |= {"num_classes": stored.num_classes, "preprocessing": stored.preprocessing}
    elif isinstance(named.preprocessing, inputs.Image) and isinstance(stored.preprocessing, inputs.Image):
        like = {"mean": stored.preprocessing.mean, "std": stored.preprocessing.std}
        facts["preprocessing"] = dataclasses.replace(named.preprocessing, **like)
    if stored.architecture is not None and stored.variant == named.variant:
        changed = family.changes(named.variant).architecture
        facts["architecture"] = {key: value for key, value in vars(stored.architecture).items() if key not in changed}
        facts["variant"] = stored.variant
    return ModelSpec.partial(Said.FILE, **facts)


def _of_classes(stored: ModelSpec, call: ModelSpec) -> ModelSpec:
    """What weights say of a network of their own family that may have other classes."""
    if "num_classes" not in call.facts():
        return stored
    same = call.num_classes == stored.num_classes and (call.classes or stored.classes) == stored.classes
    return stored.replace(
        num_classes=call.num_classes,
        classes=class_names(stored, call.num_classes),
        things=stored.things if same else None,
        category_ids=stored.category_ids if same else None,
        threshold=stored.threshold if same else None,
    )
