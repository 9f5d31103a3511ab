"""Weights of the sound classifier as SpeechBrain saves them, and in our own names.

The recipe writes two files: `embedding_model.ckpt`, the backbone under the names of transformers with a LayerNorm that
it never reads, and `classifier.ckpt`, the head. Given their folder, both are read together.
"""

from torch import Tensor

from focalnet.weights.architecture import shape_of, under
from focalnet.weights.layouts import Layout, convert_state_dict, has, told
from focalnet.weights.renaming import Renaming, StateDict
from focalnet.weights.spec import ModelSpec

_BACKBONE, _EMBEDDING = "backbone.", "embedding_model."
_HEAD = Renaming(
    [
        ("head.weight", "classifier.weight"),
        ("head.norm.", "classifier.blocks.0.norm."),
        ("head.linear.", "classifier.blocks.1.w."),
    ],
    ours="a sound classifier",
    theirs="SpeechBrain's layout",
)


def _read(weights: StateDict) -> dict[str, Tensor]:
    backbone = convert_state_dict(under(weights, _EMBEDDING), to="official")
    head = {name: tensor for name, tensor in weights.items() if not name.startswith(_EMBEDDING)}
    ours = {name if name.startswith("norm.") else f"{_BACKBONE}{name}": tensor for name, tensor in backbone.items()}
    return ours | _HEAD.read(head)


def _write(weights: StateDict) -> dict[str, Tensor]:
    norm = {name: tensor for name, tensor in weights.items() if name.startswith("norm.")}
    backbone = convert_state_dict(under(weights, _BACKBONE) | norm, to="transformers")
    head = {name: tensor for name, tensor in weights.items() if name.startswith("head.")}
    return {f"{_EMBEDDING}{name}": tensor for name, tensor in backbone.items()} | _HEAD.write(head)


def _facts(weights: StateDict) -> ModelSpec:
    classes, embedding = shape_of(weights, "head.weight")
    return told(classes, {"embedding": embedding})


LAYOUTS = (
    Layout(
        name="speechbrain", head="sound", backbone_prefix=_BACKBONE, wrapper=None,
        matches=has(_EMBEDDING, "classifier.weight"), read=_read, write=_write, facts=_facts,
    ),
    Layout(
        name="focalnet", head="sound", backbone_prefix=_BACKBONE, matches=has(_BACKBONE, "head.weight", "head.norm."),
        facts=_facts,
    ),
)  # fmt: skip
"""In the order in which they are tried."""
