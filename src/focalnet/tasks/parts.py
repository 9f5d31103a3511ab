"""What an optimizer of a run moves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn


class Part(NamedTuple):
    """A part of a network that has an optimizer of its own.

    Attributes:
        module: holds its parameters; a `ModuleList` puts several modules together.
        options: options of `TrainConfig` that are otherwise for it: `optimizer` and `optimizer_options`, `lr`,
            `weight_decay`, `schedule` and `schedule_options`, `clip_grad`.
        helper: whether it only helps to train, as discriminators do: checkpoints keep its weights with the state of the
            run, apart from the network.
    """

    module: nn.Module
    options: Mapping[str, Any] = {}
    helper: bool = False
