"""What is trained: the network, its average, the optimizers, on one device or on many."""

import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from focalnet.engine.config import TrainConfig
from focalnet.engine.optim.build import build_optimizer, learning_rate
from focalnet.engine.run import RunFolder
from focalnet.errors import UserError
from focalnet.schemas import build
from focalnet.tasks.base import Batch, Network, Task
from focalnet.weights.files import apart, in_a_sentence, read_content, read_state_dict


@dataclasses.dataclass
class Position:
    """Where a run is: saved with every checkpoint."""

    epoch: int = 0
    step: int = 0
    """Optimizer steps done in this epoch."""
    loss_sum: float = 0.0
    """Sum of the losses of these steps."""
    best: float = -math.inf
    """Highest score so far."""
    best_loss: float = math.inf
    """Loss in the same validation, where one is measured: of equal scores it decides."""
    best_epoch: int = 0
    """Epochs done when it was reached."""
    part_sums: dict[str, float] = dataclasses.field(default_factory=dict)
    """Of a task of several parts, the sum of the losses of each."""

    def add(self, losses: Mapping[str, float]) -> float:
        """Count the losses of the parts in a step; returns their sum."""
        loss = sum(losses.values())
        self.loss_sum += loss
        if len(losses) > 1:
            self.part_sums = {name: self.part_sums.get(name, 0.0) + loss for name, loss in losses.items()}
        return loss

    def after(self, metrics: Mapping[str, float], score: str, *, better: bool) -> "Position":
        """The position at the end of the epoch, whose validation gave `metrics`, `better` than all before or not."""
        best, loss = merit(metrics, score) if better else (self.best, -self.best_loss)
        epoch = self.epoch + 1
        return Position(epoch, best=best, best_loss=-loss, best_epoch=epoch if better else self.best_epoch)

    def means(self) -> dict[str, float]:
        """The mean losses of the steps, for a row of `metrics.jsonl`."""
        parts = {f"train_loss_{name}": total / self.step for name, total in self.part_sums.items()}
        return {"train_loss": self.loss_sum / self.step, **parts}


def merit(metrics: Mapping[str, Any], score: str) -> tuple[float, float]:
    """What makes one validation better than another: the score, and of equal scores the lower loss."""
    return metrics[score], -metrics.get("val_loss", math.inf)


class _Losses(nn.Module):
    """A network with its task, as one module whose call gives the losses: `DistributedDataParallel` watches calls.

    `own` is a caller's loss in the place of the network's.
    """

    def __init__(self, network: nn.Module, task: Task, own: Callable[..., Any] | None) -> None:
        super().__init__()
        self.network, self.task, self.own = network, task, own

    def forward(self, part: str, batch: Batch) -> Mapping[str, Tensor]:
        if self.own is None:
            return self.task.part_loss(part, self.network, batch)
        losses = self.task.own_loss(self.own, self.network, batch)
        loss = losses["loss"]
        if not (isinstance(loss, Tensor) and loss.ndim == 0 and loss.requires_grad):
            told = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise UserError(f"the loss gives {told}; wanted is one number, a tensor that the weights lead to.")
        return losses


