"""Muon (Jordan et al., 2024): a step of momentum whose singular values are all made equal.

    B <- 0.95 B + 0.05 G          momentum of the gradient G of a matrix (out, in)
    U <- 0.05 G + 0.95 B          Nesterov's look ahead
    W <- W - lr 0.2 √max(out, in) NS(U)

`NS` (Newton-Schulz) is a polynomial that pulls every singular value of U to about 1, so that rare directions are
learned as fast as common ones. The factor gives the step the size of one of AdamW (Liu et al., 2025), so a learning
rate and a decay for AdamW do for both. Only weights that multiply a hidden signal, of linear layers and of
convolutions that mix channels, are such matrices; everything else takes AdamW's step. It is not the paper's: from
random weights it needs about half the steps (docs/log.md). `NS` is computed in bfloat16, on processors that emulate it
in float32, which is 25 times as fast there; a run that began before this was so goes on as it began.

It is our own because `torch.optim.Muon` (since torch 2.9; we run from 2.7 on) refuses what is not exactly
two-dimensional, so every convolution; has no AdamW for the other parameters, so that a run would hold two optimizers;
and takes one matrix at a time, where a FocalNet has many small ones of one shape, which are stacked here. Its step is
the same, as a test says.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from focalnet.engine.optim.adamw import fused
from focalnet.engine.optim.options import MuonOptions
from focalnet.engine.optim.rows import Groups
from focalnet.machine import multiplies_bfloat16

SUITED = "suited"
"""What a group says as `muon` whose `NS` suits the processor; one that says True, as all did, has it in bfloat16."""


class Muon(torch.optim.AdamW):
    """Muon for the groups that say `muon`, AdamW for the others.

    Args:
        groups: parameter groups, each with `muon`.
        lr: learning rate.
        options: the rest.
    """

    def __init__(self, groups: Groups, lr: float, options: MuonOptions) -> None:
        super().__init__(groups, lr=lr, betas=options.betas, eps=options.eps)
        self.momentum = options.momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        groups = self.param_groups
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in groups:
            if group["muon"]:
                self._step_of_matrices([p for p in group["params"] if p.grad is not None], group)
        try:
            self.param_groups = [group for group in groups if not group["muon"]]
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        torch.optim.Optimizer.__setstate__(self, state)  # Adam's mends old files and asks every parameter for `step`

    def _step_of_matrices(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        alike: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
        widen = group["muon"] == SUITED and on_cpu and not multiplies_bfloat16()
        for parameter in parameters:
            gradient: Any = parameter.grad
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(gradient, 1 - self.momentum)
            update = gradient.lerp(state["momentum"], self.momentum).flatten(1)
            alike[update.shape].append((parameter, update))
        for shape, pairs in alike.items():
            updates = orthogonalize(
                torch.stack([update for _, update in pairs]), torch.float32 if widen else torch.bfloat16
            )
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The singular vectors of each of `matrices` (P, M, N) with singular values of 0.7 to 1.2: five rounds, in `dtype`,
    of X <- 3.4445 X - 4.775 (X Xᵀ) X + 2.0315 (X Xᵀ)² X, which at 0 is as steep as it can be."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    x = (x.mT if tall else x).to(dtype, memory_format=torch.contiguous_format)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return (x.mT if tall else x).to(matrices.dtype, memory_format=torch.contiguous_format)


def split_matrices(network: nn.Module, groups: Groups) -> Groups:
    """Each group as two, one for Muon and one for AdamW, which say so as `muon`.

    Args:
        network: whose parameters the groups hold; the layers that give the classes, as its `class_parameters()` names
            them, take AdamW's step.
        groups: what to split.
    """
    names = {
        f"{prefix}.weight" if prefix else "weight"
        for prefix, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and getattr(module, "groups", 1) == 1
    }
    names -= set(getattr(network, "class_parameters", tuple)())
    hidden = {id(network.get_parameter(name)) for name in names}
    return [
        {**group, "params": [p for p in group["params"] if (id(p) in hidden) == own], "muon": own}
        for group in groups
        for own in (True, False)
    ]


def build(network: nn.Module, groups: Groups, lr: float, options: MuonOptions) -> torch.optim.Optimizer:
    """Muon for the matrices in `groups`, AdamW for the rest."""
    split = [group for group in split_matrices(network, groups) if group["params"]]
    groups = [{**group, "muon": SUITED} if group["muon"] else fused([group])[0] for group in split]
    return Muon(groups, lr, options)
