"""What follows a call and so decides which code may run: torch.export, torch.func, a forward derivative."""

import torch
from torch.autograd import forward_ad


def is_exporting() -> bool:
    """Whether torch.export follows.

    `torch.compiler.is_exporting` says so under torch.compile as well, up to torch 2.11.
    """
    return torch.compiler._is_exporting_flag  # pyright: ignore[reportPrivateUsage]


def is_transformed() -> bool:
    """Whether a transform of torch.func or a forward derivative is under way, which plain PyTorch alone serves."""
    stack = torch._C._functorch.peek_interpreter_stack()  # pyright: ignore[reportAttributeAccessIssue]
    return stack is not None or forward_ad._current_level >= 0