class Training:
    """The network in training: weights, their average, optimizers, gradient scaler, on one device or many.

    Attributes:
        network: the module itself, without wrappers.
        averaged: what is evaluated and kept: the moving average, or the network where there is none.
        optimizers: one for each of `Task.parts`, by name, in the order of their steps.
        skipped: paths of the samples that could not be read so far.
    """

    def __init__(
        self,
        task: Task,
        network: Network,
        config: TrainConfig,
        accelerator: Any,
        loss: Callable[..., Any] | None = None,
    ) -> None:
        from accelerate import DistributedDataParallelKwargs

        self.task, self.config, self.accelerator, self.spec = task, config, accelerator, network.spec
        self.network: Any = network.to(accelerator.device)
        if task.freeze is not None:
            self.network.focalnet.freeze(None if task.freeze == "backbone" else task.freeze)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        self.skipped: set[str] = set()
        self.unproven: Path | None = None  # a state that was loaded: the first step shows whether it fits
        self.ema = None
        if config.ema:
            averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema)
            self.ema = torch.optim.swa_utils.AveragedModel(self.network, multi_avg_fn=averaging)
        self.averaged = self.ema.module if self.ema else self.network
        if config.compile:
            self.network.focalnet.compile()
        self.parts = task.parts(self.network)
        helpers = [part.module for part in self.parts.values() if part.helper]
        self.helpers = tuple(
            f"{name}." for name, module in self.network.named_modules() if any(module is one for one in helpers)
        )
        self.configs = {name: dataclasses.replace(config, **part.options) for name, part in self.parts.items()}
        self.losses: Any = _Losses(self.network, task, loss)
        if config.strategy == "fsdp" and accelerator.num_processes > 1:
            for module in {self.network, self.averaged}:
                _shard(module)
        else:
            if len(self.parts) > 1:  # a part's loss need not use what the others hold
                accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
            self.losses = accelerator.prepare_model(self.losses)
        self.optimizers = {
            name: accelerator.prepare_optimizer(build_optimizer(part.module, self.configs[name]))
            for name, part in self.parts.items()
        }

    def step(self, batches: Iterator[Batch], step: int, steps_per_epoch: int) -> dict[str, Tensor]:
        """One step of every optimizer over the accumulated batches.

        Args:
            batches: as the loader gives them.
            step: steps done, over the whole run.
            steps_per_epoch: of the run.

        Returns:
            the loss of each part, a scalar on the device, averaged over the batches of this process.
        """
        self.losses.train()
        pieces = [next(batches) for _ in range(self.config.accumulate)]
        for piece in pieces:
            self.skipped.update(piece.pop("skipped"))
        if len(self.parts) > 1:
            pieces = [self._shared(piece) for piece in pieces]
        losses = {}
        for name, part in self.parts.items():
            losses[name] = self._backward(name, pieces)
            optimizer = self.optimizers[name]
            if most := self.configs[name].clip_grad:
                self.accelerator.unscale_gradients(optimizer)
                torch.nn.utils.clip_grad_norm_(part.module.parameters(), most)
            lr = learning_rate(self.configs[name], step, steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_share", 1.0)
            with _of_this_run(self.unproven) if self.unproven else nullcontext():
                optimizer.step()
            self.network.zero_grad()  # not the optimizer's: a part's loss gives gradients to the others too
        self.unproven = None
        if self.ema:
            self.ema.update_parameters(self.network)
        return losses

    @torch.no_grad()
    def _shared(self, piece: Batch) -> Batch:
        """A batch on the device, with what the parts have in common."""
        from accelerate.utils import send_to_device

        with self.accelerator.autocast():
            return self.task.shared(self.network, send_to_device(piece, self.accelerator.device, non_blocking=True))

    def _backward(self, part: str, pieces: Sequence[Batch]) -> Tensor:
        """Gradients of the loss of a part, averaged over the accumulated batches; returns the loss."""
        from accelerate.utils import send_to_device

        accelerator = self.accelerator
        total = torch.zeros((), device=accelerator.device)
        for number, piece in enumerate(pieces, 1):
            batch = send_to_device(piece, accelerator.device, non_blocking=True)
            last = number == len(pieces)
            with nullcontext() if last else accelerator.no_sync(self.losses), accelerator.autocast():
                loss = self.losses(part, batch)["loss"] / len(pieces)
                accelerator.backward(loss)
            total += loss.detach()
        return total

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
        helpers = {name: weights.pop(name) for name in list(weights) if name.startswith(self.helpers)}
        state: dict[str, Any] = {
            "optimizers": {
                part: get_optimizer_state_dict(self.network, optimizer.optimizer, options=whole)
                for part, optimizer in self.optimizers.items()
            },
            "position": dataclasses.asdict(at),
        }
        if helpers:
            state["helpers"] = helpers
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
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        whole = StateDictOptions(full_state_dict=True)
        path = folder / "state.pt"
        state = read_content(path)
        weights: dict[str, Any] = read_state_dict(folder / "model.safetensors")
        self.unproven = path
        with _of_this_run(path):
            set_model_state_dict(self.averaged, {**weights, **state.get("helpers", {})}, options=whole)
            if self.ema:
                set_model_state_dict(self.network, state["network"], options=whole)
                self.ema.n_averaged.fill_(state["averaged"])
            if "optimizer" in state:  # of the time when there was one
                state["optimizers"] = dict.fromkeys(self.parts, state["optimizer"])
            for part, optimizer in self.optimizers.items():
                numbers = [{name for name in group if _is_number(group[name])} for group in optimizer.param_groups]
                set_optimizer_state_dict(self.network, optimizer.optimizer, state["optimizers"][part], options=whole)
                for group, names in zip(optimizer.param_groups, numbers, strict=True):
                    if strange := sorted(name for name in names if not _is_number(group[name])):
                        raise ValueError(f"{strange[0]} of the optimizer is no number")
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            place = dict(state["position"])
            for name in ("best", "best_loss"):  # of a run without a validation
                if not math.isfinite(place.get(name, math.inf)):
                    place.pop(name, None)
            position = build(Position, place, path)
            if min(position.epoch, position.step) < 0:
                raise ValueError(f"epoch {position.epoch}, step {position.step}")
            return position


def _of_this_run(path: Path) -> AbstractContextManager[None]:
    return in_a_sentence(f"{path} is not the state of this run", "resume from another checkpoint")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _shard(network: Any) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for module in network.focalnet.blocks():
        fully_shard(module)
    fully_shard(network)
    register_fsdp_forward_method(network, "loss")  # it need not go through the call
