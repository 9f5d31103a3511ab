"""Kinds of input: how a file becomes the tensor that a network sees.

An input is a frozen dataclass of numbers that travels with the weights (`ModelSpec.preprocessing`): `read` decodes a
source into a signal (an image, a waveform, the frames of a film), the call turns a signal into a tensor. Training,
evaluation, prediction and export use only these two. A new kind is one class and one `register`.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from focalnet.errors import UserError, unknown
from focalnet.inputs.audio import Audio
from focalnet.inputs.films import Video
from focalnet.inputs.image import Image
from focalnet.schemas import as_type, build

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INPUTS", "Audio", "Image", "Input", "Video", "changed", "from_dict", "noun_of", "register", "to_dict"]


@runtime_checkable
class Input(Protocol):
    """What every kind of input is: a frozen dataclass whose fields JSON can hold.

    Class attributes:
        kind: its name in `config.json`.
        suffixes: endings of its files, in lower case, by which they are found in a folder.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[frozenset[str]]

    def read(self, source: Any, /) -> Any:
        """The signal in a file, an address, or bytes.

        Raises:
            UserError: it cannot be read; the message names it.
        """
        ...

    def __call__(self, signal: Any, /) -> "Tensor":
        """The tensor of one signal, without a batch axis."""
        ...


OWN = ("max_pixels",)
"""Fields that no file of a model sets: whose weights they are does not decide how much memory an image may take."""
INPUTS: dict[str, type[Any]] = {}
"""`kind` -> class."""

Kind = TypeVar("Kind", bound=type)


def register(cls: Kind) -> Kind:
    """Make a kind of input known, so that `config.json` can name it. Also a decorator."""
    INPUTS[cls.kind] = cls  # pyright: ignore[reportAttributeAccessIssue]
    return cls


def noun_of(cls: type[Any]) -> str:
    """What messages call a signal of a kind of input, in the singular: its `noun`, or the name of the kind."""
    return getattr(cls, "noun", cls.kind)


def changed(how: Any, **changes: Any) -> Any:
    """An input with other fields, where they are not None.

    Raises:
        UserError: it has no such field.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    names = [field.name for field in dataclasses.fields(how)]
    for name in changes:
        if name not in names:
            raise UserError(f"--{name.replace('_', '-')} is for images; leave it out: the network takes {how.kind}.")
    return dataclasses.replace(how, **changes) if changes else how


def to_dict(how: Any) -> dict[str, Any]:
    """The fields of an input, with its `kind`, for JSON, without those that weights have no say in."""
    return {"kind": how.kind, **{name: value for name, value in dataclasses.asdict(how).items() if name not in OWN}}


def from_dict(fields: Mapping[str, Any], where: str = "the preprocessing") -> Any:
    """The inverse of `to_dict`. Descriptions without a kind, of the time when there were only images, are images.

    Raises:
        UserError: an unknown kind; a field that the kind does not have, or of another type, or out of range. It is said
            of `where`.
    """
    values: dict[str, Any] = as_type(fields, dict[str, Any], where)
    kind = values.pop("kind", Image.kind)
    values = {name: value for name, value in values.items() if name not in OWN}
    if kind not in INPUTS:
        raise unknown("kind of input", str(kind), INPUTS)
    return build(INPUTS[kind], values, where)


register(Image)
register(Audio)
register(Video)
