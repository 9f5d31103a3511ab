"""Weights of Mask2Former as facebookresearch publishes them, and in our own names.

Names differ, and one matrix: facebookresearch keeps the projections of query, key and value in one, of three times as
many rows, and we keep those of the self-attention apart, as transformers does.
"""

import torch
from torch import Tensor

from focalnet.weights.architecture import count, shape_of
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, Row, StateDict
from focalnet.weights.spec import ModelSpec

_BACKBONE = "net.model.pixel_level_module.encoder.trunk."
_PIXEL, _THEIR_PIXEL = "net.model.pixel_level_module.decoder.", "sem_seg_head.pixel_decoder."
_QUERY, _THEIR_QUERY = "net.model.transformer_module.", "sem_seg_head.predictor."
_ENCODER, _THEIR_ENCODER = _PIXEL + "encoder.layers.{i}.", _THEIR_PIXEL + "transformer.encoder.layers.{i}."
_DECODER = _QUERY + "decoder.layers.{i}."
_SELF, _CROSS, _FFN = (_THEIR_QUERY + f"transformer_{part}_layers.{{i}}." for part in (
    "self_attention", "cross_attention", "ffn"))  # fmt: skip


def _split(joined: Tensor) -> list[Tensor]:
    if joined.ndim == 0 or joined.shape[0] % 3:
        raise ValueError("query, key and value share its rows")
    return [part.clone() for part in joined.chunk(3)]


def _join(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def _projections(leaf: str) -> Row:
    ours = tuple(f"{_DECODER}self_attn.{letter}_proj.{leaf}" for letter in "qkv")
    return Row(ours, f"{_SELF}self_attn.in_proj_{leaf}", read=_split, write=_join)


_FACEBOOKRESEARCH = Renaming(
    [
        (_BACKBONE, "backbone."),
        (_PIXEL + "input_projections.", _THEIR_PIXEL + "input_proj."),
        (_PIXEL + "level_embed", _THEIR_PIXEL + "transformer.level_embed"),
        (_ENCODER + "self_attn.", _THEIR_ENCODER + "self_attn."),
        (_ENCODER + "self_attn_layer_norm.", _THEIR_ENCODER + "norm1."),
        (_ENCODER + "final_layer_norm.", _THEIR_ENCODER + "norm2."),
        (_ENCODER + "fc{k}.", _THEIR_ENCODER + "linear{k}."),
        (_PIXEL + "adapter_{i}.1.", _THEIR_PIXEL + "adapter_{i}.norm."),
        (_PIXEL + "adapter_{i}.0.", _THEIR_PIXEL + "adapter_{i}."),
        (_PIXEL + "layer_{i}.1.", _THEIR_PIXEL + "layer_{i}.norm."),
        (_PIXEL + "layer_{i}.0.", _THEIR_PIXEL + "layer_{i}."),
        (_PIXEL + "mask_projection.", _THEIR_PIXEL + "mask_features."),
        _projections("weight"),
        _projections("bias"),
        (_DECODER + "self_attn.", _SELF + "self_attn."),
        (_DECODER + "self_attn_layer_norm.", _SELF + "norm."),
        (_DECODER + "cross_attn.", _CROSS + "multihead_attn."),
        (_DECODER + "cross_attn_layer_norm.", _CROSS + "norm."),
        (_DECODER + "fc{k}.", _FFN + "linear{k}."),
        (_DECODER + "final_layer_norm.", _FFN + "norm."),
        (_QUERY + "decoder.layernorm.", _THEIR_QUERY + "decoder_norm."),
        (_QUERY + "queries_features.", _THEIR_QUERY + "query_feat."),
        (_QUERY + "queries_features.", _THEIR_QUERY + "static_query."),  # its name before version 2 of the code
        (_QUERY + "queries_embedder.", _THEIR_QUERY + "query_embed."),
        (_QUERY + "level_embed.", _THEIR_QUERY + "level_embed."),
        (_QUERY + "decoder.mask_predictor.mask_embedder.{i}.0.", _THEIR_QUERY + "mask_embed.layers.{i}."),
        ("net.class_predictor.", _THEIR_QUERY + "class_embed."),
        ("net.criterion.empty_weight", "criterion.empty_weight"),
        ((), "pixel_mean"),
        ((), "pixel_std"),
    ],
    ours="a Mask2Former",
    theirs="the facebookresearch layout",
)


def _facts(weights: StateDict) -> ModelSpec:
    encoder, decoder = f"{_PIXEL}encoder.layers.", f"{_QUERY}decoder.layers."
    queries, width = shape_of(weights, f"{_QUERY}queries_features.weight")
    options = {
        "num_queries": queries,
        "hidden_dim": width,
        "ffn_dim": shape_of(weights, f"{decoder}0.fc1.weight")[0],
        "encoder_ffn_dim": shape_of(weights, f"{encoder}0.fc1.weight")[0],
        "encoder_layers": count(weights, encoder),
        "decoder_layers": count(weights, decoder) + 1,
        "heads": shape_of(weights, f"{encoder}0.self_attn.attention_weights.bias")[0] // 12,  # 3 maps, 4 points in each
    }
    return told(shape_of(weights, "net.class_predictor.bias")[0] - 1, options)


LAYOUTS = (
    Layout(
        name="facebookresearch", head="mask2former", backbone_prefix=_BACKBONE,
        matches=has("backbone.", "sem_seg_head.predictor.", "sem_seg_head.pixel_decoder."),
        read=_FACEBOOKRESEARCH.read, write=_FACEBOOKRESEARCH.write, facts=_facts,
    ),
    Layout(
        name="focalnet", head="mask2former", backbone_prefix=_BACKBONE, matches=has(_BACKBONE, _QUERY), facts=_facts
    ),
)  # fmt: skip
"""In the order in which they are tried."""
