"""Layouts of DINO's weight files: the official one, whose names are ours, and detrex's.

Both files hold the heads of the decoder twice, under the model and under `transformer.decoder`. In the official file
all are one and the same; in detrex's each layer of the decoder has its own, and the encoder's comes last.
"""

from functools import cache

import torch
from torch import Tensor

from focalnet.errors import UserError
from focalnet.weights.architecture import count
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, StateDict
from focalnet.weights.spec import ModelSpec

_OFFICIAL = Renaming(
    [
        (name, name)
        for name in ("backbone.0.", "input_proj.", "transformer.", "label_enc.", "bbox_embed.", "class_embed.")
    ],
    ours="DINO",
    theirs="the official layout",
)


@cache
def _detrex(layers: int, maps: int) -> Renaming:
    """detrex's table for a decoder of `layers` layers on `maps` maps of the backbone."""
    rows: list[tuple] = [
        ("backbone.0.", "backbone."),
        ("transformer.level_embed", "transformer.level_embeds"),
    ]
    for place, module in enumerate(("conv", "norm")):
        rows.append((f"input_proj.{{l+{maps}}}.{place}.", f"neck.extra_convs.{{l}}.{module}."))
        rows.append((f"input_proj.{{l}}.{place}.", f"neck.convs.{{l}}.{module}."))
    for part, names in _PARTS.items():
        layer = f"transformer.{part}.layers.{{i}}."
        rows += [(layer + ours, layer + theirs) for ours, theirs in names]
    for part in ("class_embed", "bbox_embed"):
        last = f"{part}.{layers}."
        rows.append((f"transformer.enc_out_{part}.", (last, f"transformer.decoder.{last}")))
        rows += [(name, name) for name in (f"{part}.", f"transformer.decoder.{part}.")]
    rows += [(name, name) for name in _KEPT]
    return Renaming(rows, ours="DINO", theirs="the detrex layout")


_DECODER = "transformer.decoder.layers."
_MLP = (("linear1.", "ffns.0.layers.0.0."), ("linear2.", "ffns.0.layers.1."))
_PARTS = {
    "encoder": (("self_attn.", "attentions.0."), ("norm1.", "norms.0."), ("norm2.", "norms.1."), *_MLP),
    "decoder": (
        ("self_attn.", "attentions.0.attn."), ("cross_attn.", "attentions.1."),
        ("norm2.", "norms.0."), ("norm1.", "norms.1."), ("norm3.", "norms.2."), *_MLP,
    ),
}  # fmt: skip
_KEPT = (
    "label_enc.", "transformer.tgt_embed.", "transformer.enc_output.", "transformer.enc_output_norm.",
    "transformer.decoder.norm.", "transformer.decoder.ref_point_head.",
)  # fmt: skip


def _read_detrex(weights: StateDict) -> dict[str, Tensor]:
    return _detrex(count(weights, _DECODER), count(weights, "neck.convs.")).read(weights)


def _write_detrex(weights: StateDict) -> dict[str, Tensor]:
    return _detrex(count(weights, _DECODER), count(weights, "input_proj.") - 1).write(weights)


def check_scales(state_dict: StateDict, num_feature_levels: int) -> None:
    """Refuse weights for another number of feature maps.

    Loaded in part, they give a detector that finds nothing (microsoft/FocalNet#18, #24).

    Args:
        state_dict: in our names.
        num_feature_levels: of the model.

    Raises:
        UserError: the numbers differ; it names both.
    """
    there = state_dict["transformer.level_embed"].shape[0]
    if there != num_feature_levels:
        raise UserError(
            f"the weights are of a DINO with {there} scales, the model has {num_feature_levels}; build it with "
            f"num_feature_levels={there}."
        )


def read_facts(state_dict: StateDict) -> ModelSpec:
    """What the shapes of a DINO tell, of a state dict in our names.

    Heads and points of the attention cannot be told apart: only their product shows. They are left to the name.

    Raises:
        UserError: a part is missing.
    """
    try:
        return _facts(state_dict)
    except KeyError as error:
        raise UserError(f"the weights are not a whole DINO: {error.args[0]} is missing.") from None


def _facts(weights: StateDict) -> ModelSpec:
    levels, dim = weights["transformer.level_embed"].shape
    classes = weights["class_embed.0.bias"].shape[0]
    decoder_layers = count(weights, _DECODER)
    first, last = (weights[f"class_embed.{layer}.weight"] for layer in (0, decoder_layers - 1))
    options = {
        "num_feature_levels": levels,
        "num_queries": weights["transformer.tgt_embed.weight"].shape[0],
        "hidden_dim": dim,
        "ffn_dim": weights["transformer.encoder.layers.0.linear1.bias"].shape[0],
        "encoder_layers": count(weights, "transformer.encoder.layers."),
        "decoder_layers": decoder_layers,
        "shared_heads": torch.equal(first, last),
        "spare_label": weights["label_enc.weight"].shape[0] > classes,
    }
    return told(classes, options, {"stem_padding": 2})


def _detrex_facts(weights: StateDict) -> ModelSpec:
    facts = read_facts(weights)
    # detrex's fl4 configurations do not divide the modulator, although the backbone was trained so.
    meant = {"stem_padding": 2, "normalize_modulator": False}
    return told(facts.num_classes, facts.head_options, meant, position_temperature=10000.0, position_offset=-0.5)


LAYOUTS = (
    Layout(
        name="official", head="dino", backbone_prefix="backbone.0.",
        matches=has("transformer.level_embed", "label_enc.weight"),
        read=_OFFICIAL.read, write=_OFFICIAL.write, facts=read_facts,
    ),
    Layout(
        name="detrex", head="dino", backbone_prefix="backbone.0.",
        matches=has("transformer.level_embeds", "label_enc.weight"),
        read=_read_detrex, write=_write_detrex, facts=_detrex_facts,
    ),
)  # fmt: skip
"""In the order in which they are tried."""
