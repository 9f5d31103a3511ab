"""Networks that are broken on purpose, so that tests of equality are seen to fail."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def context(padding: str = "constant", pooled_twice: bool = True):
    """A plain `focal_context` of any number of axes, as published or with one thing changed."""

    def focal_context(x: Tensor, gates: Tensor, kernels: Sequence[Tensor], biases: None = None) -> Tensor:
        level, shares, axes = x.movedim(-1, 1), gates.movedim(-1, 1), tuple(range(2, x.ndim))
        convolve = {1: F.conv1d, 2: F.conv2d}[len(axes)]
        total = torch.zeros_like(level)
        for index, kernel in enumerate(kernels):
            margin = [size // 2 for size in reversed(kernel.shape[2:]) for _ in (0, 1)]
            padded = F.pad(level, margin, mode=padding)
            level = F.gelu(convolve(padded, kernel, groups=level.shape[1] // kernel.shape[1]))
            total = total + level * shares[:, index : index + 1]
        pooled = level.mean(axes, keepdim=True)
        pooled = F.gelu(pooled) if pooled_twice else pooled
        return (total + pooled * shares[:, -1:]).movedim(1, -1)

    return focal_context


CONTEXTS = {
    "nothing": context(),
    "no second GELU": context(pooled_twice=False),
    "replicate padding": context(padding="replicate"),
}
"""What is broken, and the operator."""


def use_context(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Let every layer compute with one of `CONTEXTS`."""
    for place in ("focalnet.modulation", "focalnet.models.video_focalnet.modulation"):
        monkeypatch.setattr(f"{place}.focal_context", CONTEXTS[broken])


def swap_channels(module: nn.Module, channels: int) -> torch.utils.hooks.RemovableHandle:
    """Let a layer see what was concatenated after `channels` of the last axis before them."""
    return module.register_forward_pre_hook(lambda _, inputs: (inputs[0].roll(-channels, -1),))
