"""Weights of Focal-TSMP as its authors publish them, and in our own names.

There a downsample stands before the blocks of its stage, here behind those of the stage before.
"""

from focalnet.weights.architecture import count, shape_of
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, StateDict
from focalnet.weights.spec import ModelSpec

_OFFICIAL = Renaming(
    [
        ("backbone.layers.{s}.downsample.", "encoder.layers.{s+1}.downsample."),
        ("backbone.", "encoder."),
        ("decoder.", "decoder."),
    ],
    ours="a Focal-TSMP",
    theirs="the official layout",
)


def _facts(weights: StateDict) -> ModelSpec:
    hidden, width = shape_of(weights, "decoder.layers.0.blocks.0.mlp.fc1.weight")
    depth = count(weights, "decoder.layers.0.blocks.")
    return told(0, {"decoder_depth": depth, "decoder_mlp_ratio": hidden / width})


LAYOUTS = (
    Layout(
        name="official", head="focal_tsmp", backbone_prefix="backbone.", wrapper="model_state_dict",
        matches=has("encoder.layers.", "decoder.BT_block."),
        read=_OFFICIAL.read, write=_OFFICIAL.write, facts=_facts,
    ),
    Layout(
        name="focalnet", head="focal_tsmp", backbone_prefix="backbone.",
        matches=has("backbone.layers.", "decoder.BT_block."), facts=_facts,
    ),
)  # fmt: skip
"""In the order in which they are tried."""
