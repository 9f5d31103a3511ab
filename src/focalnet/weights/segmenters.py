"""Weight layouts of the segmenters: mmsegmentation's UPerNet, facebookresearch's Mask2Former, and our names.

Names differ, and one matrix: facebookresearch keeps the projections of query, key and value in one, of three times as
many rows, and we keep those of the self-attention apart, as transformers does. `{i}`, `{k}` are numbers.

    ours                                               mmsegmentation, Mask2Former
    net.backbone.trunk.*                               backbone.*
    net.decode_head.*.batch_norm, …classifier          decode_head.*.bn, …conv_seg
    net.model.pixel_level_module.encoder.trunk.*       backbone.*
    net.model.pixel_level_module.decoder.*             sem_seg_head.pixel_decoder.*
    net.model.transformer_module.*, class_predictor    sem_seg_head.predictor.*

Files of the official UPerNets fix one more fact that shapes do not show: the padding of an overlapped stem is 3.
"""

import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from focalnet.errors import UserError
from focalnet.inputs.image import SEMANTIC
from focalnet.weights.dense import DenseFacts, DenseLayout, StateDict, overlapped_padding, shape_of, under

UPERNET, MASK2FORMER = "net.backbone.trunk.", "net.model.pixel_level_module.encoder.trunk."

#             theirs                        ours; the first row that fits is taken
_MMSEG = (
    ("backbone.", UPERNET),
    ("decode_head.conv_seg.", "net.decode_head.classifier."),
    ("auxiliary_head.conv_seg.", "net.auxiliary_head.classifier."),
    ("decode_head.{rest}.bn.", "net.decode_head.{rest}.batch_norm."),
    ("auxiliary_head.{rest}.bn.", "net.auxiliary_head.{rest}.batch_norm."),
    ("decode_head.", "net.decode_head."),
    ("auxiliary_head.", "net.auxiliary_head."),
)
_PIXEL, _PIXEL_OURS = "sem_seg_head.pixel_decoder.", "net.model.pixel_level_module.decoder."
_QUERY, _QUERY_OURS = "sem_seg_head.predictor.", "net.model.transformer_module."
_ENCODER, _ENCODER_OURS = _PIXEL + "transformer.encoder.layers.{i}.", _PIXEL_OURS + "encoder.layers.{i}."
_DECODER_OURS = _QUERY_OURS + "decoder.layers.{i}."
_FACEBOOK = (
    ("backbone.", MASK2FORMER),
    (_PIXEL + "input_proj.", _PIXEL_OURS + "input_projections."),
    (_PIXEL + "transformer.level_embed", _PIXEL_OURS + "level_embed"),
    (_ENCODER + "self_attn.", _ENCODER_OURS + "self_attn."),
    (_ENCODER + "norm1.", _ENCODER_OURS + "self_attn_layer_norm."),
    (_ENCODER + "norm2.", _ENCODER_OURS + "final_layer_norm."),
    (_ENCODER + "linear{k}.", _ENCODER_OURS + "fc{k}."),
    (_PIXEL + "adapter_{i}.norm.", _PIXEL_OURS + "adapter_{i}.1."),
    (_PIXEL + "adapter_{i}.", _PIXEL_OURS + "adapter_{i}.0."),
    (_PIXEL + "layer_{i}.norm.", _PIXEL_OURS + "layer_{i}.1."),
    (_PIXEL + "layer_{i}.", _PIXEL_OURS + "layer_{i}.0."),
    (_PIXEL + "mask_features.", _PIXEL_OURS + "mask_projection."),
    (_QUERY + "transformer_self_attention_layers.{i}.self_attn.", _DECODER_OURS + "self_attn."),
    (_QUERY + "transformer_self_attention_layers.{i}.norm.", _DECODER_OURS + "self_attn_layer_norm."),
    (_QUERY + "transformer_cross_attention_layers.{i}.multihead_attn.", _DECODER_OURS + "cross_attn."),
    (_QUERY + "transformer_cross_attention_layers.{i}.norm.", _DECODER_OURS + "cross_attn_layer_norm."),
    (_QUERY + "transformer_ffn_layers.{i}.linear{k}.", _DECODER_OURS + "fc{k}."),
    (_QUERY + "transformer_ffn_layers.{i}.norm.", _DECODER_OURS + "final_layer_norm."),
    (_QUERY + "decoder_norm.", _QUERY_OURS + "decoder.layernorm."),
    (_QUERY + "query_feat.", _QUERY_OURS + "queries_features."),
    (_QUERY + "static_query.", _QUERY_OURS + "queries_features."),  # its name before version 2 of the code
    (_QUERY + "query_embed.", _QUERY_OURS + "queries_embedder."),
    (_QUERY + "level_embed.", _QUERY_OURS + "level_embed."),
    (_QUERY + "mask_embed.layers.{i}.", _QUERY_OURS + "decoder.mask_predictor.mask_embedder.{i}.0."),
    (_QUERY + "class_embed.", "net.class_predictor."),
    ("criterion.empty_weight", "net.criterion.empty_weight"),
)
_SPLIT = re.compile(re.escape(_QUERY_OURS) + r"decoder\.layers\.\d+\.self_attn\.(in|[qkv])_proj[._](weight|bias)")
_FIELD = re.compile(r"\{(\w+)\}")

Rule = Callable[[str], str | None]


def _rule(source: str, target: str) -> Rule:
    pattern = re.escape(source).replace(r"\{rest\}", r"(?P<rest>.+)")
    pattern = re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", pattern))

    def rename(name: str) -> str | None:
        match = pattern.match(name)
        return None if match is None else _FIELD.sub(lambda field: match[field[1]], target) + name[match.end() :]

    return rename


