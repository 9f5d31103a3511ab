"""AdamW (Loshchilov and Hutter, 2019), the paper's optimizer (Table 18; official `optimizer.py`)."""

from dataclasses import dataclass

import torch
from torch import nn

from focalnet.engine.optim.rows import Groups, Optimizer


@dataclass(frozen=True, kw_only=True)
class AdamWOptions:
    """Options of AdamW; the defaults are the paper's."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay per step of the means of the gradient and of its square."""
    eps: float = 1e-8
    """What is added to the root of the second mean."""


def build(network: nn.Module, groups: Groups, lr: float, options: AdamWOptions) -> torch.optim.Optimizer:
    """AdamW on `groups`."""
    return torch.optim.AdamW(groups, lr=lr, betas=options.betas, eps=options.eps)


ADAMW = Optimizer(name="adamw", build=build, options=AdamWOptions)
