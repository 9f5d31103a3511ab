"""What can stand on the backbone, and the names of whole networks.

A name is HEAD_VARIANT, and for DINO HEAD_VARIANT_Nscale: `mask_rcnn_focalnet_tiny_lrf`,
`dino_focalnet_large_fl4_5scale`; any head goes with any variant. A bare variant is a classifier. The published
detectors and UPerNets grow the kernels of T, S and B from 3 to 9 (official configs); the others keep the variant's.

Pairings with a `minifocal` are small enough to learn `digit_scenes` on a laptop: their heads are narrower too.

A new kind of head is one row of `HEADS`, one module with a `DenseModel`, and one layout in `weights`.
"""

import dataclasses
import fnmatch
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from focalnet import inputs
from focalnet.backbone import FocalNet
from focalnet.errors import UserError, unknown
from focalnet.inputs.image import SEMANTIC, WHOLE_IMAGE
from focalnet.models.base import DenseModel
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.variants import VARIANTS, FocalNetConfig, get_variant
from focalnet.variants import list_models as list_variants
from focalnet.weights.dense import GROWN
from focalnet.weights.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Head:
    """A kind of dense network.

    Attributes:
        home: module and class, under `focalnet.models`.
        num_classes: of the published networks.
        preprocessing: of the published networks.
        small: options of the head on a `minifocal`.
        small_size: shorter side of an image there. Segmenters learn squares of two thirds of it, cut from enlarged
            scenes; a whole image of the square's size would show objects smaller than learned (Touvron et al., 2019).
        grown: whether the published networks grow the kernels of T, S and B.
    """

    home: str
    num_classes: int
    preprocessing: inputs.Image
    small: Mapping[str, Any] = field(default_factory=dict)
    small_size: int = 128
    grown: bool = False

    @property
    def cls(self) -> type[DenseModel]:
        """The class, imported when it is first needed."""
        module, name = self.home.rsplit(".", 1)
        return getattr(importlib.import_module(f"focalnet.models.{module}"), name)

    def options(self) -> list[str]:
        """Names that `ModelSpec.head_options` may hold."""
        return [option.name for option in dataclasses.fields(self.cls.Options)]


HEADS: Mapping[str, Head] = {
    "mask_rcnn": Head(
        home="mask_rcnn.model.MaskRCNN", num_classes=80, preprocessing=WHOLE_IMAGE, grown=True,
        small={"fpn_channels": 48, "representation_size": 256, "anchor_size": 5.0, "proposals": 100, "rpn_samples": 64,
               "roi_samples": 48, "detections": 30},
    ),
    "dino": Head(
        home="dino.model.Dino", num_classes=91, preprocessing=WHOLE_IMAGE,
        small={"hidden_dim": 128, "ffn_dim": 256, "heads": 4, "points": 2, "encoder_layers": 2,
               "decoder_layers": 3, "num_queries": 60, "dn_number": 30, "dn_box_noise": 0.4},
    ),
    "upernet": Head(
        home="upernet.model.UperNet", num_classes=150, preprocessing=SEMANTIC, grown=True, small_size=192,
        small={"channels": 96, "aux_channels": 32, "dropout": 0.0, "classifier_std": 0.1},
    ),
    "mask2former": Head(
        home="mask2former.model.Mask2Former", num_classes=133, preprocessing=WHOLE_IMAGE, small_size=192,
        small={"hidden_dim": 64, "ffn_dim": 256, "encoder_ffn_dim": 128, "encoder_layers": 2, "decoder_layers": 4,
               "heads": 4, "num_queries": 30, "points": 1024},
    ),
}  # fmt: skip
"""`ModelSpec.head` of dense networks -> what builds them."""

PUBLISHED = (
    *(f"mask_rcnn_focalnet_{size}_{field}" for size in ("tiny", "small", "base") for field in ("srf", "lrf")),
    *(f"dino_focalnet_{size}_{tail}" for size in ("large", "huge") for tail in ("fl3_4scale", "fl4_5scale")),
    *(f"upernet_focalnet_{size}_{field}" for size in ("tiny", "small", "base") for field in ("srf", "lrf")),
    *(f"mask2former_focalnet_{tail}" for tail in ("tiny_lrf", "small_lrf", "base_lrf", "large_fl3", "large_fl4")),
)
"""The dense networks of the paper, by name."""

