"""Muon (Jordan et al., 2024): a step of momentum whose singular values are all made equal.

    B <- 0.95 B + 0.05 G          momentum of the gradient G of a matrix (out, in)
    U <- 0.05 G + 0.95 B          Nesterov's look ahead
    W <- W - lr 0.2 √max(out, in) NS(U)

`NS` (Newton-Schulz) is a polynomial that pulls every singular value of U to about 1, so that rare directions are
learned as fast as common ones. The factor gives the step the size of one of AdamW (Liu et al., 2025), so a learning
rate and a decay for AdamW do for both. Only weights that multiply a hidden signal, of linear layers and of
convolutions that mix channels, are such matrices; everything else takes AdamW's step.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """Muon for the groups that say `muon: True`, AdamW for the others.

    Args:
        groups: parameter groups, each with `muon`.
        lr: learning rate.
    """

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
        for parameter in parameters:
            gradient: Any = parameter.grad
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(gradient, 1 - MOMENTUM)
            update = gradient.lerp(state["momentum"], MOMENTUM).flatten(1)
            alike[update.shape].append((parameter, update))
        for shape, pairs in alike.items():
            updates = orthogonalise(torch.stack([update for _, update in pairs]))
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))


def orthogonalise(matrices: Tensor) -> Tensor:
    """The singular vectors of each of `matrices` (P, M, N) with singular values of 0.7 to 1.2: five rounds, in
    bfloat16, of X <- 3.4445 X - 4.775 (X Xᵀ) X + 2.0315 (X Xᵀ)² X, which at 0 is as steep as it can be."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    x = (x.mT if tall else x).to(torch.bfloat16, memory_format=torch.contiguous_format)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return (x.mT if tall else x).to(matrices.dtype, memory_format=torch.contiguous_format)


def matrices(model: nn.Module, excluded: set[str]) -> set[str]:
    """Names of the parameters for which Muon is made.

    Args:
        model: the network.
        excluded: names that take AdamW's step: the layers that give the classes.
    """
    return {
        f"{prefix}.weight"
        for prefix, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and getattr(module, "groups", 1) == 1
    } - excluded
