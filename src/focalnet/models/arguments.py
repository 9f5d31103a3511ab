"""What may be said of a network by name, for type checkers: they read no dataclass behind `**overrides`.

`FocalNetConfig` and the families' `Options` say what each means, and are what counts; a test compares.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

ClassifierName = Literal[
    "focalnet_tiny_srf", "focalnet_tiny_lrf", "focalnet_small_srf", "focalnet_small_lrf", "focalnet_base_srf",
    "focalnet_base_lrf", "focalnet_tiny_iso", "focalnet_small_iso", "focalnet_base_iso", "focalnet_large_fl3",
    "focalnet_large_fl4", "focalnet_xlarge_fl3", "focalnet_xlarge_fl4", "focalnet_huge_fl3", "focalnet_huge_fl4",
    "focalnet_tiny_srf_overlap", "focalnet_small_srf_overlap", "focalnet_base_srf_overlap",
    "focalnet_tiny_srf_deeper", "focalnet_small_srf_deeper", "focalnet_base_srf_deeper", "minifocal_32",
    "minifocal_64", "minifocal_128",
]  # fmt: skip
"""The variants: a name without a head is a classifier."""


class ArchitectureOptions(TypedDict, total=False):
    """Fields of `FocalNetConfig`."""

    embed_dim: int
    depths: Sequence[int]
    focal_levels: int | Sequence[int]
    focal_windows: int | Sequence[int]
    focal_factor: int
    patch_size: int
    in_channels: int
    spatial_dims: int
    mlp_ratio: float
    use_conv_embed: bool
    stem_padding: int
    use_postln: bool
    layerscale_value: float | None
    use_postln_in_modulation: bool
    normalize_modulator: bool
    drop_rate: float
    drop_path_rate: float


class ModelOptions(ArchitectureOptions, total=False):
    """Options of the families' heads too. Those of a family from outside the package go in as `**{"name": value}`."""

    anchor_size: float
    aux_channels: int
    aux_weight: float
    average_ignored: bool
    bits: int
    box_depth: int
    candidates: int
    causal: bool
    channels: int
    class_depth: int
    classifier_std: float
    compressor: Mapping[str, Any]
    decoder: Mapping[str, Any]
    decoder_depth: int
    decoder_layers: int
    decoder_mlp_ratio: float
    decompressor: Mapping[str, Any]
    detections: int
    dice_weight: float
    dn_box_noise: float
    dn_label_noise: float
    dn_number: int
    down: Sequence[int]
    dropout: float
    dynamic_dim: int
    embedding: int
    encoder: Mapping[str, Any]
    encoder_ffn_dim: int
    encoder_layers: int
    ffn_dim: int
    fpn_channels: int
    head_depth: int
    heads: int
    hidden_dim: int
    nms_threshold: float
    no_object_weight: float
    num_feature_levels: int
    num_queries: int
    out_indices: Sequence[int] | None
    points: int
    pool_scales: Sequence[int]
    position_offset: float
    position_temperature: float
    proposals: int
    representation_size: int
    roi_samples: int
    rpn_samples: int
    scale: float
    score_threshold: float
    shared_heads: bool
    spare_label: bool
    stages: int
    start: Literal["image", "grid"]
    tower_depth: int
    tubelet_size: int
    up: Sequence[int]
