"""AdamW (Loshchilov and Hutter, 2019), the paper's optimizer (Table 18; official `optimizer.py`)."""

import torch
from torch import nn

from focalnet.engine.optim.options import AdamWOptions
from focalnet.engine.optim.rows import Groups


def build(network: nn.Module, groups: Groups, lr: float, options: AdamWOptions) -> torch.optim.Optimizer:
    """AdamW on `groups`."""
    return torch.optim.AdamW(groups, lr=lr, betas=options.betas, eps=options.eps)
