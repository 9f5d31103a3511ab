"""What only code can bring to a run: callbacks, a transform, a loss. None of it is kept in the run folder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from focalnet.engine.results import Run
from focalnet.errors import UserError


class Callback(Protocol):
    """What is told of a run as it goes: subclass it and write what you need.

    A method that returns True ends the run. An exception in it ends the run too, after a checkpoint was written, from
    which `focalnet.resume` goes on. Of several processes, the main one calls.

    Example:
        >>> class Enough(focalnet.Callback):
        ...     def on_epoch_end(self, run, metrics):
        ...         return metrics["top1"] > 0.99
    """

    def on_step(self, run: Run, metrics: Mapping[str, float], /) -> bool | None:
        """After an optimizer step: `epoch` and `step`, both from 1, `loss` and `lr`.

        A run that ends here has its checkpoint `last`, and no report. Where a callback has this method, the run waits
        for the device after every step.
        """
        return None

    def on_epoch_end(self, run: Run, metrics: Mapping[str, float], /) -> bool | None:
        """After an epoch, with the row of `run.history`; its checkpoints are written.

        A run that ends here ends with the best checkpoint and the report, as one that `patience` ends.
        """
        return None


class Hooks(NamedTuple):
    """What the caller of a run brings along.

    Attributes:
        transform: changes the training samples, see `Task.transformed`.
        loss: takes the place of the network's own, see `Task.own_loss`.
        callbacks: are told of the run.
    """

    transform: Callable[..., Any] | None = None
    loss: Callable[..., Any] | None = None
    callbacks: Sequence[Callback] = ()

    def names(self) -> list[str]:
        """Those without which a run is another one; `config.json` keeps their names as `own`."""
        return [name for name in ("transform", "loss") if getattr(self, name) is not None]

    def check(self, path: Any, own: Sequence[str]) -> None:
        """Refuse to go on with a run without what it began with, or with more.

        Raises:
            UserError: the sentence says what to give.
        """
        if missing := [name for name in own if name not in self.names()]:
            given = ", ".join(f"{name}=…" for name in missing)
            raise UserError(
                f"{path} is trained with its own {' and '.join(missing)}, which no file keeps; give it again: "
                f"focalnet.resume({str(path)!r}, {given})."
            )
        if more := [name for name in self.names() if name not in own]:
            raise UserError(f"{path} began without its own {' and '.join(more)}; leave it out, or start a new run.")


NONE = Hooks()


class Listeners:
    """The callbacks of a run, of which every process hears what they want.

    Args:
        callbacks: what the main process calls.
        run: what they are told of.
        accelerator: the processes of the run.
    """

    def __init__(self, callbacks: Sequence[Callback], run: Run, accelerator: Any) -> None:
        self.callbacks, self.run, self.accelerator = callbacks, run, accelerator
        self.error: BaseException | None = None

    @property
    def each_step(self) -> bool:
        """Whether one of them is told of steps."""
        return any(getattr(type(callback), "on_step", None) is not Callback.on_step for callback in self.callbacks)

    def stop(self, event: str, metrics: Mapping[str, float]) -> bool:
        """Tell an event; whether the run is to end, because one asks for it or failed (`raise_error` tells)."""
        if not self.callbacks:
            return False
        wish = False
        if self.accelerator.is_main_process:
            try:
                told = [getattr(callback, event)(self.run, dict(metrics)) for callback in self.callbacks]
                wish = any(asks is True for asks in told)
            except BaseException as error:
                self.error, wish = error, True
        if self.accelerator.num_processes == 1:
            return wish
        flag = torch.tensor(float(wish), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item())

    def raise_error(self) -> None:
        """Raise what a callback raised, now that there is a checkpoint."""
        if self.error is not None:
            raise self.error
