"""The families of networks, and the names of whole networks.

A name is FAMILY_VARIANT, and for some families FAMILY_VARIANT_SUFFIX: `mask_rcnn_focalnet_tiny_lrf`,
`dino_focalnet_large_fl4_5scale`; any family goes with any variant. A bare variant is a classifier. A family without a
FocalNet inside names its networks itself.

A new family is one folder under `models/` with its row, and its name in `FAMILIES`; a family that lives elsewhere is
made known by `register`. Nothing else asks for a family by name.
"""

import dataclasses
import fnmatch
import importlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from focalnet.errors import UserError, unknown
from focalnet.models.family import Family
from focalnet.variants import VARIANTS, get_variant
from focalnet.variants import list_models as list_variants
from focalnet.weights.hub import default_preprocessing, register_files
from focalnet.weights.spec import UNKNOWN, ModelSpec, Said, merge

if TYPE_CHECKING:
    from torch import Tensor

    from focalnet.weights.layouts import Layout

FAMILIES = (
    "classifier", "backbone", "mask_rcnn", "atss", "dino", "sparse_rcnn", "cascade_mask_rcnn", "upernet", "mask2former",
    "video_focalnet", "focal_unet", "focal_tsmp", "sound", "focalcodec",
)  # fmt: skip
"""The folders of this package that hold a family's row. Of two that serve a task, the first is its example; of those
that learn from boxes alone, the first is what such data is trained with."""

_KNOWN: dict[str, Family] = {}


def _row(name: str) -> Family:
    return importlib.import_module(f"focalnet.models.{name}").FAMILY


for _name in FAMILIES:
    register_files(_row(_name).files)


def register(family: Family) -> Family:
    """Make a family known whose code lives outside this package."""
    _KNOWN[family.name] = family
    register_files(family.files)
    return family


def families(*, task: str | None = None, named: bool | None = None) -> list[Family]:
    """The families, those of the package first.

    Args:
        task: only those that serve this task.
        named: only those whose networks bear the family's name, or only the others.
    """
    rows = {name: _row(name) for name in FAMILIES} | _KNOWN
    return [row for row in rows.values() if task in (None, *row.tasks) and named in (None, row.named)]


def get_family(name: str) -> Family:
    """The family called `name`, which is `ModelSpec.head`.

    Raises:
        UserError: there is none; the message suggests the nearest names.
    """
    rows = {family.name: family for family in families()}
    if name not in rows:
        raise unknown("kind of head", name, rows)
    return rows[name]


def parse_name(name: str, head: str | None = None) -> ModelSpec:
    """The published network that `name` means.

    Args:
        name: a variant, or FAMILY_VARIANT.
        head: a family for a bare variant.

    Raises:
        UserError: no such family or variant, or two families.
    """
    said, variant, options = _split(name)
    if said is not None and head not in (None, said.name):
        raise UserError(f"{name} says the head {said.name}, and head={head!r}; leave one of them out.")
    if said is not None and said.networks:
        options = dict(said.networks[variant])
        return merge(
            ModelSpec.partial(Said.NAME, architecture=None, head_options=options), usual(said, variant), UNKNOWN
        )
    if variant not in VARIANTS:
        rows = families(named=True)
        examples = [name for row in rows for name in names_of(row) or [f"{row.name}_minifocal_128"]]
        raise unknown("model", name, [*VARIANTS, *published(), *examples])
    if said is None and head is not None and head not in (known := [family.name for family in families()]):
        raise unknown("head", head, known)
    family = said or get_family(head or "classifier")
    if family.networks:
        raise UserError(f"{family.name} stands on no FocalNet; name one of {', '.join(names_of(family))}.")
    architecture = get_variant(variant).replace(**family.changes(variant).architecture)
    exact = ModelSpec.partial(Said.NAME, architecture=vars(architecture), head_options=options)
    return merge(exact, usual(family, variant), UNKNOWN)


def usual(family: Family, variant: str) -> ModelSpec:
    """What the published networks of a family have on a variant, without their architecture."""
    changes, how = family.changes(variant), default_preprocessing(variant)
    if changes.preprocessing is not None:
        same = type(changes.preprocessing) is type(how)
        how = dataclasses.replace(changes.preprocessing, **({"mean": how.mean, "std": how.std} if same else {}))
    return merge(
        ModelSpec.partial(Said.NAME, variant=variant, head=family.name),
        ModelSpec.partial(
            Said.DEFAULT, head_options=changes.options, num_classes=family.num_classes, preprocessing=how
        ),
    )


def _split(name: str) -> tuple[Family | None, str, dict[str, int]]:
    """The family in a name, None for a bare variant; the variant; and the options that an ending sets."""
    if name in VARIANTS:
        return None, name, {}
    rows = families(named=True)
    for family in rows:
        if not f"{name}_".startswith(f"{family.name}_"):
            continue
        rest = name.removeprefix(family.name).removeprefix("_")
        for owner in rows:
            match = owner.suffix and re.fullmatch(f"(.+?){owner.suffix.pattern}", rest)
            variant = match and family.variant_of(match[1])
            if owner.suffix and match and variant:
                if owner is not family:
                    ending = rest.removeprefix(match[1])
                    raise UserError(f"{name}: only {owner.name} has {owner.suffix.meaning}; leave {ending} out.")
                return family, variant, {option: int(value) for option, value in match.groupdict().items()}
        if (variant := family.variant_of(rest)) is not None:
            return family, variant, {}
    return None, name, {}


def names_of(family: Family) -> list[str]:
    """Names of the networks of a family that stands on no FocalNet."""
    return [f"{family.name}_{ending}" for ending in family.networks]


def build(spec: ModelSpec, **options: Any) -> Any:
    """The network of `spec` with random weights; it carries `spec`.

    Args:
        spec: what to build.
        options: of the class, for example `recompute`.

    Raises:
        UserError: the family is unknown, or has no such option.
    """
    family = get_family(spec.head)
    model = family.build(spec.architecture, spec.num_classes, spec.head_options, **options)
    model.spec = spec
    return model


def find_layout(state_dict: Mapping[str, "Tensor"]) -> "Layout | None":
    """The layout that a state dict follows, from its names; None where it is no network's but a classifier's."""
    layouts = (layout for family in families() for layout in family.layout_tables)
    return next((layout for layout in layouts if layout.matches(state_dict)), None)


def published() -> dict[str, Any]:
    """Name of each published network beyond the classifiers -> its figures, None where none are known."""
    return {name: figures for family in families(named=True) for name, figures in family.published.items()}


def list_models(pattern: str = "*") -> list[str]:
    """Names of networks that match a shell pattern, for example `"*lrf*"`: the variants, which are classifiers, and the
    published detectors and segmenters. `create_model` takes any other pairing FAMILY_VARIANT too."""
    return [*list_variants(pattern), *(name for name in published() if fnmatch.fnmatch(name, pattern))]
