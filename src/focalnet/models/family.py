"""What the library knows about a family of networks: one row, asked wherever code would otherwise ask for a name.

A row stands in `models/<family>/__init__.py` and imports nothing heavy: the class and the tables of names in weight
files are imported when they are first asked for. `registry` names the families of the package and takes others.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from focalnet import inputs
from focalnet.errors import UserError, unknown
from focalnet.labels import COCO_CLASSES
from focalnet.schemas import build
from focalnet.variants import VARIANTS, FocalNetConfig
from focalnet.weights.architecture import shape_of
from focalnet.weights.hub import WeightsEntry

if TYPE_CHECKING:
    from torch import Tensor

Learns = Literal["class", "boxes", "masks", "label_map", "signal", "nothing"]
"""What the truth of an image is to a network: its class, boxes, boxes with masks, a class per pixel, the signal itself;
or it has no loss."""


@dataclass(frozen=True, kw_only=True)
class On:
    """What a family does otherwise on some variants.

    Attributes:
        variants: a regular expression for their names.
        architecture: fields of `FocalNetConfig` that it changes.
        options: of its class.
        preprocessing: instead of the family's.
    """

    variants: str
    architecture: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Any = None


GROWN = On(
    variants="focalnet_(tiny|small|base)_[sl]rf(_overlap|_deeper)?",
    architecture={"focal_windows": 9, "stem_padding": 3},
)
"""What the official Mask R-CNNs and UPerNets change of T, S and B."""
WIDER = On(variants=GROWN.variants, architecture={"focal_windows": (11, 9, 9, 7), "stem_padding": 3})
"""What the official detectors of the paper's Table 7 change of them."""


def overlapped_padding(backbone: Mapping[str, "Tensor"], grown: On, *, official: bool) -> dict[str, int]:
    """The padding of an overlapped stem as a field of `FocalNetConfig`, if the stem is one.

    Args:
        backbone: its tensors, under the official names.
        grown: what the family's row changes: its padding is that of every official network, and of ours by name where
            the kernels of the first stage were grown too.
        official: whether the file is of an official network.
    """
    windows = grown.architecture["focal_windows"]
    overlapped = shape_of(backbone, "patch_embed.proj.weight")[-1] == 7
    kernel = shape_of(backbone, "layers.0.blocks.0.modulation.focal_layers.0.0.weight")[-1]
    padded = overlapped and (official or kernel == (windows if isinstance(windows, int) else windows[0]))
    return {"stem_padding": grown.architecture["stem_padding"]} if padded else {}