_NAME = re.compile(rf"({'|'.join(HEADS)})_(.+?)(?:_(\d)scale)?")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a name and the arguments of a call ask for.

    Attributes:
        name: as it was written.
        head: "classifier", "backbone", or a key of `HEADS`.
        variant: of the trunk.
        architecture: the variant as this head uses it.
        head_options: what the name or the call sets.
        num_classes, preprocessing: defaults of the head; None for a classifier, where the weights tell them.
    """

    name: str
    head: str
    variant: str
    architecture: FocalNetConfig
    head_options: Mapping[str, Any]
    num_classes: int | None = None
    preprocessing: inputs.Image | None = None


def parse_name(name: str, head: str | None = None) -> Wanted:
    """What `name` means.

    Args:
        name: a variant, or HEAD_VARIANT.
        head: a head for a bare variant.

    Raises:
        UserError: no such head or variant, or two heads.
    """
    match = _NAME.fullmatch(name)
    if match and name not in VARIANTS:
        if head not in (None, match[1]):
            raise UserError(f"{name} says the head {match[1]}, and head={head!r}; leave one of them out.")
        head, variant, scales = match.groups()
    else:
        variant, scales = name, None
    if variant not in VARIANTS:
        raise unknown("model", name, [*VARIANTS, *PUBLISHED, *(f"{kind}_minifocal_128" for kind in HEADS)])
    row = get_variant(variant)
    if head in (None, "classifier", "backbone"):
        return Wanted(name=name, head=head or "classifier", variant=variant, architecture=row, head_options={})
    if head not in HEADS:
        raise unknown("head", head, HEADS)
    kind, small = HEADS[head], variant.startswith("minifocal_")
    if kind.grown and re.fullmatch(r"focalnet_(tiny|small|base)_[sl]rf(_overlap|_deeper)?", variant):
        row = row.replace(**GROWN)
    options = dict(kind.small) if small else {}
    if head == "mask2former" and re.match("focalnet_(large|xlarge|huge)", variant):
        options["num_queries"] = 200
    if scales is not None:
        if head != "dino":
            raise UserError(f"{name}: only dino has a number of scales; leave _{scales}scale out.")
        options["num_feature_levels"] = int(scales)
    return Wanted(
        name=name, head=head, variant=variant, architecture=row, head_options=options, num_classes=kind.num_classes,
        preprocessing=_small(kind.small_size) if small else kind.preprocessing,
    )  # fmt: skip


def _small(size: int) -> inputs.Image:
    return dataclasses.replace(WHOLE_IMAGE, input_size=size, long_side=2 * size)


def split_overrides(head: str, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The overrides that are fields of `FocalNetConfig`, and those that are options of the head.

    Raises:
        UserError: one is neither.
    """
    own = HEADS[head].options() if head in HEADS else []
    fields = list(FocalNetConfig.__dataclass_fields__)
    for name in overrides:
        if name not in own and name not in fields:
            raise unknown("FocalNet option" if head not in HEADS else f"option of {head}", name, [*fields, *own])
    architecture = {name: value for name, value in overrides.items() if name in fields}
    return architecture, {name: value for name, value in overrides.items() if name not in fields}


def build(spec: ModelSpec, **options: Any) -> Any:
    """The network of `spec` with random weights; it carries `spec`.

    Args:
        spec: what to build.
        options: of the class, for example `recompute`.

    Raises:
        UserError: the head is of no known kind.
    """
    model: Any
    if spec.head == "classifier":
        model = FocalNetClassifier(spec.architecture, num_classes=spec.num_classes, **options)
    elif spec.head == "backbone":
        options.setdefault("out_indices", range(len(spec.architecture.depths)))
        model = FocalNet(spec.architecture, **options)
    elif spec.head in HEADS:
        known = HEADS[spec.head].options()
        for name in spec.head_options:
            if name not in known:
                raise unknown(f"option of {spec.head}", name, known)
        kind: Any = HEADS[spec.head].cls
        head_options = kind.Options(**spec.head_options)
        model = kind(spec.architecture, num_classes=spec.num_classes, options=head_options, **options)
    else:
        raise unknown("kind of head", spec.head, ["classifier", "backbone", *HEADS])
    model.spec = spec
    return model


def list_models(pattern: str = "*") -> list[str]:
    """Names of networks that match a shell pattern, for example `"*lrf*"`: the variants, which are classifiers, and the
    paper's detectors and segmenters. `create_model` takes any other pairing HEAD_VARIANT too."""
    return [*list_variants(pattern), *(name for name in PUBLISHED if fnmatch.fnmatch(name, pattern))]
