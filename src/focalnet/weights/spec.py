"""What travels with weights: enough to rebuild the network and to feed it pictures.

`ModelSpec` stands as `config.json` beside `model.safetensors` in every folder that focalnet writes (checkpoints of a
run, `save_pretrained`), and as the attribute `spec` of every model that `create_model` returns.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from focalnet.errors import UserError, unknown
from focalnet.variants import FocalNetConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the input of a network: resize the shorter side to `input_size / crop_pct`, crop the
    centre to `input_size`, scale to [0, 1], subtract `mean`, divide by `std`."""

    input_size: int = 224
    """Side of the square crop, in pixels."""
    crop_pct: float = 0.875
    """Crop over resized side; 0.875 in the official evaluation, 0.9 in timm."""
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def resize(self) -> int:
        """The shorter side after the resize, in pixels; 256 for an official 224 model."""
        return int(self.input_size / self.crop_pct)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A network, what it calls its classes, and how it wants its pictures."""

    variant: str
    """Name in `focalnet.list_models()` that the architecture started from."""
    architecture: FocalNetConfig
    """The architecture, with whatever was overridden."""
    head: str = "classifier"
    """What stands on the trunk; "backbone" for bare feature maps."""
    num_classes: int = 1000
    classes: tuple[str, ...] | None = None
    """Class names in the order of the logits, where known."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    licence: str | None = None
    """Licence of the weights, where known."""
    source: str | None = None
    """Where the weights came from."""

    def __post_init__(self) -> None:
        if self.classes is not None and len(self.classes) != self.num_classes:
            raise UserError(f"{len(self.classes)} class names for {self.num_classes} classes; give one name per class.")

    def replace(self, **changes: Any) -> "ModelSpec":
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "ModelSpec":
        """The inverse of `dataclasses.asdict`; an unknown field is refused."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in names:
                raise unknown("field of a model's config.json", name, names)
        values = dict(fields)
        values["architecture"] = FocalNetConfig.from_dict(values["architecture"])
        preprocessing: dict[str, Any] = dict(values.get("preprocessing", {}))
        for name in preprocessing.keys() & {"mean", "std"}:
            preprocessing[name] = tuple(preprocessing[name])
        values["preprocessing"] = Preprocessing(**preprocessing)
        if values.get("classes") is not None:
            values["classes"] = tuple(values["classes"])
        return cls(**values)
