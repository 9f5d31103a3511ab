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
    centre to `input_size`, scale to [0, 1], subtract `mean`, divide by `std`.

    Detectors and segmenters see the whole picture: with `long_side`, nothing is cropped, and the shorter side becomes
    `input_size` unless the longer one would then pass `long_side`.
    """

    input_size: int = 224
    """Side of the square crop, or the shorter side of a whole picture, in pixels."""
    long_side: int | None = None
    """Most pixels of the longer side of a whole picture; None crops."""
    crop_pct: float = 0.875
    """Crop over resized side; 0.875 in the official evaluation, 0.9 in timm."""
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.long_side is not None and self.long_side < self.input_size:
            raise UserError(f"the longer side, {self.long_side}, is below the shorter one, {self.input_size}.")

    @property
    def resize(self) -> int:
        """The shorter side after the resize, in pixels; 256 for an official 224 model."""
        return int(self.input_size / self.crop_pct)


WHOLE_PICTURE = Preprocessing(input_size=800, long_side=1333, crop_pct=1.0, interpolation="bilinear")
"""What the published detectors see."""
SEMANTIC = dataclasses.replace(WHOLE_PICTURE, input_size=512, long_side=2048)
"""What the published UPerNets see."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A network, what it calls its classes, and how it wants its pictures."""

    variant: str
    """Name in `focalnet.list_models()` that the architecture started from."""
    architecture: FocalNetConfig
    """The architecture, with whatever was overridden."""
    head: str = "classifier"
    """What stands on the trunk; "backbone" for bare feature maps."""
    head_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the head's class; what is not here has the class's default. JSON can hold them."""
    num_classes: int = 1000
    classes: tuple[str, ...] | None = None
    """Class names in the order of the logits, where known."""
    things: tuple[bool, ...] | None = None
    """For each class of a panoptic network, whether its objects are counted (things) or not (stuff)."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
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
        for name in ("classes", "things"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        return cls(**values)
