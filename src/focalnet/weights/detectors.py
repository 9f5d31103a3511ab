"""Weight layouts of detectors: Mask R-CNN as mmdet publishes it and in our own names; DINO's stand in `dino`.

    ours (torchvision)                        mmdet
    backbone.body.*                           backbone.*
    backbone.fpn.inner_blocks.{i}.0           neck.lateral_convs.{i}.conv
    backbone.fpn.layer_blocks.{i}.0           neck.fpn_convs.{i}.conv
    rpn.head.{conv.0.0,cls_logits,bbox_pred}  rpn_head.{rpn_conv,rpn_cls,rpn_reg}
    roi_heads.box_head.fc{6,7}                roi_head.bbox_head.shared_fcs.{0,1}
    roi_heads.box_predictor.cls_score         roi_head.bbox_head.fc_cls             background last, here first
    roi_heads.box_predictor.bbox_pred         roi_head.bbox_head.fc_reg             no rows for the background
    roi_heads.mask_head.{i}.0                 roi_head.mask_head.convs.{i}.conv
    roi_heads.mask_predictor.conv5_mask       roi_head.mask_head.upsample
    roi_heads.mask_predictor.mask_fcn_logits  roi_head.mask_head.conv_logits        no row for the background

Reading puts zeros where mmdet has no rows. Writing drops those rows whatever they hold: no prediction reads them and no
gradient reaches them, so the written network is the same. A file of mmdet read and written is the same byte by byte.

The published files come from code whose overlapped stem has a padding of 3; no shape tells it.
"""

import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from focalnet.errors import UserError
from focalnet.weights.dense import DenseFacts, DenseLayout, StateDict, overlapped_padding, shape_of, under
from focalnet.weights.dino import DINO_LAYOUTS

_BODY = "backbone.body."
_NAMES = (
    (r"backbone\.fpn\.inner_blocks\.(\d)\.0", r"neck\.lateral_convs\.(\d)\.conv"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.0", r"neck\.fpn_convs\.(\d)\.conv"),
    (r"rpn\.head\.conv\.0\.0", r"rpn_head\.rpn_conv"),
    (r"rpn\.head\.cls_logits", r"rpn_head\.rpn_cls"),
    (r"rpn\.head\.bbox_pred", r"rpn_head\.rpn_reg"),
    (r"roi_heads\.box_head\.fc6", r"roi_head\.bbox_head\.shared_fcs\.0"),
    (r"roi_heads\.box_head\.fc7", r"roi_head\.bbox_head\.shared_fcs\.1"),
    (r"roi_heads\.box_predictor\.cls_score", r"roi_head\.bbox_head\.fc_cls"),
    (r"roi_heads\.box_predictor\.bbox_pred", r"roi_head\.bbox_head\.fc_reg"),
    (r"roi_heads\.mask_head\.(\d)\.0", r"roi_head\.mask_head\.convs\.(\d)\.conv"),
    (r"roi_heads\.mask_predictor\.conv5_mask", r"roi_head\.mask_head\.upsample"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits", r"roi_head\.mask_head\.conv_logits"),
)


def _template(pattern: str) -> str:
    return pattern.replace(r"(\d)", r"\1").replace(r"\.", ".")


def _rename(key: str, *, to_ours: bool) -> str:
    stem, dot, leaf = key.rpartition(".")
    for ours, theirs in _NAMES:
        source, target = (theirs, ours) if to_ours else (ours, theirs)
        match = re.fullmatch(source, stem)
        if match and leaf in ("weight", "bias"):
            return match.expand(_template(target)) + dot + leaf
    source, target = ("backbone.", _BODY) if to_ours else (_BODY, "backbone.")
    if key.startswith(source):
        return target + key.removeprefix(source)
    raise UserError(f"{key!r} has no counterpart in {'Mask R-CNN' if to_ours else 'the mmdet layout'}.")


def _background(name: str, tensor: Tensor, *, to_ours: bool) -> Tensor:
    """Rows of the background as the other layout wants them."""
    if name.startswith("roi_heads.box_predictor.cls_score."):
        return tensor.roll(1 if to_ours else -1, 0)
    rows = 4 if name.startswith("roi_heads.box_predictor.bbox_pred.") else 1
    if rows == 4 or name.startswith("roi_heads.mask_predictor.mask_fcn_logits."):
        return torch.cat([tensor.new_zeros(rows, *tensor.shape[1:]), tensor]) if to_ours else tensor[rows:].clone()
    return tensor


def _read_mmdet(state_dict: StateDict) -> dict[str, Tensor]:
    names = {key: _rename(key, to_ours=True) for key in state_dict}
    return {name: _background(name, state_dict[key], to_ours=True) for key, name in names.items()}


def _write_mmdet(state_dict: StateDict) -> dict[str, Tensor]:
    return {
        _rename(name, to_ours=False): _background(name, tensor, to_ours=False) for name, tensor in state_dict.items()
    }


def _has(*names: str) -> Callable[[StateDict], bool]:
    """Whether a state dict has something under each of these names."""
    return lambda state_dict: all(any(key.startswith(name) for key in state_dict) for name in names)


def _facts(state_dict: StateDict, *, official: bool) -> DenseFacts:
    options = {
        "fpn_channels": shape_of(state_dict, "rpn.head.conv.0.0.weight")[0],
        "representation_size": shape_of(state_dict, "roi_heads.box_head.fc6.weight")[0],
    }
    classes = shape_of(state_dict, "roi_heads.box_predictor.cls_score.weight")[0] - 1
    return DenseFacts(classes, options, overlapped_padding(under(state_dict, _BODY), official=official))


MASK_RCNN_LAYOUTS = (
    DenseLayout(
        name="mmdet", head="mask_rcnn", backbone_prefix=_BODY, wrapper="state_dict",
        matches=_has("neck.lateral_convs.0.conv.", "rpn_head.rpn_conv.", "roi_head.bbox_head.shared_fcs.0.",
                     "roi_head.mask_head.convs.0."),
        read=_read_mmdet, write=_write_mmdet, facts=partial(_facts, official=True),
    ),
    DenseLayout(
        name="focalnet", head="mask_rcnn", backbone_prefix=_BODY,
        matches=_has(_BODY, "rpn.head.", "roi_heads.mask_head."), read=dict, write=dict, wrapper="model",
        facts=partial(_facts, official=False),
    ),
)  # fmt: skip

DETECTORS: tuple[DenseLayout, ...] = (*MASK_RCNN_LAYOUTS, *DINO_LAYOUTS)
"""Layouts of all detectors."""
