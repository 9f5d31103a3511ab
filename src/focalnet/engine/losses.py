"""The losses of the steps of a run, which stay on the device until they are looked at.

A look waits for the device, and under several processes for all of them: the queue of work runs empty meanwhile. So a
run looks about once in `SECONDS`, after the same step in every process, and gets the loss of every step, as if it had
looked each time. A CPU queues nothing, and there it looks after every step.
"""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SECONDS = 1.0
"""Time between looks, about: a signal or a loss that is no number is noticed so much later."""
MOST_STEPS = 20
"""Steps between looks, at most."""


class Losses:
    """Losses that nobody has looked at yet.

    Args:
        accelerator: the processes of the run.
        queues: whether the device queues work; without it, a GPU does and a CPU does not.

    Attributes:
        every: steps between looks, the same in every process.
    """

    def __init__(self, accelerator: Any, *, queues: bool | None = None) -> None:
        self.accelerator = accelerator
        self.queues = accelerator.device.type != "cpu" if queues is None else queues
        self.every = self.wish = 1
        self.waiting: list[tuple[int, Mapping[str, Tensor]]] = []
        self.looked = time.monotonic()

    def add(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Keep the losses of a step, scalars by the name of a part."""
        self.waiting.append((step, losses))

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return len(self.waiting) >= self.every

    def look(self) -> list[tuple[int, dict[str, float]]]:
        """The losses since the last look by their steps, averaged over the processes; every process takes part."""
        if not self.waiting:
            return []
        names = list(self.waiting[0][1])
        device, world = self.accelerator.device, self.accelerator.num_processes
        block = torch.stack([torch.stack([losses[name] for name in names]) for _, losses in self.waiting])
        if world > 1:  # gathered, not reduced: a ring adds the numbers of a block in several orders
            wishes = self.accelerator.gather(torch.tensor([self.wish], device=device))
            block = self.accelerator.gather(block[None]).sum(0) / world
            self.every = int(wishes.min())
        else:
            self.every = self.wish
        values = block.tolist()
        steps, self.waiting = [step for step, _ in self.waiting], []
        now = time.monotonic()
        if self.queues:
            seconds = max((now - self.looked) / len(steps), 1e-6)
            self.wish = min(max(int(SECONDS / seconds), 1), MOST_STEPS)
        self.looked = now
        return [(step, dict(zip(names, row, strict=True))) for step, row in zip(steps, values, strict=True)]
