"""Weights of Cascade Mask R-CNN as mmdetection saves them, and in our own names: trunk, pyramid and RPN are renamed.

The published files come from code whose overlapped stem has a padding of 3; no shape tells it.
"""

from functools import partial

from focalnet.models.detection.layouts import BODY, PROPOSALS, PYRAMID
from focalnet.models.family import WIDER, overlapped_padding
from focalnet.weights.architecture import count, shape_of, under
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, StateDict
from focalnet.weights.spec import ModelSpec, Said

_MMDET = Renaming(
    [*PYRAMID, *PROPOSALS, ("roi_head.", "roi_head.")], ours="Cascade Mask R-CNN", theirs="the mmdet layout"
)


def _facts(weights: StateDict, *, official: bool) -> ModelSpec:
    width = shape_of(weights, "roi_head.bbox_head.0.shared_fcs.0.weight")[0]
    options = {
        "fpn_channels": shape_of(weights, "rpn.head.conv.0.0.weight")[0],
        "representation_size": width,
        "head_depth": count(weights, "roi_head.bbox_head.0.shared_convs."),
    }
    classes = shape_of(weights, "roi_head.bbox_head.0.fc_cls.weight")[0] - 1
    padding = overlapped_padding(under(weights, BODY), WIDER, official=official)
    return told(classes, options, padding, by=Said.FILE if official else Said.DEFAULT)


LAYOUTS = (
    Layout(
        name="mmdet", head="cascade_mask_rcnn", backbone_prefix=BODY, wrapper="state_dict",
        matches=has("neck.lateral_convs.0.conv.", "rpn_head.rpn_conv.", "roi_head.bbox_head.0.shared_convs.",
                    "roi_head.mask_head.0."),
        read=_MMDET.read, write=_MMDET.write, facts=partial(_facts, official=True),
    ),
    Layout(
        name="focalnet", head="cascade_mask_rcnn", backbone_prefix=BODY,
        matches=has(BODY, "rpn.head.", "roi_head.bbox_head.0."), facts=partial(_facts, official=False),
    ),
)  # fmt: skip
"""In the order in which they are tried."""
