"""`config.json` of a model folder: our own, timm's, or transformers', as a `ModelSpec`.

timm names a variant and the arguments that were changed; transformers spells out the architecture. A timm folder means
the network that timm builds, so its modulator is divided only where the arguments say so. Both libraries set LayerNorm
and activation freely; a network with others than FocalNet's is refused.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focalnet import inputs
from focalnet.errors import UserError
from focalnet.inputs.image import IMAGENET_MEAN, IMAGENET_STD, Interpolation
from focalnet.labels import CLASSES_1K
from focalnet.reading import read_object
from focalnet.schemas import as_type
from focalnet.variants import VARIANTS, FocalNetConfig, get_variant
from focalnet.weights.architecture import match_variant
from focalnet.weights.files import in_a_sentence
from focalnet.weights.hub import ENTRIES, imagenet_classes
from focalnet.weights.spec import CUSTOM, ModelSpec

_TIMM_ARGUMENTS = {
    "embed_dim": "embed_dim",
    "depths": "depths",
    "focal_levels": "focal_levels",
    "focal_windows": "focal_windows",
    "mlp_ratio": "mlp_ratio",
    "in_chans": "in_channels",
    "use_overlap_down": "use_conv_embed",
    "use_post_norm": "use_postln",
    "use_post_norm_in_modulation": "use_postln_in_modulation",
    "normalize_modulator": "normalize_modulator",
    "layerscale_value": "layerscale_value",
    "drop_path_rate": "drop_path_rate",
}
_TIMM_TRAINING = ("num_classes", "drop_rate", "proj_drop_rate", "head_init_scale", "global_pool")
# field of ours: (field of transformers, its default there)
_TRANSFORMERS_FIELDS = {
    "embed_dim": ("embed_dim", 96),
    "depths": ("depths", (2, 2, 6, 2)),
    "focal_levels": ("focal_levels", (2, 2, 2, 2)),
    "focal_windows": ("focal_windows", (3, 3, 3, 3)),
    "patch_size": ("patch_size", 4),
    "in_channels": ("num_channels", 3),
    "mlp_ratio": ("mlp_ratio", 4.0),
    "use_conv_embed": ("use_conv_embed", False),
    "use_postln": ("use_post_layernorm", False),
    "use_postln_in_modulation": ("use_post_layernorm_in_modulation", False),
    "normalize_modulator": ("normalize_modulator", False),
    "drop_rate": ("hidden_dropout_prob", 0.0),
    "drop_path_rate": ("drop_path_rate", 0.1),
}
_PIL_INTERPOLATION: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}


def read_folder_config(folder: Path, origin: str) -> ModelSpec | Mapping[str, Any]:
    """The network of a model folder, from its `config.json`; the content of a file that is none of the three.

    Args:
        folder: holds `config.json`, and for transformers perhaps `preprocessor_config.json`.
        origin: what to name as the source of weights that do not say theirs.

    Raises:
        UserError: the file is damaged, or asks for what FocalNet does not have.
    """
    path = folder / "config.json"
    config = read_object(path)
    if isinstance(config.get("architecture"), Mapping) or {"architecture", "head"} <= config.keys():
        return ModelSpec.from_dict(config, str(path))
    released = ENTRIES.get(origin)
    if released is not None:
        return released.spec
    with in_a_sentence(f"{path} does not describe a model in full", "copy or download it again"):
        if isinstance(config.get("architecture"), str):
            return _from_timm(config, origin, path)
        if config.get("model_type") == "focalnet":
            preprocessor = folder / "preprocessor_config.json"
            return _from_transformers(config, read_object(preprocessor) if preprocessor.is_file() else {}, origin, path)
    return config


def _from_timm(config: Mapping[str, Any], origin: str, path: Path) -> ModelSpec:
    variant = config["architecture"]
    if variant not in VARIANTS:
        raise UserError(f"{path} describes timm's {variant!r}, no FocalNet.")
    arguments = config.get("model_args") or {}
    strange = [name for name in arguments if name not in _TIMM_ARGUMENTS and name not in _TIMM_TRAINING]
    if strange:
        raise UserError(f"{path} builds the model with {', '.join(strange)}, which FocalNet does not have here.")
    fields = {ours: arguments[theirs] for theirs, ours in _TIMM_ARGUMENTS.items() if theirs in arguments}
    data = config.get("pretrained_cfg") or {}
    count = config.get("num_classes", data.get("num_classes", CLASSES_1K))
    labels = config.get("label_names") or data.get("label_names")
    if isinstance(labels, Mapping):
        labels = [labels[key] for key in sorted(labels, key=int)]
    return ModelSpec(
        variant=variant,
        architecture=FocalNetConfig.from_dict(
            dataclasses.asdict(get_variant(variant)) | {"normalize_modulator": False} | fields, str(path)
        ),
        num_classes=as_type(count, int, f"{path}: num_classes"),
        classes=_names(labels, count),
        preprocessing=inputs.from_dict(
            {
                "input_size": data.get("input_size", (3, 224, 224))[-1],
                "crop_pct": data.get("crop_pct", 0.9),
                "interpolation": data.get("interpolation", "bicubic"),
                "mean": data.get("mean", IMAGENET_MEAN),
                "std": data.get("std", IMAGENET_STD),
            },
            str(path),
        ),
        licence=as_type(data.get("license"), str | None, f"{path}: license"),
        source=origin,
    )


def _from_transformers(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any], origin: str, path: Path
) -> ModelSpec:
    for name, wanted in (("hidden_act", "gelu"), ("layer_norm_eps", 1e-5)):
        if config.get(name, wanted) != wanted:
            raise UserError(f"{path} has {name}={config[name]!r}; FocalNet has {wanted!r}.")
    fields = {ours: config.get(name, default) for ours, (name, default) in _TRANSFORMERS_FIELDS.items()}
    fields["layerscale_value"] = config.get("layerscale_value", 1e-4) if config.get("use_layerscale") else None
    stages = len(fields["depths"])
    fields |= {name: fields[name][:stages] for name in ("focal_levels", "focal_windows")}
    architecture = FocalNetConfig.from_dict(fields, str(path))
    labels = {int(index): name for index, name in (config.get("id2label") or {}).items()}
    names = [labels[index] for index in sorted(labels)]
    count = len(names) or config.get("num_labels", 2)
    anonymous = names == [f"LABEL_{index}" for index in range(count)]
    crop = _side(preprocessor.get("crop_size")) or _side(config.get("image_size")) or 224
    resized = _side(preprocessor.get("size")) or crop / 0.875
    return ModelSpec(
        variant=match_variant(architecture) or CUSTOM,
        architecture=architecture,
        num_classes=as_type(count, int, f"{path}: num_labels"),
        classes=_names(None if anonymous else names, count),
        preprocessing=inputs.from_dict(
            {
                "input_size": crop,
                "crop_pct": crop / resized,
                "interpolation": _PIL_INTERPOLATION.get(preprocessor.get("resample", 2), "bilinear"),
                "mean": preprocessor.get("image_mean", IMAGENET_MEAN),
                "std": preprocessor.get("image_std", IMAGENET_STD),
            },
            str(path),
        ),
        source=origin,
    )


def _names(names: list[str] | None, count: int) -> tuple[str, ...] | None:
    if names and len(names) == count:
        return as_type(names, tuple[str, ...], "the class names")
    return imagenet_classes() if count == CLASSES_1K else None


def _side(size: Any) -> int | None:
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or size.get("height")
    return size[0] if isinstance(size, list | tuple) else size
