"""What the makers of fixtures share: drawn weights, and what research code imports of old timm and mmcv."""

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


def old_mmcv() -> None:
    """Let mmdetection 2.11 import mmcv 1.7, with torchvision's operators in the places of the compiled ones."""
    import mmcv
    import mmcv.utils
    import torchvision

    def batched_nms(boxes, scores, idxs, nms_cfg, class_agnostic=False):
        keep = torchvision.ops.batched_nms(boxes, scores, idxs, nms_cfg["iou_threshold"])
        return torch.cat([boxes[keep], scores[keep, None]], 1), keep

    def roi_align(x, rois, output_size, spatial_scale=1.0, sampling_ratio=0, pool_mode="avg", aligned=True):
        return torchvision.ops.roi_align(x, rois, output_size, spatial_scale, sampling_ratio, aligned)

    class RoIAlign(torch.nn.Module):
        def __init__(self, output_size, spatial_scale, sampling_ratio):
            super().__init__()
            self.output_size, self.spatial_scale, self.sampling_ratio = (
                (output_size,) * 2,
                spatial_scale,
                sampling_ratio,
            )

        def forward(self, x, rois):
            return roi_align(x, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    mmcv.__version__ = "1.3.18"
    ops = types.ModuleType("mmcv.ops")
    ops.__file__ = "ops.py"
    ops.__getattr__ = lambda name: type(name, (torch.nn.Module,), {})  # what is not called
    ops.batched_nms, ops.roi_align, ops.RoIAlign = batched_nms, roi_align, RoIAlign
    mmcv.ops = ops
    sys.modules |= {f"mmcv.ops{part}": ops for part in ("", ".merge_cells", ".roi_align", ".nms", ".carafe")}
    sys.modules["mmcv_custom"] = types.ModuleType("mmcv_custom")
    sys.modules["mmcv_custom"].load_checkpoint = None
