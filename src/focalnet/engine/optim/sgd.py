"""Stochastic gradient descent with momentum, as Video-FocalNets are trained (official `optimizer.py`)."""

import torch
from torch import nn

from focalnet.engine.optim.options import SGDOptions
from focalnet.engine.optim.rows import Groups


def build(network: nn.Module, groups: Groups, lr: float, options: SGDOptions) -> torch.optim.Optimizer:
    """SGD on `groups`."""
    return torch.optim.SGD(groups, lr=lr, momentum=options.momentum, nesterov=options.nesterov)
