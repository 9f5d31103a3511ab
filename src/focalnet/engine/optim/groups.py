"""Parameter groups: what is decayed, and what learns at a rate of its own (official `optimizer.py`).

The weights that multiply (two or more dimensions) are decayed; biases, norms, LayerScale and the embeddings that a
network names are not. The official code means the same but decays nothing: its list of names to skip is `{''}`, and
the empty string is in every name. Which of the two made the published weights is not known;
`official_decay_bug=True` reproduces the code.
"""

from torch import nn

from focalnet.engine.optim.rows import Groups


def parameter_groups(
    network: nn.Module,
    weight_decay: float,
    *,
    decay_all: bool = False,
    official_decay_bug: bool = False,
    backbone_lr: float = 1.0,
) -> Groups:
    """Groups for an optimizer: decayed weights, and everything else. Frozen parameters are left out.

    Args:
        network: a network, of which its `embeddings()` and its backbone `focalnet` are asked; or a part of one, which
            need have neither.
        weight_decay: for parameters of two or more dimensions that are no embeddings.
        decay_all: put everything into the first group, as mmdetection does where a configuration says nothing else.
        official_decay_bug: put everything into the second group.
        backbone_lr: where it is not 1, the backbone of a detector or segmenter has two groups of its own, with this
            number as `lr_share`.
    """
    backbone = getattr(network, "focalnet", None) if backbone_lr != 1 else None
    inside = set() if backbone in (None, network) else {id(parameter) for parameter in backbone.parameters()}
    added = {id(parameter) for parameter in getattr(network, "embeddings", tuple)()}
    groups: Groups = []
    for within in (False, True) if inside else (False,):
        parameters = [p for p in network.parameters() if p.requires_grad and (id(p) in inside) == within]
        decayed = (
            [] if official_decay_bug else [p for p in parameters if decay_all or (p.ndim >= 2 and id(p) not in added)]
        )
        chosen = {id(parameter) for parameter in decayed}
        rest = [parameter for parameter in parameters if id(parameter) not in chosen]
        share = {"lr_share": backbone_lr} if within else {}
        groups += [
            {"params": decayed, "weight_decay": weight_decay, **share},
            {"params": rest, "weight_decay": 0.0, **share},
        ]
    return groups
