"""The one description of a network: enough to rebuild it and to feed it.

`ModelSpec` stands as `config.json` beside `model.safetensors` in every folder that focalnet writes (checkpoints of a
run, `save_pretrained`), and as the attribute `spec` of every model that `create_model` returns.

A network that is being described is known in parts: a call gives an option, a file its shapes, a name the variant. Each
of them is a `ModelSpec.partial`, whose facts remember who said them; `merge` takes every fact from the strongest.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from focalnet import inputs
from focalnet.errors import UserError, unknown
from focalnet.schemas import as_type, build
from focalnet.variants import FocalNetConfig


class Said(IntEnum):
    """Who says a fact about a network, the strongest first."""

    CALL = 0
    """The arguments of a call."""
    FILE = 1
    """What stands beside the tensors of a file or in it, or what its layout means without saying it."""
    SHAPES = 2
    """Names and shapes of the tensors of a file."""
    NAME = 3
    """The name of the network."""
    DEFAULT = 4
    """The published networks of its family or variant."""
    GUESS = 5
    """What is usual: kept while nothing else is known, and never written down."""


class _Unset:
    """The value of a field of which nothing is known."""

    def __repr__(self) -> str:
        return "unset"

    def __bool__(self) -> bool:
        return False


UNSET: Any = _Unset()
MOST_CLASSES = 10**6
CUSTOM = "custom"
"""`ModelSpec.variant` of an architecture that is no row of `variants`."""
NESTED = ("architecture", "head_options")
"""Fields whose entries are facts of their own."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A network, what it calls its classes, and how it wants its input."""

    variant: str
    """Name in `focalnet.list_models()` that the architecture started from; of a network that stands on no FocalNet, the
    end of its own name."""
    architecture: FocalNetConfig | None
    """The architecture of the FocalNet, with whatever was overridden; None where none is inside."""
    head: str = "classifier"
    """The family of the network, which is what stands on the backbone; "backbone" for bare feature maps."""
    head_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the family's class; what is not here has the class's default. JSON can hold them."""
    num_classes: int = 1000
    classes: tuple[str, ...] | None = None
    """Class names in the order of the logits, where known."""
    things: tuple[bool, ...] | None = None
    """For each class of a panoptic network, whether its objects are counted (things) or not (stuff)."""
    category_ids: tuple[int | str | None, ...] | None = None
    """What the annotations that it was trained on call the classes, where they number them."""
    preprocessing: Any = field(default_factory=inputs.Image)
    """How an input is prepared: an `inputs.Image`, or another kind of `inputs.Input`."""
    task: str | None = None
    """What it was trained for, where the head does not tell it: "segment", "panoptic" or "multilabel"."""
    threshold: float | None = None
    """Least score of what it says, where that was chosen on its validation data."""
    licence: str | None = None
    """Licence of the weights, where known."""
    source: str | None = None
    """Where the weights came from."""
    said: Mapping[str, Said] = field(default_factory=dict, compare=False, repr=False)
    """Who said a fact, "num_classes" or "architecture.depths"; what is not here stands in a description."""

    def __post_init__(self) -> None:
        if self.num_classes is not UNSET and not 0 <= self.num_classes <= MOST_CLASSES:
            raise UserError(f"num_classes={self.num_classes}; give 0 to {MOST_CLASSES}.")
        if self.classes and self.num_classes is not UNSET and len(self.classes) != self.num_classes:
            raise UserError(f"{len(self.classes)} class names for {self.num_classes} classes; give one name per class.")
        if self.things and self.num_classes is not UNSET and len(self.things) != self.num_classes:
            raise UserError(
                f"`things` has {len(self.things)} entries for {self.num_classes} classes; give one per class."
            )
        if self.category_ids and self.num_classes is not UNSET and len(self.category_ids) != self.num_classes:
            raise UserError(f"{len(self.category_ids)} category_ids for {self.num_classes} classes; give one each.")
        if self.threshold is not UNSET and not 0 <= (self.threshold or 0) <= 1:
            raise UserError(f"threshold={self.threshold}; give a score from 0 to 1.")

    @classmethod
    def partial(cls, said: Said, **facts: Any) -> "ModelSpec":
        """Some facts about a network; the other fields are unset.

        Args:
            said: who says them.
            facts: fields; of `architecture` and `head_options`, the entries that are known.
        """
        fields: dict[str, Any] = dict.fromkeys(_FIELDS, UNSET) | facts
        return cls(**fields, said={path: said for path, _ in _facts(fields)})

    @property
    def backbone(self) -> FocalNetConfig:
        """The architecture of the FocalNet inside.

        Raises:
            UserError: there is none.
        """
        if self.architecture is None:
            raise UserError(f"a {self.head} has no FocalNet inside.")
        return self.architecture

    def facts(self) -> dict[str, tuple[Any, Said]]:
        """What is known, and who said it; the entries of `architecture` and `head_options` one by one."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        return {path: (value, self.says(path)) for path, value in _facts(fields)}

    def says(self, path: str) -> Said:
        """Who said a fact, for example "architecture.use_postln"."""
        return self.said.get(path, Said.FILE)

    def replace(self, **changes: Any) -> "ModelSpec":
        said = {path: by for path, by in self.said.items() if path.split(".")[0] not in changes}
        return dataclasses.replace(self, **{"said": said} | changes)

    def to_json(self) -> str:
        fields = dataclasses.asdict(self) | {"preprocessing": inputs.to_dict(self.preprocessing)}
        return json.dumps({name: fields[name] for name in _FIELDS}, indent=2)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str = "the description of a model") -> "ModelSpec":
        """The inverse of `to_json`, from what a file holds.

        Raises:
            UserError: an unknown field, a missing one, one of another type or out of range; it is said of `where`.
        """
        values = as_type(fields, dict[str, Any], where)
        for name, of in (("architecture", FocalNetConfig.from_dict), ("preprocessing", inputs.from_dict)):
            if name in values and not (name == "architecture" and values[name] is None):
                values[name] = of(values[name], f"{where}: {name}")
        if "said" in values:
            raise unknown(f"field of {where}", "said", _FIELDS)
        return build(cls, values, where)


