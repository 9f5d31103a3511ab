"""What travels with weights: enough to rebuild the network and to feed it images.

`ModelSpec` stands as `config.json` beside `model.safetensors` in every folder that focalnet writes (checkpoints of a
run, `save_pretrained`), and as the attribute `spec` of every model that `create_model` returns.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from focalnet import inputs
from focalnet.errors import UserError, unknown
from focalnet.variants import FocalNetConfig


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A network, what it calls its classes, and how it wants its images."""

    variant: str
    """Name in `focalnet.list_models()` that the architecture started from."""
    architecture: FocalNetConfig
    """The architecture, with whatever was overridden."""
    head: str = "classifier"
    """What stands on the backbone; "backbone" for bare feature maps."""
    head_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the head's class; what is not here has the class's default. JSON can hold them."""
    num_classes: int = 1000
    classes: tuple[str, ...] | None = None
    """Class names in the order of the logits, where known."""
    things: tuple[bool, ...] | None = None
    """For each class of a panoptic network, whether its objects are counted (things) or not (stuff)."""
    preprocessing: inputs.Image = field(default_factory=inputs.Image)
    task: str | None = None
    """What it was trained for, where the head does not tell it: "segment" or "panoptic"."""
    licence: str | None = None
    """Licence of the weights, where known."""
    source: str | None = None
    """Where the weights came from."""

    def __post_init__(self) -> None:
        if self.classes is not None and len(self.classes) != self.num_classes:
            raise UserError(f"{len(self.classes)} class names for {self.num_classes} classes; give one name per class.")
        if self.things is not None and len(self.things) != self.num_classes:
            raise UserError(
                f"`things` has {len(self.things)} entries for {self.num_classes} classes; give one per class."
            )

    def replace(self, **changes: Any) -> "ModelSpec":
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        fields = dataclasses.asdict(self) | {"preprocessing": inputs.to_dict(self.preprocessing)}
        return json.dumps(fields, indent=2)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "ModelSpec":
        """The inverse of `dataclasses.asdict`; an unknown field is refused."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in names:
                raise unknown("field of a model's config.json", name, names)
        values = dict(fields)
        values["architecture"] = FocalNetConfig.from_dict(values["architecture"])
        values["preprocessing"] = inputs.from_dict(values.get("preprocessing", {}))
        for name in ("classes", "things"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        return cls(**values)
