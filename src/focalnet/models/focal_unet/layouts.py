"""Weights of Focal-UNet as its authors' code writes them, and in our own names.

The official names put the encoder beside the decoder, and hold a LayerNorm, `patch_expand.norm`, that nothing reads.
"""

from focalnet.weights.architecture import shape_of
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import Renaming, StateDict
from focalnet.weights.spec import ModelSpec

_OFFICIAL = Renaming(
    [
        ((), "patch_expand.norm"),
        ("backbone.patch_embed.", "patch_embed."),
        ("backbone.layers.", "layers."),
        *((name, name) for name in ("norm", "layers_up.", "concat_back_dim.", "norm_up", "patch_expand.", "output")),
    ],
    ours="a Focal-UNet",
    theirs="the official layout",
)


def _facts(weights: StateDict) -> ModelSpec:
    return told(shape_of(weights, "output.weight")[0], {})


LAYOUTS = (
    Layout(
        name="official", head="focal_unet", backbone_prefix="backbone.", wrapper=None,
        matches=has("layers.0.", "layers_up.", "concat_back_dim."),
        read=_OFFICIAL.read, write=_OFFICIAL.write, facts=_facts,
    ),
    Layout(
        name="focalnet", head="focal_unet", backbone_prefix="backbone.",
        matches=has("backbone.layers.", "layers_up.", "concat_back_dim."), facts=_facts,
    ),
)  # fmt: skip
"""In the order in which they are tried."""
