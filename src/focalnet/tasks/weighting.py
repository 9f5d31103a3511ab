"""How much the samples of each class count in the loss."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from focalnet.data import Datasets
from focalnet.errors import UserError


def class_weights(option: Any, data: Datasets, balanced: Callable[[Sequence[Any], int], Tensor]) -> Tensor:
    """The weight of each class, (K,), float32, as `--class-weights` says.

    Args:
        option: "balanced", or a number per class.
        data: whose training samples have labels.
        balanced: what the former means: from labels and the number of classes to weights.

    Raises:
        UserError: numbers for other than all classes.
    """
    if option == "balanced":
        train: Any = data.train  # `Samples`
        return balanced(train.labels, len(data.classes)).float()
    if len(option) != len(data.classes):
        raise UserError(
            f"--class-weights has {len(option)} numbers for {len(data.classes)} classes; "
            f"give one per class, in this order: {', '.join(data.classes)}."
        )
    return torch.tensor(option)


def balanced_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Classes count alike, however many samples they have: (K,); their mean over the samples is 1."""
    counts = torch.tensor(labels).bincount(minlength=classes)
    return counts.sum() / (counts > 0).sum() / counts.clamp(min=1)


def weighted_targets(targets: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Targets (B, K) times the weight of their samples: that of the label before smoothing, or of mixed labels their
    mean, so that the likeliest class stays the same.

    Args:
        targets: whose rows sum to one, mixed and smoothed.
        weights: (K,), of the classes.
        smoothing: the share of each row that was spread over all classes.
    """
    shares = (targets - smoothing / targets.shape[1]) / (1 - smoothing)
    return targets * (shares @ weights)[:, None]