_FIELDS = tuple(field.name for field in dataclasses.fields(ModelSpec) if field.name != "said")


def merge(*specs: ModelSpec) -> ModelSpec:
    """One description out of several: every fact from whoever is the strongest to say it; of equals, the first.

    Raises:
        UserError: the facts together are no network: as many class names as classes, entries per stage.
    """
    best: dict[str, tuple[Any, Said]] = {}
    for spec in specs:
        for path, (value, said) in spec.facts().items():
            if path not in best or said < best[path][1]:
                best[path] = value, said
    fields: dict[str, Any] = dict.fromkeys(_FIELDS, UNSET) | {name: {} for name in NESTED}
    for path, (value, _) in best.items():
        name, _, entry = path.partition(".")
        if entry:
            fields[name][entry] = value
        else:
            fields[name] = value
    if fields["architecture"] is not None and all(name in fields["architecture"] for name in _REQUIRED):
        fields["architecture"] = FocalNetConfig(**fields["architecture"])
    return ModelSpec(**fields, said={path: said for path, (_, said) in best.items()})


_REQUIRED = [
    field.name
    for field in dataclasses.fields(FocalNetConfig)
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
]


def _facts(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if value is UNSET:
            continue
        if name not in NESTED or value is None:
            yield name, value
            continue
        entries = value if isinstance(value, Mapping) else vars(value)
        yield from ((f"{name}.{entry}", entries[entry]) for entry in entries)


UNKNOWN = ModelSpec.partial(
    Said.GUESS, classes=None, things=None, category_ids=None, task=None, threshold=None, licence=None, source=None
)
"""What is known of a network of which nothing more is."""
