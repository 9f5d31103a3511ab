"""What detectors' losses share: the focal loss, and numbers of objects over all processes."""

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss: the weight of positives (negatives have 1 - α), and the exponent."""


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary focal loss (Lin et al., 2017), element by element; targets are 0 or 1."""
    missed = (targets - logits.sigmoid()).abs()
    weight = 1 - ALPHA + (2 * ALPHA - 1) * targets
    return weight * missed**GAMMA * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def average_count(count: Tensor) -> Tensor:
    """A number, averaged over the processes; without gradient."""
    count = count.detach().clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return count