@dataclass(frozen=True, kw_only=True)
class Suffix:
    """An ending of a family's names that sets options.

    Attributes:
        pattern: a regular expression; its named groups are options, whole numbers.
        meaning: what the ending says, for the error where another family's name has it.
    """

    pattern: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of networks: heads on a FocalNet, or with `networks`, of which each has a name, without one.

    Attributes:
        name: `ModelSpec.head`; names of networks begin with it where `named`.
        model: "module:class", or "module:function" with the class's arguments.
        layouts: "module:tuple" of the layouts of its weight files, where it has others than the backbone's.
        title: what people call it.
        purpose: what it is for, a few words for the model card.
        pipeline: the hub's word for that.
        outputs: what a call of it gives, one word for the example in the model card.
        learns: what the truth of an image is to it.
        export: what is free in an exported file besides the batch: "all" sizes; "none"; "less": a file has one size,
            and what is smaller is padded, with its `sizes` as a second input.
        tasks: names of the tasks that it serves; the first is its own.
        named: whether its networks are called NAME_VARIANT; a bare variant is a classifier.
        variants: endings of its names that stand for a variant; an ending that is a variant's without `focalnet_` needs
            none.
        networks: of a family that stands on no FocalNet, the endings of its names -> the options that each says; they
            stand for variants in `on`, whose options are defaults.
        num_classes: of the published networks; with weights of its own, a file says it.
        least_classes: how many it needs; 0 with `num_classes` 0 means that it knows none.
        free: options that no weight depends on: a call may set them whatever the weights say.
        spatial_dims: numbers of axes that it works on: 1 for sequences, 2 for images, 3 for volumes.
        preprocessing: of the published networks; None for that of the variant's released weights.
        on: what it does otherwise on some variants; later rows win.
        suffix: an ending of its names.
        files: released files of its whole networks.
        parts: files that lie in one folder and are one network together -> what their names begin with then.
        published: name of a published network -> its figures, None where none are known.
        classes_of: what a file with this number of classes was trained on, by the published networks of that number:
            `classes`, and where they apply `things`, `task` and `preprocessing` of a `ModelSpec`.
    """

    name: str
    model: str
    layouts: str | None = None
    title: str = ""
    purpose: str
    pipeline: str
    outputs: str = "outputs"
    learns: Learns
    export: Literal["all", "none", "less"] = "less"
    tasks: tuple[str, ...] = ()
    named: bool = True
    variants: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    num_classes: int
    least_classes: int = 1
    free: tuple[str, ...] = ()
    spatial_dims: tuple[int, ...] = (2,)
    preprocessing: Any = None
    on: tuple[On, ...] = ()
    suffix: Suffix | None = None
    files: tuple[WeightsEntry, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Any] = field(default_factory=dict)
    classes_of: Callable[[int, FocalNetConfig], Mapping[str, Any]] = lambda num_classes, architecture: {}

    @property
    def cls(self) -> Callable[..., Any]:
        """The class, imported when it is first needed.

        Raises:
            MissingExtraError: it stands on a package that is not installed.
        """
        return _imported(self.model)

    @property
    def layout_tables(self) -> tuple[Any, ...]:
        """The layouts of its weight files."""
        return _imported(self.layouts) if self.layouts else ()

    def variant_of(self, ending: str) -> str | None:
        """The variant that the rest of a name means, if any."""
        if self.networks:
            return ending if ending in self.networks else None
        known = (self.variants.get(ending), ending, f"focalnet_{ending}")
        return next((name for name in known if name in VARIANTS), None)

    def options(self) -> list[str]:
        """Names of the options that `ModelSpec.head_options` may hold."""
        own = getattr(self.cls, "Options", None)
        return [] if own is None else [option.name for option in dataclasses.fields(own)]

    def default(self, option: str) -> Any:
        """What the class has where `ModelSpec.head_options` does not say an option."""
        return getattr(self.cls.Options(), option)

    def build(
        self, architecture: FocalNetConfig | None, num_classes: int, values: Mapping[str, Any], **arguments: Any
    ) -> Any:
        """A network with random weights.

        Args:
            architecture: of the backbone; None for a family that has none.
            num_classes: classes.
            values: options by name; what is missing has the class's default.
            arguments: of the class besides, for example `recompute`.

        Raises:
            UserError: one of `values` is no option, or the backbone has another number of axes.
        """
        if architecture is not None and architecture.spatial_dims not in self.spatial_dims:
            dims = " or ".join(map(str, self.spatial_dims))
            raise UserError(f"{self.name} works with spatial_dims={dims}, not {architecture.spatial_dims}.")
        known = self.options() if values else []
        for name in values:
            if name not in known:
                raise unknown(f"option of {self.name}", name, known)
        cls: Any = self.cls
        if hasattr(cls, "Options"):
            arguments["options"] = build(cls.Options, values, f"the options of {self.name}")
        return cls(**arguments) if architecture is None else cls(architecture, num_classes=num_classes, **arguments)

    def changes(self, variant: str) -> On:
        """What it does otherwise on a variant."""
        rows = [row for row in self.on if re.fullmatch(row.variants, variant)]
        return On(
            variants=variant,
            architecture={name: value for row in rows for name, value in row.architecture.items()},
            options={name: value for row in rows for name, value in row.options.items()},
            preprocessing=next((row.preprocessing for row in reversed(rows) if row.preprocessing), self.preprocessing),
        )


def small_image(size: int) -> inputs.Image:
    """Whole images for a network on a `minifocal`: a shorter side of `size` pixels, the longer one at most twice."""
    return inputs.Image(input_size=size, long_side=2 * size, crop_pct=1.0, interpolation="bilinear")


def coco_classes(num_classes: int, architecture: FocalNetConfig) -> Mapping[str, Any]:
    """`Family.classes_of` for detectors: 80 classes without names are COCO's."""
    return {"classes": COCO_CLASSES} if num_classes == len(COCO_CLASSES) else {}


def _imported(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)
