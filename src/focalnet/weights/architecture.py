"""Which FocalNet is this? The architecture, read from the shapes of a state dict.

Shapes show the number of axes, width, depth, levels, kernels, embedding, LayerScale and the LayerNorm inside the
modulation. They do not show where the block norms stand (`use_postln`), whether the modulator is divided
(`normalize_modulator`), the padding of the stem, and the dropout rates: these come from the row of `variants` that
the shapes fit, or from the user.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from focalnet.errors import UserError
from focalnet.variants import VARIANTS, FocalNetConfig

if TYPE_CHECKING:
    from torch import Tensor

UNSEEN = ("use_postln", "normalize_modulator", "stem_padding", "drop_rate", "drop_path_rate")
"""Fields of `FocalNetConfig` that no shape shows."""


def infer_architecture(state_dict: Mapping[str, "Tensor"]) -> FocalNetConfig:
    """The architecture that the shapes show; what they do not show has its default.

    Args:
        state_dict: in the official layout.

    Raises:
        UserError: a part of the network is missing.
    """
    return FocalNetConfig(**seen_facts(state_dict))


def seen_facts(state_dict: Mapping[str, "Tensor"]) -> dict[str, Any]:
    """The fields of `FocalNetConfig` that the shapes show. Arguments and errors as in `infer_architecture`."""
    try:
        facts = _read(state_dict)
        FocalNetConfig(**facts)
        return facts
    except KeyError as error:
        raise UserError(f"the weights are not a whole FocalNet: {error.args[0]} is missing.") from None
    except (IndexError, ValueError) as error:
        raise UserError(f"the weights are of no FocalNet: a tensor has a strange shape ({error}).") from None


def _read(weights: Mapping[str, "Tensor"]) -> dict[str, Any]:
    stem = weights["patch_embed.proj.weight"]
    stages = range(count(weights, "layers."))
    levels = [count(weights, f"layers.{stage}.blocks.0.modulation.focal_layers.") for stage in stages]
    kernels = [
        [
            weights[f"layers.{s}.blocks.0.modulation.focal_layers.{level}.0.weight"].shape[-1]
            for level in range(levels[s])
        ]
        for s in stages
    ]
    steps = [sizes[1] - sizes[0] for sizes in kernels if len(sizes) > 1]
    overlap = (weights["layers.0.downsample.proj.weight"].shape[-1] == 3) if len(stages) > 1 else stem.shape[-1] == 7
    first = weights["layers.0.blocks.0.mlp.fc1.weight"]
    shapes = [weight.shape for name, weight in weights.items() if name.endswith(".mlp.fc1.weight")]
    ratios = {shape[0] / shape[1] for shape in shapes}  # of a damaged file, several: no network has that
    ratio = {"mlp_ratio": first.shape[0] / stem.shape[0]} if len(ratios) == 1 else {}
    return ratio | {
        "embed_dim": stem.shape[0],
        "depths": tuple(count(weights, f"layers.{stage}.blocks.") for stage in stages),
        "focal_levels": tuple(levels),
        "focal_windows": tuple(sizes[0] if sizes else 3 for sizes in kernels),
        "focal_factor": steps[0] if steps else 2,
        "patch_size": 4 if overlap else stem.shape[-1],
        "in_channels": stem.shape[1],
        "spatial_dims": weights["layers.0.blocks.0.modulation.h.weight"].ndim - 2,
        "use_conv_embed": overlap,
        "layerscale_value": 1e-4 if "layers.0.blocks.0.gamma_1" in weights else None,
        "use_postln_in_modulation": "layers.0.blocks.0.modulation.ln.weight" in weights,
    }


def contradiction(config: FocalNetConfig, state_dict: "Mapping[str, Tensor]") -> str | None:
    """Where a description and the shapes disagree, in words; None where they fit. A network as described may be of any
    size, so this is asked before one is built. Arguments and errors as in `infer_architecture`."""
    seen = seen_facts(state_dict)
    for name, shown in seen.items():
        said = getattr(config, name)
        if name == "mlp_ratio":
            fits = abs(said - shown) * config.embed_dim < 1  # the hidden width is a whole number
        elif name == "layerscale_value":
            fits = (said is None) == (shown is None)  # shapes do not show its first value
        elif name == "focal_windows":
            fits = all(a == b or not levels for a, b, levels in zip(said, shown, seen["focal_levels"], strict=False))
        else:
            fits = said == shown or name == "focal_factor"  # one level does not show it
        if not fits:
            return f"the description says {name}={said}, the tensors show {shown}"
    return None


def count(names: Iterable[str], prefix: str) -> int:
    """How many numbered parts stand under a prefix, for example the blocks of a stage.

    Raises:
        UserError: they are not 0, 1, 2 and so on without a gap.
    """
    places = {name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)}
    places = {place for place in places if place.isdecimal()}
    for place in range(len(places)):
        if str(place) not in places:
            raise UserError(f"the weights are not a whole network: {prefix}{place} is missing.")
    return len(places)


def under(state_dict: Mapping[str, "Tensor"], prefix: str) -> dict[str, "Tensor"]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}


def shape_of(state_dict: Mapping[str, "Tensor"], name: str) -> tuple[int, ...]:
    """The shape of one tensor.

    Raises:
        UserError: it is missing.
    """
    if name not in state_dict:
        raise UserError(f"the weights are not a whole network: {name} is missing.")
    return tuple(state_dict[name].shape)


def match_variant(config: FocalNetConfig) -> str | None:
    """Name of the variant whose weights have the shapes of `config`, or None."""
    return next((name for name, row in VARIANTS.items() if _visible(row) == _visible(config)), None)


def infer_variant(state_dict: Mapping[str, "Tensor"]) -> str | None:
    """Name of the variant that an official-layout state dict belongs to, or None."""
    return match_variant(infer_architecture(state_dict))


def match_backbone(state_dict: Mapping[str, "Tensor"]) -> str | None:
    """Name of the variant that a detector's or segmenter's backbone started from: its kernels may have been grown."""
    seen = infer_architecture(state_dict)
    found = match_variant(seen)
    if found is not None:
        return found
    alike = [name for name, row in VARIANTS.items() if _small(row) == _small(seen)]
    return alike[0] if len(alike) == 1 else None


def alike(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What no shape shows, as all variants of this kind of stem, blocks and modulation have it.

    Args:
        facts: of an architecture that is no variant, from `seen_facts`.
    """

    def kind(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return row["use_conv_embed"], row["layerscale_value"] is None, row["use_postln_in_modulation"]

    rows = [vars(row) for row in VARIANTS.values() if kind(vars(row)) == kind(facts)]
    values = {name: {row[name] for row in rows} for name in ("use_postln", "normalize_modulator")}
    defaults = {name: FocalNetConfig.__dataclass_fields__[name].default for name in UNSEEN}
    return defaults | {name: one.pop() for name, one in values.items() if len(one) == 1}


def _small(config: FocalNetConfig) -> FocalNetConfig:
    return _visible(config.replace(focal_windows=3, focal_factor=2))


def _visible(config: FocalNetConfig) -> FocalNetConfig:
    return config.replace(
        use_postln=False,
        normalize_modulator=False,
        stem_padding=2,
        drop_rate=0.0,
        drop_path_rate=0.0,
        layerscale_value=None if config.layerscale_value is None else 1e-4,
    )
