"""The networks of other libraries that ours is measured against, with our weights where they are the same network."""

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from focalnet.errors import MissingExtraError, UserError
from focalnet.variants import FocalNetConfig, get_variant
from focalnet.weights.layouts import convert_state_dict

ALTERNATIVES = {
    "tiny": ("swin_tiny_patch4_window7_224", "convnext_tiny", "vit_small_patch16_224"),
    "base": ("swin_base_patch4_window7_224", "convnext_base", "vit_base_patch16_224"),
    "large": ("swin_large_patch4_window7_224", "convnext_large", "vit_large_patch16_224"),
}


def import_peer(package: str) -> Any:
    """A library to measure against.

    Raises:
        MissingExtraError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(f"measuring against {package}", "dev")
    return importlib.import_module(package)


def same_network(
    library: Literal["timm", "transformers"], name: str, config: FocalNetConfig, weights: dict[str, Tensor]
) -> nn.Module:
    """The same network out of another library, with our weights."""
    package = import_peer(library)
    if library == "timm":
        plain = config == get_variant(name).replace(drop_path_rate=0.0)
        windows = {} if plain else {"focal_windows": config.focal_windows}
        # not create_model: the official file, once imported, puts its own models under timm's names
        build = getattr(importlib.import_module("timm.models.focalnet"), name)
        model = build(drop_path_rate=0.0, num_classes=1000, **windows)
    else:
        model = package.FocalNetForImageClassification(
            package.FocalNetConfig(
                embed_dim=config.embed_dim, depths=list(config.depths), focal_levels=list(config.focal_levels),
                focal_windows=list(config.focal_windows), hidden_sizes=list(config.channels), num_labels=1000,
                use_conv_embed=config.use_conv_embed, use_layerscale=config.layerscale_value is not None,
                use_post_layernorm=config.use_postln, normalize_modulator=config.normalize_modulator,
                use_post_layernorm_in_modulation=config.use_postln_in_modulation, drop_path_rate=0.0,
            )
        )  # fmt: skip
    model.load_state_dict(convert_state_dict(weights, to=library, use_postln=config.use_postln))
    return model


def official_network(path: Path, config: FocalNetConfig, weights: dict[str, Tensor]) -> nn.Module:
    """The network out of the official file `classification/focalnet.py`, with our weights.

    Raises:
        UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f"--official {path}: there is no such file; give the official classification/focalnet.py.")
    spec = importlib.util.spec_from_file_location("official_focalnet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it registers its models under timm's names, by old paths
        spec.loader.exec_module(sys.modules.setdefault("official_focalnet", module))
    model = module.FocalNet(
        patch_size=config.patch_size, embed_dim=config.embed_dim, depths=list(config.depths), drop_path_rate=0.0,
        focal_levels=list(config.focal_levels), focal_windows=list(config.focal_windows), num_classes=1000,
        use_conv_embed=config.use_conv_embed, use_layerscale=config.layerscale_value is not None,
        use_postln=config.use_postln, use_postln_in_modulation=config.use_postln_in_modulation,
        normalize_modulator=config.normalize_modulator,
    )  # fmt: skip
    model.load_state_dict(weights)
    return model


def other_networks(name: str, size: tuple[int, int]) -> dict[str, nn.Module]:
    """Networks of timm about as large as the variant `name`, for images of `size`; their names end with a star."""
    timm = import_peer("timm")
    others = next((others for words, others in ALTERNATIVES.items() if words in name), ALTERNATIVES["tiny"])
    sized = {"img_size": size}  # ConvNeXt takes any
    return {f"{other}*": timm.create_model(other, **({} if "convnext" in other else sized)) for other in others}
