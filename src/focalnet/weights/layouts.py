"""The three published layouts of FocalNet weights, and the way from each to each.

Only names differ, and in timm the rank of four weights: there the linear layers of a block are 1x1 convolutions. So a
conversion moves no number, and there and back gives the same bytes. One table holds a row per module, one column per
layout; `{s}` is a stage, `{b}` a block, `{l}` a level, `{n}` 1 or 2. timm downsamples at the start of a stage where
the others do so at the end of the one before: `{s+1}`.

timm calls the norms of a res-post-norm block `norm1_post`, the other layouts call them `norm1` as in a pre-norm block
and keep the difference in the code. Reading timm therefore tells where the norms stand; writing timm needs it told.

transformers files come with a prefix (`FocalNetForImageClassification`, `FocalNetBackbone`), without one
(`FocalNetModel`), or with a decoder and a mask token (`FocalNetForMaskedImageModeling`), which no other layout has:
they are left out, with a line in the log. What is written has the prefix, which every transformers class reads.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal, get_args

from torch import Tensor

from focalnet.errors import UserError, unknown
from focalnet.variants import get_variant
from focalnet.weights.architecture import infer_variant

logger = logging.getLogger(__name__)

Layout = Literal["official", "timm", "transformers"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

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
_TIMM_CONVOLUTIONS = re.compile(r".*\.(modulation\.(f|proj)|mlp\.fc[12])\.weight")
_ONLY_MASKED_IMAGE_MODELING = re.compile(r"(focalnet\.)?embeddings\.mask_token|decoder\.0\.(weight|bias)")
_STEMS: dict[str, Layout] = {
    "patch_embed.": "official",
    "stem.": "timm",
    "embeddings.": "transformers",
    "focalnet.": "transformers",
}


def detect_layout(keys: Iterable[str]) -> Layout:
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


def convert_state_dict(
    state_dict: Mapping[str, Tensor], *, to: Layout, use_postln: bool | None = None
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
    if to == "timm" and use_postln is None:
        use_postln = _recognised_use_postln(convert_state_dict(state_dict, to="official"))
    rules = _rules(source, to, bool(use_postln))
    result: dict[str, Tensor] = {}
    strange, left_out = [], []
    for key, tensor in state_dict.items():
        name = key
        if source == "transformers" and key.startswith(("embeddings.", "encoder.", "layernorm.")):
            name = f"focalnet.{key}"
        renamed = next((new for rule in rules if (new := rule(name)) is not None), None)
        if renamed is None:
            (left_out if _ONLY_MASKED_IMAGE_MODELING.fullmatch(key) else strange).append(key)
            continue
        if to == "timm" and _TIMM_CONVOLUTIONS.fullmatch(renamed):
            tensor = tensor[:, :, None, None]
        elif source == "timm" and _TIMM_CONVOLUTIONS.fullmatch(key):
            tensor = tensor.flatten(1)
        result[renamed] = tensor
    if strange:
        raise UserError(
            f"{len(strange)} of {len(state_dict)} names have no counterpart in the {to} layout: {_few(strange)}."
        )
    if left_out:
        logger.info("left out what only masked image modelling has: %s", ", ".join(left_out))
    return result


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


_FIELD = re.compile(r"\{(\w)(\+1)?\}")


class _Rule:
    """One row of the table in one direction: a new name, or None where the row is about another module."""

    def __init__(self, source: str, target: str) -> None:
        pattern = _FIELD.sub(r"(?P<\1>\\d+)", source.replace(".", r"\."))
        self.pattern = re.compile(rf"{pattern}(?P<leaf>(\.weight|\.bias)?)")
        self.target = target
        self.shift = source.count("+1")

    def __call__(self, name: str) -> str | None:
        match = self.pattern.fullmatch(name)
        if match is None:
            return None
        stage = match.groupdict().get("s")
        fields = match.groupdict() | ({"s": str(int(stage) - self.shift)} if stage else {})
        return _FIELD.sub(lambda m: str(int(fields[m[1]]) + bool(m[2])), self.target) + match["leaf"]


@cache
def _rules(source: Layout, target: Layout, use_postln: bool) -> tuple[_Rule, ...]:
    rules = []
    for row in _TABLE:
        names = dict(zip(LAYOUTS, row, strict=True))
        post = names | {"timm": re.sub(r"\.norm\{n\}$", ".norm{n}_post", names["timm"])}
        forms = (names, post) if source == "timm" else (post if use_postln else names,)
        rules += [_Rule(form[source], form[target]) for form in forms]
    return tuple(rules)


def _few(names: list[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
