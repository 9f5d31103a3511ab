"""Options of a training run that do not depend on the task."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from focalnet.errors import UserError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. The defaults are those of the `finetune` recipe.

    Raises:
        UserError: a value out of range.
    """

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 64
    """Images per optimiser step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a step is computed in, one after the other, to save memory; the result is the same."""
    optimizer: Annotated[Literal["adamw", "muon"], tyro.conf.Suppress] = "adamw"
    """AdamW as in the paper, or Muon for the matrices, which learns from random weights in fewer steps."""
    lr: float = 1e-4
    """Peak learning rate."""
    min_lr: Annotated[float, tyro.conf.Suppress] = 1e-6
    """Learning rate at the end; "step" has none."""
    schedule: Annotated[Literal["cosine", "linear", "poly", "step"], tyro.conf.Suppress] = "cosine"
    """How the learning rate falls; "poly" follows what is left of the run to the power 0.9, "step" divides it by
    ten at every epoch of `drop_at`."""
    drop_at: Annotated[tuple[float, ...], tyro.conf.Suppress] = ()
    """Epochs at which the schedule "step" falls."""
    backbone_lr: Annotated[float, tyro.conf.Suppress] = 1.0
    """Learning rate of a detector's or segmenter's backbone, as a share of `lr`."""
    warmup_epochs: float = 3.0
    """Epochs of linear warm-up, from a thousandth of the peak."""
    weight_decay: float = 0.05
    """Decay of weights with two or more dimensions."""
    official_decay_bug: bool = False
    """Apply no weight decay to anything, as the official code does by mistake."""
    clip_grad: float = 5.0
    """Largest norm of the gradient; 0 for no clipping."""
    ema: float = 0.0
    """Decay per step of a moving average of the weights, which is then what is evaluated and kept; 0 for none."""
    precision: Precision = "auto"
    """Arithmetic of the network: "auto" is bf16 where the GPU has it, fp16 on an older GPU, fp32 on a CPU."""
    compile: bool = False
    """Compile the network with torch.compile."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes (torchrun) share the work: copies of the network, or shards of it."""
    seed: int = 0
    """Where all randomness starts."""
    workers: int = 2
    """Processes that prepare images."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Also log to these; metrics.jsonl is always written."""
    checkpoint_minutes: Annotated[float, tyro.conf.Suppress] = 10.0
    """Time between checkpoints inside an epoch; one is always written after an epoch."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give 1 or more.")
        for name in ("lr", "min_lr", "warmup_epochs", "weight_decay", "clip_grad", "workers", "backbone_lr"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give 0 or more.")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema is {self.ema}; give a decay from 0 up to, but not including, 1.")
        if self.optimizer == "muon" and self.strategy == "fsdp":
            raise UserError("Muon, the optimiser of this recipe, needs whole matrices; leave --strategy fsdp out.")
        for name in ("trackers", "drop_at"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
