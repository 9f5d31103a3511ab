"""What is trained: the network, its average, the optimiser, on one device or on many."""

import dataclasses
import io
import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from focalnet.backbone import Block
from focalnet.engine.config import TrainConfig
from focalnet.engine.optim.groups import build_optimizer
from focalnet.engine.run import RunFolder
from focalnet.tasks.base import Batch, Network, Task
from focalnet.weights.files import apart


@dataclasses.dataclass
class Position:
    """Where a run is: saved with every checkpoint."""

    epoch: int = 0
    step: int = 0
    """Optimiser steps done in this epoch."""
    loss_sum: float = 0.0
    """Sum of the losses of these steps."""
    best: float = -math.inf
    """Highest score so far."""


class Training:
    """The network in training: weights, their average, optimiser, gradient scaler, on one device or many.

    Attributes:
        network: the module itself, without wrappers.
        skipped: paths of the images that could not be read so far.
        averaged: what is evaluated and kept: the moving average, or the network where there is none.
    """

    def __init__(self, network: Network, config: TrainConfig, accelerator: Any) -> None:
        self.config, self.accelerator, self.spec = config, accelerator, network.spec
        self.network = network.to(accelerator.device)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        self.skipped: set[str] = set()
        self.ema = None
        if config.ema:
            averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema)
            self.ema = torch.optim.swa_utils.AveragedModel(self.network, multi_avg_fn=averaging)
        self.averaged = self.ema.module if self.ema else self.network
        if config.compile:
            getattr(self.network, "backbone", self.network).compile()
        sharded = config.strategy == "fsdp" and accelerator.num_processes > 1
        if sharded:
            for part in {self.network, self.averaged}:
                _shard(part)
        self.wrapped = self.network if sharded else accelerator.prepare_model(self.network)
        self.optimizer = accelerator.prepare_optimizer(build_optimizer(self.network, config))

    def step(self, task: Task, batches: Iterator[Batch], lr: float) -> float:
        """One optimiser step over the accumulated parts; returns the loss, averaged over parts and processes."""
        from accelerate.utils import send_to_device

        parts, accelerator = self.config.accumulate, self.accelerator
        self.wrapped.train()
        total = torch.zeros((), device=accelerator.device)
        for part in range(parts):
            batch = next(batches)
            self.skipped.update(batch.pop("skipped"))
            batch: Any = send_to_device(batch, accelerator.device, non_blocking=True)
            last = part == parts - 1
            with nullcontext() if last else accelerator.no_sync(self.wrapped), accelerator.autocast():
                loss = task.loss(self.wrapped, batch)["loss"] / parts
                accelerator.backward(loss)
            total += loss.detach()
        if self.config.clip_grad:
            accelerator.unscale_gradients(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_grad)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_share", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update_parameters(self.network)
        return accelerator.reduce(total, "mean").item()

    def save(self, run: RunFolder, name: str, at: Position) -> None:
        """Write a checkpoint; every process takes part, the main one writes."""
        from safetensors.torch import save
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_model_state_dict,
            get_optimizer_state_dict,
        )

        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights: dict[str, Any] = get_model_state_dict(self.averaged, options=whole)
        state: dict[str, Any] = {
            "optimizer": get_optimizer_state_dict(self.network, self._inner_optimizer(), options=whole),
            "position": dataclasses.asdict(at),
        }
        if self.ema:
            state |= {
                "network": get_model_state_dict(self.network, options=whole),
                "averaged": int(self.ema.n_averaged),
            }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()

        def pickled() -> bytes:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            return buffer.getvalue()

        if self.accelerator.is_main_process:
            files = {
                "model.safetensors": lambda: save(apart(weights)),
                "config.json": lambda: self.spec.to_json().encode(),
                "state.pt": pickled,
            }
            run.save_checkpoint(name, files)
        self.accelerator.wait_for_everyone()

    def load(self, folder: Path) -> Position:
        """Take a verified checkpoint in; returns where it was."""
        from safetensors.torch import load_file
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        whole = StateDictOptions(full_state_dict=True)
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        weights: dict[str, Any] = load_file(folder / "model.safetensors")
        set_model_state_dict(self.averaged, weights, options=whole)
        if self.ema:
            set_model_state_dict(self.network, state["network"], options=whole)
            self.ema.n_averaged.fill_(state["averaged"])
        set_optimizer_state_dict(self.network, self._inner_optimizer(), state["optimizer"], options=whole)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return Position(**state["position"])

    def _inner_optimizer(self) -> torch.optim.Optimizer:
        return self.optimizer.optimizer


def _shard(network: nn.Module) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for module in network.modules():
        if isinstance(module, Block):
            fully_shard(module)
    fully_shard(network)
    for method in ("detect", "segment"):
        if hasattr(network, method):
            register_fsdp_forward_method(network, method)