def _renamed(weights: StateDict, rules: tuple[Rule, ...], what: str) -> dict[str, Tensor]:
    names = {name: next((new for rule in rules if (new := rule(name)) is not None), None) for name in weights}
    strange = [name for name, new in names.items() if new is None]
    if strange:
        raise UserError(
            f"{len(strange)} of {len(names)} weights have no place in a {what}: {', '.join(strange[:4])}; "
            "leave them out of the file, or read it as what it is."
        )
    places: dict[str, str] = {}
    for name, new in names.items():
        if new in places:
            raise UserError(f"{places[new]} and {name} are one weight of a {what}; leave one of them out.")
        places[str(new)] = name
    return {new: weights[name] for new, name in places.items()}


_READ_MMSEG = tuple(_rule(theirs, ours) for theirs, ours in _MMSEG)
_WRITE_MMSEG = tuple(_rule(ours, theirs) for theirs, ours in _MMSEG)
_READ_FACEBOOK = tuple(_rule(theirs, ours) for theirs, ours in _FACEBOOK)
_WRITE_FACEBOOK = tuple(_rule(ours, theirs) for theirs, ours in _FACEBOOK)


def _read_facebook(weights: StateDict) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    weights = {name: tensor for name, tensor in weights.items() if name not in ("pixel_mean", "pixel_std")}
    for name, tensor in _renamed(weights, _READ_FACEBOOK, "Mask2Former").items():
        match = _SPLIT.fullmatch(name)
        if match is None or match[1] != "in":
            result[name] = tensor
            continue
        if tensor.ndim == 0 or tensor.shape[0] % 3:
            raise UserError(f"{name} has the shape {tuple(tensor.shape)}; query, key and value share its rows.")
        for letter, part in zip("qkv", tensor.chunk(3), strict=True):
            result[name.replace(f"in_proj_{match[2]}", f"{letter}_proj.{match[2]}")] = part.clone()
    return result


def _write_facebook(weights: StateDict) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        match = _SPLIT.fullmatch(name)
        if match is None:
            joined[name] = tensor
        elif match[1] == "q" or name.replace(f".{match[1]}_proj.", ".q_proj.") not in weights:
            parts = [weights[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            joined[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    return _renamed(joined, _WRITE_FACEBOOK, "Mask2Former")


def _count(weights: StateDict, prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})


def _facts_upernet(weights: StateDict, *, official: bool) -> DenseFacts:
    options = {
        "channels": shape_of(weights, "net.decode_head.bottleneck.conv.weight")[0],
        "aux_channels": shape_of(weights, "net.auxiliary_head.convs.0.conv.weight")[0],
    }
    padding = overlapped_padding(under(weights, UPERNET), official=official)
    return DenseFacts(shape_of(weights, "net.decode_head.classifier.bias")[0], options, padding, SEMANTIC)


def _facts_mask2former(weights: StateDict) -> DenseFacts:
    encoder, decoder = f"{_PIXEL_OURS}encoder.layers.", f"{_QUERY_OURS}decoder.layers."
    queries, width = shape_of(weights, f"{_QUERY_OURS}queries_features.weight")
    options = {
        "num_queries": queries,
        "hidden_dim": width,
        "ffn_dim": shape_of(weights, f"{decoder}0.fc1.weight")[0],
        "encoder_ffn_dim": shape_of(weights, f"{encoder}0.fc1.weight")[0],
        "encoder_layers": _count(weights, encoder),
        "decoder_layers": _count(weights, decoder) + 1,
        "heads": shape_of(weights, f"{encoder}0.self_attn.attention_weights.bias")[0] // 12,  # 3 maps, 4 points in each
    }
    return DenseFacts(shape_of(weights, "net.class_predictor.bias")[0] - 1, options, {})


def _has(*prefixes: str) -> Callable[[StateDict], bool]:
    return lambda weights: all(any(name.startswith(prefix) for name in weights) for prefix in prefixes)


SEGMENTERS: tuple[DenseLayout, ...] = (
    DenseLayout(
        name="mmseg",
        head="upernet",
        backbone_prefix=UPERNET,
        matches=_has("backbone.", "decode_head.psp_modules."),
        read=partial(_renamed, rules=_READ_MMSEG, what="UPerNet"),
        write=partial(_renamed, rules=_WRITE_MMSEG, what="UPerNet"),
        facts=partial(_facts_upernet, official=True),
        wrapper="state_dict",
    ),
    DenseLayout(
        name="facebookresearch",
        head="mask2former",
        backbone_prefix=MASK2FORMER,
        matches=_has("backbone.", "sem_seg_head.predictor.", "sem_seg_head.pixel_decoder."),
        read=_read_facebook,
        write=_write_facebook,
        facts=_facts_mask2former,
        wrapper="model",
    ),
    DenseLayout(
        name="focalnet",
        head="upernet",
        backbone_prefix=UPERNET,
        matches=_has(UPERNET, "net.decode_head."),
        read=dict,
        write=dict,
        facts=partial(_facts_upernet, official=False),
        wrapper="model",
    ),
    DenseLayout(
        name="focalnet",
        head="mask2former",
        backbone_prefix=MASK2FORMER,
        matches=_has(MASK2FORMER, _QUERY_OURS),
        read=dict,
        write=dict,
        facts=_facts_mask2former,
        wrapper="model",
    ),
)

UPERNET_LAYOUTS = tuple(layout for layout in SEGMENTERS if layout.head == "upernet")
MASK2FORMER_LAYOUTS = tuple(layout for layout in SEGMENTERS if layout.head == "mask2former")
