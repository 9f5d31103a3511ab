"""Weights of Mask R-CNN as mmdet publishes them, and in our own names.

Reading puts zeros where mmdet has no rows for the background. Writing drops those rows whatever they hold: no
prediction reads them and no gradient reaches them, so the written network is the same. A file of mmdet read and written
is the same byte by byte.

The published files come from code whose overlapped stem has a padding of 3; no shape tells it.
"""

from functools import partial

import torch
from torch import Tensor

from focalnet.models.detection.layouts import BODY, PROPOSALS, PYRAMID
from focalnet.models.family import GROWN, overlapped_padding
from focalnet.weights.architecture import shape_of, under
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, Row, StateDict
from focalnet.weights.spec import ModelSpec, Said


def _roll(tensor: Tensor, step: int) -> Tensor:
    if tensor.ndim == 0:
        raise ValueError("it has no row per class")
    return tensor.roll(step, 0)


def _with_background(tensor: Tensor, rows: int) -> Tensor:
    if tensor.ndim == 0:
        raise ValueError("it has no row per class")
    return torch.cat([tensor.new_zeros(rows, *tensor.shape[1:]), tensor])


def _without_background(tensor: Tensor, rows: int) -> Tensor:
    return tensor[rows:].clone()


def _add(rows: int) -> dict:
    return {"read": partial(_with_background, rows=rows), "write": partial(_without_background, rows=rows)}


_MMDET = Renaming(
    [
        *PYRAMID,
        *PROPOSALS,
        ("roi_heads.box_head.fc6", "roi_head.bbox_head.shared_fcs.0"),
        ("roi_heads.box_head.fc7", "roi_head.bbox_head.shared_fcs.1"),
        # the background is last there and first here; boxes and masks of it exist only here
        Row("roi_heads.box_predictor.cls_score", "roi_head.bbox_head.fc_cls",
            read=partial(_roll, step=1), write=partial(_roll, step=-1)),
        Row("roi_heads.box_predictor.bbox_pred", "roi_head.bbox_head.fc_reg", **_add(rows=4)),
        ("roi_heads.mask_head.{i}.0", "roi_head.mask_head.convs.{i}.conv"),
        ("roi_heads.mask_predictor.conv5_mask", "roi_head.mask_head.upsample"),
        Row("roi_heads.mask_predictor.mask_fcn_logits", "roi_head.mask_head.conv_logits", **_add(rows=1)),
    ],
    ours="Mask R-CNN", theirs="the mmdet layout",
)  # fmt: skip


def _facts(state_dict: StateDict, *, official: bool) -> ModelSpec:
    options = {
        "fpn_channels": shape_of(state_dict, "rpn.head.conv.0.0.weight")[0],
        "representation_size": shape_of(state_dict, "roi_heads.box_head.fc6.weight")[0],
    }
    classes = shape_of(state_dict, "roi_heads.box_predictor.cls_score.weight")[0] - 1
    padding = overlapped_padding(under(state_dict, BODY), GROWN, official=official)
    return told(classes, options, padding, by=Said.FILE if official else Said.DEFAULT)


LAYOUTS = (
    Layout(
        name="mmdet", head="mask_rcnn", backbone_prefix=BODY, wrapper="state_dict",
        matches=has("neck.lateral_convs.0.conv.", "rpn_head.rpn_conv.", "roi_head.bbox_head.shared_fcs.0.",
                    "roi_head.mask_head.convs.0."),
        read=_MMDET.read, write=_MMDET.write, facts=partial(_facts, official=True),
    ),
    Layout(
        name="focalnet", head="mask_rcnn", backbone_prefix=BODY,
        matches=has(BODY, "rpn.head.", "roi_heads.mask_head."), facts=partial(_facts, official=False),
    ),
)  # fmt: skip
"""In the order in which they are tried."""
