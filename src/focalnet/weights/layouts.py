"""The published layouts of weights: what one is, and the three of the FocalNet itself, with a way from each to each.

Only names differ between the three, and in timm the rank of four weights: there the linear layers of a block are 1x1
convolutions. So a conversion moves no number, and there and back gives the same bytes. One table holds a row per
module, one column per layout; `{s}` is a stage, `{b}` a block, `{l}` a level, `{n}` 1 or 2. timm downsamples at the
start of a stage where the others do so at the end of the one before: `{s+1}`.

timm calls the norms of a res-post-norm block `norm1_post`, the other layouts call them `norm1` as in a pre-norm block
and keep the difference in the code. Reading timm therefore tells where the norms stand; writing timm needs it told.

transformers files come with a prefix (`FocalNetForImageClassification`, `FocalNetBackbone`), without one
(`FocalNetModel`), or with a decoder and a mask token (`FocalNetForMaskedImageModeling`), which no other layout has:
they are left out, with a line in the log. What is written has the prefix, which every transformers class reads.

The layouts of whole networks stand with the networks, as `Layout`s, and are passed in from there.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from torch import Tensor

from focalnet.errors import UserError, unknown
from focalnet.variants import get_variant
from focalnet.weights.architecture import infer_variant
from focalnet.weights.renaming import Renaming, Row, StateDict
from focalnet.weights.spec import ModelSpec, Said, merge

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which the weights of a family of networks are published.

    A layout moves and reshapes numbers without a change: a file read and written again is the same, byte by byte.

    Attributes:
        name: for `focalnet convert --to`; our own names are "focalnet".
        head: `ModelSpec.head` of the networks it is for.
        backbone_prefix: what the backbone's names begin with in our names; None where there is no backbone.
        matches: whether a state dict follows this layout, from its keys.
        read: its tensors under our names. Raises UserError naming what has no counterpart.
        write: the inverse: our names to the layout's.
        facts: what a state dict in our names shows of its head, and what the layout means without a trace in any shape:
            a partial `ModelSpec`, see `told`.
        described: what the `config.json` of its published folders says: from its content, what to call it, and the
            tensors in our names. Raises UserError where it says what we do not have.
        unread: names in its files that nothing reads, of whatever type.
        wrapper: the key under which files of this layout hold their tensors.
    """

    name: str
    head: str
    backbone_prefix: str | None
    matches: Callable[[StateDict], bool]
    read: Callable[[StateDict], dict[str, Tensor]] = dict
    write: Callable[[StateDict], dict[str, Tensor]] = dict
    facts: Callable[[StateDict], ModelSpec]
    described: Callable[[Mapping[str, Any], str, StateDict], ModelSpec] | None = None
    unread: tuple[str, ...] = ()
    wrapper: str | None = "model"

    def read_by(self, weights: StateDict) -> dict[str, Tensor]:
        """The tensors of a file that something reads."""
        return {name: tensor for name, tensor in weights.items() if name not in self.unread}


def told(
    num_classes: int,
    head_options: Mapping[str, Any],
    meant: Mapping[str, Any] | None = None,
    *,
    by: Said = Said.FILE,
    **options: Any,
) -> ModelSpec:
    """A partial description for `Layout.facts`.

    Args:
        num_classes, head_options: what the shapes show.
        meant: fields of `FocalNetConfig` that no shape shows.
        by: who says these: the file, or what is usual.
        options: of the head, that no shape shows either.
    """
    shown = ModelSpec.partial(Said.SHAPES, num_classes=num_classes, head_options=head_options)
    return merge(shown, ModelSpec.partial(by, architecture=meant or {}, head_options=options))


def has(*parts: str) -> Callable[[StateDict], bool]:
    """Whether a state dict has each of these names, or something under it where one ends with a dot; for
    `Layout.matches`."""
    return lambda state_dict: all(
        any(name.startswith(part) for name in state_dict) if part.endswith(".") else part in state_dict
        for part in parts
    )


LayoutName = Literal["official", "timm", "transformers"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)

