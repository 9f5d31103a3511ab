"""Weights of FocalCodec as published and in our own names, and the `config.json` beside the published ones.

    v0.0.1      what the three codecs without streams are published in: queries, keys and values apart, stages without
                names, and three tensors that nothing reads
    v0.0.2      what the three causal ones are published in; today's code writes it

Either holds any codec. Ours are the names of transformers in the encoder, of the FocalNet in the modulation, and those
of v0.0.2 elsewhere.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from focalnet.errors import UserError, unknown
from focalnet.models.focalcodec import FAMILY
from focalnet.models.focalcodec.options import EncoderOptions
from focalnet.schemas import as_type
from focalnet.weights.architecture import shape_of
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, Row, StateDict
from focalnet.weights.spec import CUSTOM, UNKNOWN, ModelSpec, Said, merge

_LAYER = "encoder.encoder.layers.{i}."
_ENCODER = [
    ("encoder.feature_extractor.conv_layers.{i}.conv", "encoder.feature_extractor.layers.{i}.conv"),
    ("encoder.feature_extractor.conv_layers.{i}.layer_norm", "encoder.feature_extractor.layers.{i}.norm"),
    ("encoder.feature_projection.layer_norm", "encoder.norm"),
    ("encoder.feature_projection.projection", "encoder.feature_proj"),
    ("encoder.encoder.pos_conv_embed.conv", "encoder.encoder.positional_embedding.conv"),
    ("encoder.encoder.layers.0.attention.rel_attn_embed", "encoder.encoder.relative_embedding"),
    (f"{_LAYER}layer_norm", f"{_LAYER}attention_norm"),
    (f"{_LAYER}final_layer_norm", f"{_LAYER}feed_forward_norm"),
    (f"{_LAYER}feed_forward.intermediate_dense", f"{_LAYER}feed_forward.in_proj"),
    (f"{_LAYER}feed_forward.output_dense", f"{_LAYER}feed_forward.out_proj"),
    (f"{_LAYER}attention.gru_rel_pos_const", f"{_LAYER}attention.gru_rel_pos_const"),
    (f"{_LAYER}attention.gru_rel_pos_linear", f"{_LAYER}attention.gru_rel_pos_linear"),
    (f"{_LAYER}attention.out_proj", f"{_LAYER}attention.out_proj"),
]
_PARTS = tuple(f"{_LAYER}attention.{part}_proj" for part in "qkv")
_TOGETHER = Row(
    _PARTS, f"{_LAYER}attention.qkv_proj", read=lambda tensor: tensor.chunk(3), write=lambda *parts: torch.cat(parts)
)
_MODULATION = {
    "f": "in_proj",
    "h": "context_proj",
    "proj": "out_proj",
    "ln.": "norm.",
    "focal_layers.{l}.0": "layers.{l}.0",
}
_UNREAD = [((), "encoder.encoder.norm"), ((), "quantizer.mask")]


def _rows(block: Mapping[str, str], scale: Mapping[str, str]) -> list[tuple[str, str]]:
    """Of the two stacks of stages, whose two parts a version names in its own way."""
    rows = []
    for stack, way in (("compressor", "downscale"), ("decompressor", "upscale")):
        stage = f"{stack}.layers.{{i}}."
        theirs = f"{stage}{block[stack]}."
        rows += [(f"{stage}focal_block.modulation.{a}", f"{theirs}modulation.{b}") for a, b in _MODULATION.items()]
        rows += [(f"{stage}focal_block.", theirs), (f"{stage}{way}.", f"{stage}{scale[stack]}.")]
    rest = ("compressor.out_proj", "decompressor.in_proj", "decompressor.refiner.", "decoder.")
    return [*rows, *((name, name) for name in rest)]


_OLD = Renaming(
    [
        *_ENCODER, *((part, part) for part in _PARTS), *_UNREAD,
        *_rows({"compressor": "1", "decompressor": "0"}, {"compressor": "0", "decompressor": "1"}),
    ],
    ours="FocalCodec", theirs="the v0.0.1 layout",
)  # fmt: skip
_NEW = Renaming(
    [
        *_ENCODER, _TOGETHER,
        *_rows(
            {"compressor": "focal_block", "decompressor": "focal_block"},
            {"compressor": "downscale", "decompressor": "upscale"},
        ),
    ],
    ours="FocalCodec", theirs="the v0.0.2 layout",
)  # fmt: skip

_CLASSES = {
    "encoder": ("WavLM",), "compressor": ("FocalEncoder",), "quantizer": ("BinarySphericalQuantizer",),
    "decompressor": ("FocalDecoder",), "decoder": ("Vocos", "WaveNeXt"),
}  # fmt: skip
_UNUSED = ("dropout", "padding", "max_cached_steps", "use_flex_attention", "store_hidden", "layerscale_init")
"""What no output of a trained codec depends on, or what is read with something else."""
# option of ours -> field of `config.json`
_WAVLM = {
    "dim": "dim", "layers": "num_layers", "heads": "num_heads", "ffn_dim": "ffn_dim", "conv_dims": "hidden_dims",
    "conv_kernels": "kernel_sizes", "conv_strides": "strides", "buckets": "num_buckets", "max_distance": "max_distance",
    "position_kernel": "conv_pos", "position_groups": "conv_pos_groups", "window": "window_size",
    "lookahead": "lookahead_size",
}  # fmt: skip
_FOCAL = {
    "dims": "hidden_dims", "focal_window": "focal_window", "focal_levels": "focal_level",
    "focal_factor": "focal_factor", "post_norm": "use_post_norm", "normalize_modulator": "normalize_modulator",
    "window": "window_size", "last_window": "last_window_size", "tanh_scale": "tanhscale_init",
    "lookahead": "lookahead_size",
}  # fmt: skip
_DECODER = {
    "dim": "dim", "layers": "num_layers", "ffn_dim": "ffn_dim", "kernel": "kernel_size",
    "layerscale": "layerscale_init", "n_fft": "n_fft", "hop": "hop_length",
}  # fmt: skip
# what a class has where a `config.json` is silent: in v0.0.1, and what v0.0.2 has otherwise
_V1: dict[str, dict[str, Any]] = {
    "FocalEncoder": {"output_dim": 13, "hidden_dims": [1024, 512, 256], "downscale_factors": [1, 1, 1]},
    "FocalDecoder": {"input_dim": 13, "hidden_dims": [256, 512, 1024], "upscale_factors": [1, 1, 1]},
    "BinarySphericalQuantizer": {"codebook_size": 8192},
    "Vocos": {},
    "WavLM": {},
}
_V2: dict[str, dict[str, Any]] = {
    "FocalEncoder": {
        "output_dim": 12, "hidden_dims": [1024] * 3, "downscale_factors": [1, 1, 1], "focal_window": 14,
        "focal_factor": 4,
    },
    "FocalDecoder": {
        "input_dim": 12, "hidden_dims": [1024] * 3, "upscale_factors": [1, 1, 1], "focal_window": 14, "focal_factor": 4,
        "last_window_size": 512, "lookahead_size": 3,
    },
    "BinarySphericalQuantizer": {"codebook_size": 4096},
    "Vocos": {},
    "WavLM": {},
    "WaveNeXt": {"dim": 1024, "ffn_dim": 2048, "hop_length": 480},
}  # fmt: skip


def _described(
    config: Mapping[str, Any], where: str, weights: StateDict, *, defaults: Mapping[str, dict[str, Any]], decoder: str
) -> ModelSpec:
    """The codec of a published folder.

    Args:
        config: its `config.json`.
        where: what to call that.
        weights: not needed.
        defaults: what a class has where the config is silent.
        decoder: the decoder where the config is silent.

    Raises:
        UserError: it describes no FocalCodec, or one that we do not have.
    """
    names = {part: config.get(f"{part}_name", decoder if part == "decoder" else _CLASSES[part][0]) for part in _CLASSES}
    for part, name in names.items():
        if name not in _CLASSES[part]:
            raise unknown(f"{part} in {where}", str(name), _CLASSES[part])
    for name in config:
        if name.removesuffix("_name").removesuffix("_config") not in _CLASSES:
            raise UserError(f"{where} has {name}, and describes no FocalCodec; check where it comes from.")
    parts: dict[str, dict[str, Any]] = {}
    for part in _CLASSES:
        said = as_type(config.get(f"{part}_config") or {}, dict[str, Any], f"{where}: {part}_config")
        if "input_channels" in said:  # of older ones
            said = {"input_dim": said["input_channels"]} | {k: v for k, v in said.items() if k != "input_channels"}
        parts[part] = defaults.get(names[part], {}) | said
    encoder, compressor, quantizer, decompressor, vocoder = (parts[part] for part in _CLASSES)
    causal = {bool(parts[part].pop("causal", False)) for part in _CLASSES if part != "quantizer"}
    if len(causal) > 1:
        raise UserError(f"{where} describes a codec of which only some parts are causal; we have none such.")
    size = as_type(quantizer.pop("codebook_size"), int, f"{where}: codebook_size")
    bits, width = int(size).bit_length() - 1, encoder.get("dim", EncoderOptions().dim)
    ends = {
        "compressor: output_dim": (compressor.pop("output_dim"), bits),
        "decompressor: input_dim": (decompressor.pop("input_dim"), bits),
        "compressor: input_dim": (compressor.pop("input_dim", 1024), width),
        "decompressor: output_dim": (decompressor.pop("output_dim", 1024), width),
        "decoder: input_dim": (vocoder.pop("input_dim", 1024), width),
        "quantizer: codebook_size": (size, 2**bits),
    }
    for field, (value, needed) in ends.items():
        if value != needed:
            raise UserError(f"{where} has {field}={value}, which does not fit the parts around it ({needed}).")
    options = {
        "bits": bits,
        "causal": causal.pop(),
        "down": compressor.pop("downscale_factors"),
        "up": decompressor.pop("upscale_factors"),
        "encoder": _options(encoder, _WAVLM, f"{where}: encoder_config"),
        "compressor": _options(compressor, _FOCAL, f"{where}: compressor_config"),
        "decompressor": _options(decompressor, _FOCAL, f"{where}: decompressor_config"),
        "decoder": {"kind": names["decoder"].lower(), **_options(vocoder, _DECODER, f"{where}: decoder_config")},
    }
    identity = {name: options[name] for name in ("bits", "causal", "down", "up")}
    variant = next((name for name, said in FAMILY.networks.items() if identity == said), CUSTOM)
    said = ModelSpec.partial(
        Said.FILE, variant=variant, head=FAMILY.name, architecture=None, head_options=options, num_classes=0,
        preprocessing=FAMILY.preprocessing,
    )  # fmt: skip
    return merge(said, UNKNOWN)


def _options(said: dict[str, Any], table: Mapping[str, str], where: str) -> dict[str, Any]:
    """A section of `config.json` as options of ours."""
    known = {theirs: ours for ours, theirs in table.items()}
    for name in said:
        if name not in known and name not in (*_UNUSED, "use_layerscale"):
            raise unknown(f"field of {where}", name, [*known, *_UNUSED])
    options = {known[name]: value for name, value in said.items() if name in known and value is not None}
    if said.get("use_layerscale"):
        options["layerscale"] = said.get("layerscale_init", 1e-4)
    return options


def _facts(weights: StateDict) -> ModelSpec:
    bits = shape_of(weights, "compressor.out_proj.weight")[0]
    return told(0, {"bits": bits, "causal": "compressor.layers.0.focal_block.modulation_norm.alpha" in weights})


_FIRST = "compressor.layers.0."
_COMMON: dict[str, Any] = {"head": FAMILY.name, "backbone_prefix": None, "facts": _facts, "wrapper": None}
LAYOUTS = (
    Layout(
        name="v0.0.1", matches=has(f"{_FIRST}0.downscale.", f"{_FIRST}1.modulation."),
        read=_OLD.read, write=_OLD.write, unread=("quantizer.mask",),
        described=partial(_described, defaults=_V1, decoder="Vocos"), **_COMMON,
    ),
    Layout(
        name="v0.0.2", matches=has(f"{_FIRST}downscale.", f"{_FIRST}focal_block.modulation.in_proj."),
        read=_NEW.read, write=_NEW.write, described=partial(_described, defaults=_V2, decoder="WaveNeXt"), **_COMMON,
    ),
    Layout(
        name="focalnet", matches=has(f"{_FIRST}focal_block.modulation.f.", "decompressor.in_proj."), **_COMMON
    ),
)  # fmt: skip
"""In the order in which they are tried."""
