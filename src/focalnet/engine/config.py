"""Options of a training run that do not depend on the task."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import tyro

from focalnet.engine.optim import OPTIMIZERS, SCHEDULES, build_options, find
from focalnet.errors import UserError
from focalnet.schemas import check_numbers

LEAST_BATCH = 2
"""Batch norm needs two samples."""
MOST_EPOCHS = 300
"""Of `least_total`: the samples are then so few that more passes teach little."""

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]


MOST = {"epochs": 10**6, "batch_size": 10**6, "accumulate": 10**5, "workers": 512, "seed": 2**63 - 1}
"""Far beyond every run: what is larger is a mistake, and would take the machine."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; a recipe sets its own values in the place of these defaults.

    Raises:
        UserError: a value out of range.
    """

    epochs: int = 30
    """Passes over the training samples."""
    batch_size: int = 64
    """Samples per optimizer step, over all processes and accumulated parts."""
    least_steps: Annotated[int, tyro.conf.Suppress] = 0
    """Steps that an epoch has at least: of few samples the batch is made smaller."""
    least_total: Annotated[int, tyro.conf.Suppress] = 0
    """Steps that the run has at least: of few samples it has more epochs."""
    accumulate: int = 1
    """Parts that a step is computed in, one after the other, to save memory; the result is the same."""
    optimizer: Annotated[str, tyro.conf.Suppress] = "adamw"
    """AdamW as in the paper, or Muon for the matrices, which learns from random weights in fewer steps; or another
    row of `engine.optim.OPTIMIZERS`."""
    optimizer_options: Annotated[Mapping[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Options of the optimizer's own that differ from its defaults."""
    lr: float = 1e-4
    """Peak learning rate."""
    min_lr: Annotated[float, tyro.conf.Suppress] = 1e-6
    """Learning rate at the end; "step" has none."""
    schedule: Annotated[str, tyro.conf.Suppress] = "cosine"
    """How the learning rate falls: "cosine", "linear", "poly" (what is left of the run to the power 0.9), "step" (it
    is divided by ten at every milestone), or another row of `engine.optim.SCHEDULES`."""
    schedule_options: Annotated[Mapping[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Options of the schedule's own that differ from its defaults: `milestones`, epochs, of "step"."""
    backbone_lr: Annotated[float, tyro.conf.Suppress] = 1.0
    """Learning rate of a detector's or segmenter's backbone, as a share of `lr`."""
    warmup_epochs: float = 3.0
    """Epochs of linear warm-up, from a thousandth of the peak."""
    weight_decay: float = 0.05
    """Decay of weights with two or more dimensions."""
    official_decay_bug: Annotated[bool, tyro.conf.Suppress] = False
    """Apply no weight decay to anything, as the official code does by mistake."""
    clip_grad: float = 5.0
    """Largest norm of the gradient; 0 for no clipping."""
    ema: float = 0.0
    """Decay per step of a moving average of the weights, which is then what is evaluated and kept; 0 for none."""
    precision: Precision = "auto"
    """Arithmetic of the network: "auto" is bf16 where the GPU has it, fp16 on an older GPU, fp32 on a CPU; "tf32" is
    fp32 with products of 10 bits on a GPU."""
    compile: bool = False
    """Compile the network with torch.compile."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes (torchrun) share the work: copies of the network, or shards of it."""
    patience: int = 0
    """Epochs without a better validation after which training ends; 0 trains all of them."""
    train_sample: Annotated[int, tyro.conf.Suppress] = 256
    """Training samples, not augmented, that are measured after each epoch beside the validation split (no more than
    that has), so that overfitting shows; 0 for none."""
    seed: int = 0
    """Where all randomness starts."""
    workers: int | None = None
    """Processes that prepare samples; without it, one per core beside a GPU, 16 at most, and 2 beside a CPU."""
    cache: Annotated[float, tyro.conf.Suppress] = 0.0
    """Gigabytes of memory for decoded images, shared by those processes; what does not fit is decoded each time."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Also log to these; metrics.jsonl is always written."""
    checkpoint_minutes: Annotated[float, tyro.conf.Suppress] = 10.0
    """Time between checkpoints inside an epoch; one is always written after an epoch."""

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give 1 or more.")
        rates = ("lr", "min_lr", "backbone_lr", "warmup_epochs", "weight_decay", "clip_grad", "cache")
        for name in (*rates, "patience", "workers", "least_steps", "least_total", "train_sample"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give 0 or more.")
        for name, most in MOST.items():
            if (getattr(self, name) or 0) > most:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give {most} at most.")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema is {self.ema}; give a decay from 0 up to, but not including, 1.")
        row = find("optimizer", self.optimizer, OPTIMIZERS)
        if row.whole and self.strategy == "fsdp":
            raise UserError(
                f"{row.name}, the optimizer of this recipe, needs whole matrices; leave --strategy fsdp out."
            )
        build_options(row, self.optimizer_options)
        build_options(find("schedule", self.schedule, SCHEDULES), self.schedule_options)
        object.__setattr__(self, "trackers", tuple(self.trackers))

    def fitted(self, samples: int, world: int) -> Self:
        """These options for a number of training samples: a batch that they fill, and enough steps.

        Args:
            samples: in the training split.
            world: processes; a batch divides among them and the accumulated parts.
        """
        unit = self.accumulate * world
        most = min(samples, max(samples // max(self.least_steps, 1), LEAST_BATCH))
        batch = self.batch_size if self.batch_size <= most else max(most // unit, 1) * unit
        epochs = max(self.epochs, min(-(-self.least_total // max(samples // batch, 1)), MOST_EPOCHS))
        return dataclasses.replace(self, batch_size=batch, epochs=epochs, least_steps=0, least_total=0)
