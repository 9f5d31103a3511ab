"""Layouts of detectors' and segmenters' weight files: seen from the keys, read into our names, written back.

A layout moves and reshapes numbers without a change, so that a file read and written again is the same, byte by byte.
`detectors` and `segmenters` hold the tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from focalnet import inputs
from focalnet.errors import UserError
from focalnet.inputs.image import WHOLE_IMAGE

StateDict = Mapping[str, Tensor]

GROWN = {"focal_windows": 9, "stem_padding": 3}
"""What the official Mask R-CNNs and UPerNets change of T, S and B."""


@dataclass(frozen=True)
class DenseFacts:
    """What the shapes of a file tell about its network.

    Attributes:
        num_classes: classes of the head.
        head_options: arguments of the head's class that shapes show, for `ModelSpec.head_options`.
        overrides: fields of `FocalNetConfig` that the layout's use fixes and shapes do not show.
        preprocessing: of the published networks of this head.
    """

    num_classes: int
    head_options: Mapping[str, Any]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: inputs.Image = WHOLE_IMAGE


@dataclass(frozen=True)
class DenseLayout:
    """One way in which weights of a head are published.

    Attributes:
        name: for `focalnet convert --to`, for example "mmdet".
        head: `ModelSpec.head` of the networks it is for.
        trunk_prefix: what the backbone's names begin with in our names.
        matches: whether a state dict follows this layout, from its keys.
        read: its tensors under our names. Raises UserError naming what has no counterpart.
        write: the inverse: our names to the layout's.
        facts: of a state dict in our names.
        wrapper: the key under which files of this layout hold their tensors.
    """

    name: str
    head: str
    backbone_prefix: str
    matches: Callable[[StateDict], bool]
    read: Callable[[StateDict], dict[str, Tensor]]
    write: Callable[[StateDict], dict[str, Tensor]]
    facts: Callable[[StateDict], DenseFacts]
    wrapper: str | None = None


def under(state_dict: StateDict, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}


def shape_of(state_dict: StateDict, name: str) -> tuple[int, ...]:
    """The shape of one tensor.

    Raises:
        UserError: it is missing.
    """
    if name not in state_dict:
        raise UserError(f"the weights are not a whole network: {name} is missing.")
    return tuple(state_dict[name].shape)


def overlapped_padding(trunk: StateDict, *, official: bool) -> dict[str, int]:
    """The padding of an overlapped stem as a field of `FocalNetConfig`, if the stem is one.

    It is that of `GROWN` in the official UPerNets and Mask R-CNNs (`official`), and in ours by name where the kernels
    were grown too.
    """
    overlapped = shape_of(trunk, "patch_embed.proj.weight")[-1] == 7
    grown = shape_of(trunk, "layers.0.blocks.0.modulation.focal_layers.0.0.weight")[-1] == GROWN["focal_windows"]
    return {"stem_padding": GROWN["stem_padding"]} if overlapped and (official or grown) else {}
