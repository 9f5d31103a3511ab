"""AdamW (Loshchilov and Hutter, 2019), the paper's optimizer (Table 18; official `optimizer.py`)."""

import torch
from torch import nn

from focalnet.engine.optim.options import AdamWOptions
from focalnet.engine.optim.rows import Groups

FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices on which torch has a fused AdamW, since 2.7."""


def build(network: nn.Module, groups: Groups, lr: float, options: AdamWOptions) -> torch.optim.Optimizer:
    """AdamW on `groups`."""
    return torch.optim.AdamW(fused(groups), lr=lr, betas=options.betas, eps=options.eps)


def fused(groups: Groups) -> Groups:
    """The groups with one kernel for a whole step, where there is one: on a CPU it takes a quarter of the time.

    It rounds in another way than torch's loop over the parameters. A group says which one it takes and a checkpoint
    keeps what its groups say, so a resumed run goes on with the one that it began with. Of groups, not of the
    optimizer, as that would leave the scaling of gradients (fp16) to the kernel, and other steps share it (Muon's).
    """
    return [group | {"fused": all(p.device.type in FUSED for p in group["params"])} for group in groups]
