"""Weights of ATSS as mmdetection saves them, and in our own names."""

from functools import partial

from focalnet.models.detection.layouts import BODY, PYRAMID
from focalnet.models.family import WIDER, overlapped_padding
from focalnet.weights.architecture import count, shape_of, under
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, StateDict
from focalnet.weights.spec import ModelSpec, Said

_MMDET = Renaming(
    [
        *((f"backbone.fpn.extra_blocks.convs.{place}", f"neck.fpn_convs.{3 + place}.conv") for place in range(2)),
        *PYRAMID,
        ("bbox_head.", "bbox_head."),
    ],
    ours="ATSS",
    theirs="the mmdet layout",
)


def _facts(weights: StateDict, *, official: bool) -> ModelSpec:
    classes, channels = shape_of(weights, "bbox_head.atss_cls.weight")[:2]
    options = {"channels": channels, "tower_depth": count(weights, "bbox_head.cls_convs.")}
    padding = overlapped_padding(under(weights, BODY), WIDER, official=official)
    return told(classes, options, padding, by=Said.FILE if official else Said.DEFAULT)


LAYOUTS = (
    Layout(
        name="mmdet", head="atss", backbone_prefix=BODY, wrapper="state_dict",
        matches=has("neck.lateral_convs.0.conv.", "bbox_head.atss_cls."),
        read=_MMDET.read, write=_MMDET.write, facts=partial(_facts, official=True),
    ),
    Layout(
        name="focalnet", head="atss", backbone_prefix=BODY, matches=has(BODY, "bbox_head.atss_cls."),
        facts=partial(_facts, official=False),
    ),
)  # fmt: skip
"""In the order in which they are tried."""
