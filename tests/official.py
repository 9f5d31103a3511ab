"""What the makers of fixtures share: drawn weights, and old modules of timm that research code imports."""

import sys
import types
import zlib

import numpy as np
import torch


def draw(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights for a state dict: normal numbers seeded by the name, matrices with a deviation of 1 / sqrt(inputs)."""
    drawn = {}
    for name, tensor in state_dict.items():
        random = np.random.default_rng(zlib.crc32(name.encode()))
        x = torch.from_numpy(random.standard_normal(tuple(tensor.shape))).float()
        scale = float(name.endswith("weight") or "gamma" in name)
        drawn[name] = x / x[0].numel() ** 0.5 if x.ndim > 1 else 0.1 * x + scale
    return drawn


def old_timm() -> None:
    """Put what timm calls its layers today in the places of timm 0.5."""
    import timm.layers
    import timm.models

    layers = types.ModuleType("timm.models.layers")
    for name in ("DropPath", "to_2tuple", "trunc_normal_"):
        setattr(layers, name, getattr(timm.layers, name))
    registry = types.ModuleType("timm.models.registry")
    registry.register_model = lambda function: function
    transforms = types.ModuleType("timm.data.transforms")
    transforms._pil_interp = transforms.str_to_pil_interp = None
    sys.modules |= {module.__name__: module for module in (layers, registry, transforms)}
