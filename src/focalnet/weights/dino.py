"""Layouts of DINO's weight files: the official one, whose names are ours, and detrex's.

    ours and official                                   detrex
    backbone.0.…                                        backbone.…
    input_proj.{l}.0, .1                                neck.convs.{l}.conv, .norm; the last l: neck.extra_convs.0
    transformer.level_embed                             transformer.level_embeds
    transformer.encoder.layers.{i}.self_attn            ….attentions.0
    transformer.encoder.layers.{i}.norm1, norm2         ….norms.0, norms.1
    transformer.decoder.layers.{i}.self_attn            ….attentions.0.attn
    transformer.decoder.layers.{i}.cross_attn           ….attentions.1
    transformer.decoder.layers.{i}.norm2, norm1, norm3  ….norms.0, norms.1, norms.2
    ….linear1, linear2                                  ….ffns.0.layers.0.0, ffns.0.layers.1
    transformer.enc_out_class_embed, …bbox_embed        class_embed.{N}, bbox_embed.{N} of N decoder layers

Both files hold the heads of the decoder twice, under the model and under `transformer.decoder`. In the official file
all N are one and the same; in detrex's each layer has its own, and the encoder's comes last.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from focalnet.errors import UserError
from focalnet.weights.dense import DenseFacts, DenseLayout

StateDict = Mapping[str, Tensor]

_OURS = re.compile(r"(backbone\.0|input_proj|transformer|label_enc|bbox_embed|class_embed)\..+")
_KEPT = re.compile(
    r"transformer\.(tgt_embed|enc_output|enc_output_norm|decoder\.(norm|ref_point_head|(class|bbox)_embed))\..+"
    r"|(label_enc|class_embed|bbox_embed)\..+"
)
_LAYER = re.compile(r"(transformer\.(encoder|decoder)\.layers\.\d+\.)(.+)")
_PARTS = {
    "encoder": (("self_attn.", "attentions.0."), ("norm1.", "norms.0."), ("norm2.", "norms.1.")),
    "decoder": (
        ("self_attn.", "attentions.0.attn."), ("cross_attn.", "attentions.1."),
        ("norm2.", "norms.0."), ("norm1.", "norms.1."), ("norm3.", "norms.2."),
    ),
}  # fmt: skip
_MLP = (("linear1.", "ffns.0.layers.0.0."), ("linear2.", "ffns.0.layers.1."))
_PROJECTION = re.compile(r"input_proj\.(\d+)\.([01])\.(.+)")
_NECK = re.compile(r"neck\.(convs|extra_convs)\.(\d+)\.(conv|norm)\.(.+)")
_ENCODER_HEAD = re.compile(r"transformer\.enc_out_(class|bbox)_embed\.(.+)")
_HEAD = re.compile(r"(?:transformer\.decoder\.)?(class|bbox)_embed\.(\d+)\.(.+)")


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


def read_facts(state_dict: StateDict) -> DenseFacts:
    """What the shapes of a DINO tell, of a state dict in our names.

    Heads and points of the attention cannot be told apart: only their product shows. They are left to the name.

    Raises:
        UserError: a part is missing.
    """
    try:
        return _facts(state_dict)
    except KeyError as error:
        raise UserError(f"the weights are not a whole DINO: {error.args[0]} is missing.") from None


def _facts(weights: StateDict) -> DenseFacts:
    levels, dim = weights["transformer.level_embed"].shape
    classes = weights["class_embed.0.bias"].shape[0]
    decoder_layers = _count(weights, "transformer.decoder.layers.")
    first, last = (weights[f"class_embed.{layer}.weight"] for layer in (0, decoder_layers - 1))
    options = {
        "num_feature_levels": levels,
        "num_queries": weights["transformer.tgt_embed.weight"].shape[0],
        "hidden_dim": dim,
        "ffn_dim": weights["transformer.encoder.layers.0.linear1.bias"].shape[0],
        "encoder_layers": _count(weights, "transformer.encoder.layers."),
        "decoder_layers": decoder_layers,
        "shared_heads": torch.equal(first, last),
        "spare_label": weights["label_enc.weight"].shape[0] > classes,
    }
    return DenseFacts(classes, options, {"stem_padding": 2})


def _detrex_facts(weights: StateDict) -> DenseFacts:
    facts = read_facts(weights)
    options = {**facts.head_options, "position_temperature": 10000.0, "position_offset": -0.5}
    # detrex's fl4 configurations do not divide the modulator, although the backbone was trained so.
    return DenseFacts(facts.num_classes, options, {**facts.overrides, "normalize_modulator": False})


def _count(names: StateDict, prefix: str) -> int:
    places = [int(name[len(prefix) :].split(".")[0]) for name in names if name.startswith(prefix)]
    return max(places, default=-1) + 1


def _read_official(state_dict: StateDict) -> dict[str, Tensor]:
    _refuse([name for name in state_dict if not _OURS.fullmatch(name)], state_dict)
    return dict(state_dict)


def _read_detrex(state_dict: StateDict) -> dict[str, Tensor]:
    layers = _count(state_dict, "transformer.decoder.layers.")
    maps = _count(state_dict, "neck.convs.")
    result, strange = {}, []
    for name, tensor in state_dict.items():
        renamed = _from_detrex(name, layers, maps)
        if renamed is None:
            strange.append(name)
        result[renamed or name] = tensor
    _refuse(strange, state_dict)
    return result


def _from_detrex(name: str, layers: int, maps: int) -> str | None:
    head = _HEAD.fullmatch(name)
    if head and int(head[2]) == layers:
        return f"transformer.enc_out_{head[1]}_embed.{head[3]}"
    if name == "transformer.level_embeds":
        return "transformer.level_embed"
    if neck := _NECK.fullmatch(name):
        place = int(neck[2]) + (maps if neck[1] == "extra_convs" else 0)
        return f"input_proj.{place}.{('conv', 'norm').index(neck[3])}.{neck[4]}"
    if layer := _LAYER.fullmatch(name):
        return _swap(layer, from_detrex=True)
    if name.startswith("backbone."):
        return "backbone.0." + name.removeprefix("backbone.")
    return name if _KEPT.fullmatch(name) else None


def _write_detrex(state_dict: StateDict) -> dict[str, Tensor]:
    layers = _count(state_dict, "transformer.decoder.layers.")
    maps = _count(state_dict, "input_proj.") - 1
    result, strange = {}, []
    for name, tensor in state_dict.items():
        if head := _ENCODER_HEAD.fullmatch(name):
            result[f"{head[1]}_embed.{layers}.{head[2]}"] = tensor
            result[f"transformer.decoder.{head[1]}_embed.{layers}.{head[2]}"] = tensor
            continue
        renamed = _to_detrex(name, maps)
        if renamed is None:
            strange.append(name)
        result[renamed or name] = tensor
    _refuse(strange, state_dict)
    return result


def _to_detrex(name: str, maps: int) -> str | None:
    if name == "transformer.level_embed":
        return "transformer.level_embeds"
    if projection := _PROJECTION.fullmatch(name):
        place = int(projection[1])
        row = f"convs.{place}" if place < maps else f"extra_convs.{place - maps}"
        return f"neck.{row}.{('conv', 'norm')[int(projection[2])]}.{projection[3]}"
    if layer := _LAYER.fullmatch(name):
        return _swap(layer, from_detrex=False)
    if name.startswith("backbone.0."):
        return "backbone." + name.removeprefix("backbone.0.")
    return name if _KEPT.fullmatch(name) else None


def _swap(layer: re.Match[str], *, from_detrex: bool) -> str | None:
    for ours, theirs in (*_PARTS[layer[2]], *_MLP):
        old, new = (theirs, ours) if from_detrex else (ours, theirs)
        if layer[3].startswith(old):
            return layer[1] + new + layer[3].removeprefix(old)
    return None


def _refuse(strange: list[str], state_dict: StateDict) -> None:
    if strange:
        raise UserError(
            f"{len(strange)} of {len(state_dict)} names have no counterpart in DINO: {', '.join(strange[:4])}"
            f"{', …' if len(strange) > 4 else ''}."
        )


DINO_LAYOUTS = (
    DenseLayout(
        name="official", head="dino", backbone_prefix="backbone.0.",
        matches=lambda weights: "transformer.level_embed" in weights and "label_enc.weight" in weights,
        read=_read_official, write=dict, facts=read_facts, wrapper="model",
    ),
    DenseLayout(
        name="detrex", head="dino", backbone_prefix="backbone.0.",
        matches=lambda weights: "transformer.level_embeds" in weights and "label_enc.weight" in weights,
        read=_read_detrex, write=_write_detrex, facts=_detrex_facts, wrapper="model",
    ),
)  # fmt: skip
"""The layouts of DINO, for `weights.detectors`."""
