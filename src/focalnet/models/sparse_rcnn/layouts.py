"""Weights of Sparse R-CNN as mmdetection saves them, and in our own names."""

from functools import partial

from focalnet.models.detection.layouts import BODY, PYRAMID
from focalnet.models.family import WIDER, overlapped_padding
from focalnet.weights.architecture import count, shape_of, under
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, StateDict
from focalnet.weights.spec import ModelSpec, Said

_PROPOSALS = ("rpn_head.init_proposal_bboxes.weight", "rpn_head.init_proposal_features.weight")
_MMDET = Renaming(
    [
        *PYRAMID,
        ("rpn_head.", "rpn_head."),
        ("roi_head.", "roi_head."),
    ],
    ours="Sparse R-CNN",
    theirs="the mmdet layout",
)


def _facts(weights: StateDict, *, official: bool) -> ModelSpec:
    stage = "roi_head.bbox_head.0."
    queries, channels = shape_of(weights, _PROPOSALS[1])[:2]
    options = {
        "num_queries": queries,
        "channels": channels,
        "stages": count(weights, "roi_head.bbox_head."),
        "ffn_dim": shape_of(weights, f"{stage}ffn.layers.0.0.bias")[0],
        "dynamic_dim": shape_of(weights, f"{stage}instance_interactive_conv.norm_in.bias")[0],
        **{
            option: sum(name.startswith(f"{stage}{tower}.") and x.ndim == 2 for name, x in weights.items())
            for option, tower in (("class_depth", "cls_fcs"), ("box_depth", "reg_fcs"))
        },
    }
    padding = overlapped_padding(under(weights, BODY), WIDER, official=official)
    classes = shape_of(weights, f"{stage}fc_cls.bias")[0]
    return told(classes, options, padding, by=Said.FILE if official else Said.DEFAULT)


LAYOUTS = (
    Layout(
        name="mmdet", head="sparse_rcnn", backbone_prefix=BODY, wrapper="state_dict",
        matches=has("neck.", *_PROPOSALS), read=_MMDET.read, write=_MMDET.write, facts=partial(_facts, official=True),
    ),
    Layout(
        name="focalnet", head="sparse_rcnn", backbone_prefix=BODY, matches=has(BODY, *_PROPOSALS),
        facts=partial(_facts, official=False),
    ),
)  # fmt: skip
"""In the order in which they are tried."""
