"""Weights of UPerNet as mmsegmentation publishes them, and in our own names.

Files of the official UPerNets fix one more fact that shapes do not show: the padding of an overlapped stem is 3.
"""

from functools import partial

from focalnet.models.family import GROWN, overlapped_padding
from focalnet.weights.architecture import shape_of, under
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, StateDict
from focalnet.weights.spec import ModelSpec, Said

_BACKBONE = "net.backbone.trunk."

_MMSEG = Renaming(
    [
        (_BACKBONE, "backbone."),
        ("net.decode_head.classifier.", "decode_head.conv_seg."),
        ("net.auxiliary_head.classifier.", "auxiliary_head.conv_seg."),
        ("net.decode_head.{rest}.batch_norm.", "decode_head.{rest}.bn."),
        ("net.auxiliary_head.{rest}.batch_norm.", "auxiliary_head.{rest}.bn."),
        ("net.decode_head.", "decode_head."),
        ("net.auxiliary_head.", "auxiliary_head."),
    ],
    ours="a UPerNet",
    theirs="the mmseg layout",
)


def _facts(weights: StateDict, *, official: bool) -> ModelSpec:
    options = {
        "channels": shape_of(weights, "net.decode_head.bottleneck.conv.weight")[0],
        "aux_channels": shape_of(weights, "net.auxiliary_head.convs.0.conv.weight")[0],
    }
    padding = overlapped_padding(under(weights, _BACKBONE), GROWN, official=official)
    classes = shape_of(weights, "net.decode_head.classifier.bias")[0]
    return told(classes, options, padding, by=Said.FILE if official else Said.DEFAULT)


LAYOUTS = (
    Layout(
        name="mmseg", head="upernet", backbone_prefix=_BACKBONE, wrapper="state_dict",
        matches=has("backbone.", "decode_head.psp_modules."),
        read=_MMSEG.read, write=_MMSEG.write, facts=partial(_facts, official=True),
    ),
    Layout(
        name="focalnet", head="upernet", backbone_prefix=_BACKBONE,
        matches=has(_BACKBONE, "net.decode_head."), facts=partial(_facts, official=False),
    ),
)  # fmt: skip
"""In the order in which they are tried."""