#                    official                 timm                     transformers
_BLOCK = ("layers.{s}.blocks.{b}.", "layers.{s}.blocks.{b}.", "focalnet.encoder.stages.{s}.layers.{b}.")
_IN_BLOCK = (
    ("norm{n}", "norm{n}", "norm{n}"),
    ("modulation.f", "modulation.f", "modulation.projection_in"),
    ("modulation.focal_layers.{l}.0", "modulation.focal_layers.{l}.0", "modulation.focal_layers.{l}.0"),
    ("modulation.h", "modulation.h", "modulation.projection_context"),
    ("modulation.ln", "modulation.norm", "modulation.layernorm"),
    ("modulation.proj", "modulation.proj", "modulation.projection_out"),
    ("mlp.fc{n}", "mlp.fc{n}", "mlp.fc{n}"),
    ("gamma_{n}", "ls{n}.gamma", "gamma_{n}"),
)
_TABLE = (
    ("patch_embed.proj", "stem.proj", "focalnet.embeddings.patch_embeddings.projection"),
    ("patch_embed.norm", "stem.norm", "focalnet.embeddings.norm"),
    *(tuple(block + part for block, part in zip(_BLOCK, row, strict=True)) for row in _IN_BLOCK),
    ("layers.{s}.downsample.proj", "layers.{s+1}.downsample.proj", "focalnet.encoder.stages.{s}.downsample.projection"),
    ("layers.{s}.downsample.norm", "layers.{s+1}.downsample.norm", "focalnet.encoder.stages.{s}.downsample.norm"),
    ("norm", "norm", "focalnet.layernorm"),
    ("head", "head.fc", "classifier"),
)
_STEMS: dict[str, LayoutName] = {
    "patch_embed.": "official",
    "stem.": "timm",
    "embeddings.": "transformers",
    "focalnet.": "transformers",
}


def detect_layout(keys: Iterable[str]) -> LayoutName:
    """The layout that the names of a state dict follow.

    Raises:
        UserError: they are no FocalNet's.
    """
    keys = list(keys)
    for prefix, layout in _STEMS.items():
        if any(key.startswith(prefix) for key in keys) and any(".modulation." in key for key in keys):
            return layout
    raise UserError(
        f"these are no weights of a FocalNet: they begin with {', '.join(keys[:3]) or 'nothing'}; "
        "expected names of the official code, timm or transformers."
    )


def stored_use_postln(state_dict: Mapping[str, Tensor]) -> bool | None:
    """Whether the blocks are res-post-norm, where the names tell it (timm), else None."""
    if detect_layout(state_dict) != "timm":
        return None
    return any(key.endswith(".norm1_post.weight") for key in state_dict)


def _timm(use_postln: bool) -> Renaming:
    rows = []
    for ours, theirs, _ in _TABLE:
        if ours.endswith((".modulation.f", ".modulation.proj", ".mlp.fc{n}")):
            rows.append(Row(ours, theirs, read=_from_convolution, write=_to_convolution))
        elif ours.endswith(".norm{n}"):
            rows += sorted([(ours, theirs), (ours, f"{theirs}_post")], reverse=use_postln)  # the first is written
        else:
            rows.append((ours, theirs))
    return Renaming(rows, ours="the official layout", theirs="the timm layout")


def _from_convolution(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.ndim == 4 else tensor


def _to_convolution(tensor: Tensor) -> Tensor:
    return tensor[:, :, None, None] if tensor.ndim == 2 else tensor


def _transformers() -> Renaming:
    rows = [(ours, theirs) for ours, _, theirs in _TABLE]
    bare = [(ours, theirs.removeprefix("focalnet.")) for ours, theirs in rows if theirs.startswith("focalnet.")]
    masked = [((), f"{prefix}embeddings.mask_token") for prefix in ("focalnet.", "")]
    return Renaming(
        [*rows, *bare, *masked, ((), "decoder.0")], ours="the official layout", theirs="the transformers layout"
    )


@cache
def _renaming(layout: LayoutName, use_postln: bool = False) -> Renaming:
    return _timm(use_postln) if layout == "timm" else _transformers()


def convert_state_dict(
    state_dict: Mapping[str, Tensor], *, to: LayoutName, use_postln: bool | None = None
) -> dict[str, Tensor]:
    """Rename a FocalNet state dict into another layout. Tensors are shared, not copied.

    Args:
        state_dict: in any of the three layouts; which one is seen from the keys.
        to: the layout to return.
        use_postln: whether the blocks are res-post-norm; only asked when timm is written. Without it the variant is
            recognised by its shapes.

    Returns:
        the same tensors under the names of `to`, in the same order.

    Raises:
        UserError: a key has no counterpart, or timm is written from an unknown architecture without `use_postln`.
    """
    if to not in LAYOUTS:
        raise unknown("layout", to, LAYOUTS)
    source = detect_layout(state_dict)
    if source == to:
        return dict(state_dict)
    official = dict(state_dict) if source == "official" else _renaming(source).read(state_dict)
    if to == "official":
        return official
    if to == "timm" and use_postln is None:
        use_postln = _recognised_use_postln(official)
    return _renaming(to, bool(use_postln)).write(official)


def _recognised_use_postln(official: Mapping[str, Tensor]) -> bool:
    name = infer_variant(official)
    if name is None:
        raise UserError(
            "timm names the norms of pre-norm and res-post-norm blocks differently, and these weights fit no known "
            "variant; say which they are with use_postln=True or False."
        )
    use_postln = get_variant(name).use_postln
    logger.info("recognised %s: %s blocks", name, "res-post-norm" if use_postln else "pre-norm")
    return use_postln
