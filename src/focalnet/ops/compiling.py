"""What decides which code may run: what is installed, and what follows a call (torch.export, torch.func, a forward
derivative)."""

import importlib.util

import torch
from torch.autograd import forward_ad

HAS_TRITON = importlib.util.find_spec("triton") is not None
HAS_NUMBA = importlib.util.find_spec("numba") is not None


def is_exporting() -> bool:
    """Whether torch.export follows.

    `torch.compiler.is_exporting` says so under torch.compile as well, up to torch 2.11.
    """
    return torch.compiler._is_exporting_flag  # pyright: ignore[reportPrivateUsage]


def is_transformed() -> bool:
    """Whether a transform of torch.func or a forward derivative is under way, which plain PyTorch alone serves."""
    stack = torch._C._functorch.peek_interpreter_stack()  # pyright: ignore[reportAttributeAccessIssue]
    return stack is not None or forward_ad._current_level >= 0
