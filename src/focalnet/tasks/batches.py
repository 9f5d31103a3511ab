"""Predictions of signals in batches: those that have one size for the network share forward passes, without padding."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from focalnet import inputs
from focalnet.errors import UserError
from focalnet.weights.spec import ModelSpec


class Predicts(ABC):
    """What every task does with signals."""

    @abstractmethod
    def predict(self, model: Any, signals: Sequence[Any]) -> list[Any]:
        """One `Prediction` per signal, as `model.spec.preprocessing` reads it: an RGB image, a waveform."""

    def read(self, how: Any, source: Any) -> Any:
        """The signal of a source to predict for, as the network's input `how` reads it.

        Raises:
            UserError: it cannot be read.
        """
        return how.read(source)

    def prepare(self, spec: ModelSpec, signal: Any) -> Any:
        """What `predict_prepared` wants of a signal besides; threads make it while the network is busy."""
        return None

    def predict_prepared(self, model: Any, signals: Sequence[Any], prepared: Sequence[Any]) -> list[Any]:
        """`predict`, with what `prepare` made of each signal."""
        return self.predict(model, signals)

    def explained(self, model: Any, signal: Any) -> Image:
        """A drawing of what the network did with a signal that is no image; images have `focalnet.explain`.

        Raises:
            UserError: the task has none.
        """
        raise UserError("what this network does with a sample is not drawn; see `focalnet.capture`.")


class InBatches(Predicts):
    """How a task makes its predictions, of which `predict_batch` is the part of its own."""

    def prepare(self, spec: ModelSpec, signal: Any) -> Tensor:
        """What the network sees of a signal, of an image before it is normalized: (C, H, W), uint8."""
        how = spec.preprocessing
        return how.pixels(signal) if isinstance(how, inputs.Image) else how(signal)

    def floats(self, spec: ModelSpec, batch: Tensor) -> Tensor:
        """A batch of what `prepare` makes, as the network takes it."""
        how = spec.preprocessing
        return how.scaled(batch) if isinstance(how, inputs.Image) else batch

    def predict(self, model: Any, signals: Sequence[Any]) -> list[Any]:
        """One prediction per signal; those that have one size for the network share forward passes."""
        return self.predict_prepared(model, signals, [self.prepare(model.spec, signal) for signal in signals])

    def predict_prepared(self, model: Any, signals: Sequence[Any], prepared: Sequence[Tensor]) -> list[Any]:
        alike: dict[torch.Size, list[int]] = {}
        for index, tensor in enumerate(prepared):
            alike.setdefault(tensor.shape, []).append(index)
        predictions: dict[int, Any] = {}
        weight = next(model.parameters())
        for shape, indices in alike.items():
            most = self.most_alike(shape) or len(indices)
            for chunk in (indices[first : first + most] for first in range(0, len(indices), most)):
                batch = torch.stack([prepared[index] for index in chunk]).to(weight.device, non_blocking=True)
                with torch.inference_mode():
                    tensors = self.floats(model.spec, batch).to(weight.dtype)
                    found = self.predict_batch(model, tensors, [signals[index] for index in chunk])
                predictions.update(zip(chunk, found, strict=True))
        return [predictions[index] for index in range(len(signals))]

    def most_alike(self, shape: Sequence[int]) -> int | None:
        """Signals of one forward pass at most, which the network sees in this shape; None where any number will do."""
        return None

    @abstractmethod
    def predict_batch(self, model: Any, batch: Tensor, signals: Sequence[Any]) -> list[Any]:
        """The predictions for a batch without padding.

        Args:
            model: the network.
            batch: (B, ...), what it takes; of images (B, C, H, W), normalized.
            signals: of which it was made.
        """
