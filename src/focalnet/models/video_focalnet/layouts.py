"""Weights of Video-FocalNets: the official names, which are ours."""

from focalnet.weights.architecture import shape_of
from focalnet.weights.layouts import Layout, has, told
from focalnet.weights.renaming import StateDict
from focalnet.weights.spec import ModelSpec


def _facts(weights: StateDict) -> ModelSpec:
    stem = shape_of(weights, "patch_embed.proj.weight")
    classes = shape_of(weights, "head.bias")[0] if "head.bias" in weights else 0
    return told(classes, {"tubelet_size": stem[2] if len(stem) == 5 else 1})


LAYOUTS = (
    Layout(
        name="official",
        head="video_focalnet",
        backbone_prefix="",
        matches=has("layers.0.blocks.0.modulation.f_temporal.weight"),
        facts=_facts,
    ),
)
