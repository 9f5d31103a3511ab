"""Classification of sounds that shows what it hears (Della Libera et al. 2024, 2402.02754).

A clip is heard, its class is told, and the part of its spectrogram where the modulator of the last block is longest is
kept: as an image, and as a sound of its own. With `interpretation` the evaluation also measures how well that part
accounts for the answer (`metrics.interpretation`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from focalnet.data.transforms.sounds import train_clip
from focalnet.inputs.audio import Audio
from focalnet.metrics.interpretation import InterpretationMetric
from focalnet.tasks.base import Batch, MapDataset, Meaning, Metric, Network, Section
from focalnet.tasks.classes import ClassTask
from focalnet.tasks.classify import ClassificationMetric, ClassPrediction, accuracy_meanings
from focalnet.tasks.figures import class_names, class_sections
from focalnet.tasks.signal_options import SoundOptions
from focalnet.visualize.draw import annotate
from focalnet.visualize.page import Shot
from focalnet.visualize.signals import draw_spectrogram, wav
from focalnet.weights.spec import ModelSpec

SECONDS, SCALE = 5.0, 30.0
"""Of clips and of cosines, where neither the options nor the weights say otherwise."""
SHOWN = 6
"""Clips in the report."""
HEARD = "What it hears"
"""The part of the report about the part of a sound that was listened to."""


@dataclass(frozen=True, kw_only=True)
class Sound(SoundOptions, ClassTask):
    """Classification of sounds."""

    meanings: ClassVar[Mapping[str, Meaning]] = {
        **accuracy_meanings("sounds"),
        "fidelity": Meaning("fidelity", "share of the sounds whose answer is that of the part alone", HEARD),
        "average_increase": Meaning("average increase", "percent of the sounds that the part makes surer", HEARD),
        "average_drop": Meaning("average drop", "what an answer loses with the part alone, in percent", HEARD),
        "average_gain": Meaning("average gain", "what it wins with the part alone, in percent", HEARD),
        "faithfulness": Meaning("faithfulness", "what an answer loses without the part", HEARD),
        "kept_loss": Meaning("loss of the part", "what an answer loses with the part alone", HEARD),
        "sparseness": Meaning("sparseness", "Gini index of the mask, from 0 to 1", HEARD),
        "complexity": Meaning("complexity", "entropy of the mask; less is simpler", HEARD),
    }

    def head_options(self) -> dict[str, Any]:
        scale = self.scale or (SCALE if self.weights is None else None)
        return {} if scale is None else {"scale": scale}

    def fit(self, how: Audio) -> Audio:
        return replace(how, seconds=self.seconds or how.seconds or SECONDS, input_size=self.size or how.input_size)

    def transform(self, how: Audio, signal: np.ndarray, *, train: bool) -> Tensor:
        return train_clip(how, signal, drop=self.augment == "drop") if train else how(signal)

    def logits(self, model: Network, signals: Tensor) -> Tensor:
        return model.options.scale * model(signals)

    def metric(self, spec: ModelSpec) -> Metric:
        return SoundMetric(self, spec)

    def render(self, model: Network, dataset: MapDataset, details: Mapping[str, Any]) -> list[Section]:
        how, names = model.spec.preprocessing, model.spec.classes
        samples, shots = self.shown(dataset, details, SHOWN), []
        for sample, prediction in zip(samples, self.predict(model, [s.signal for s in samples]), strict=True):
            truth = f"{names[sample.label]}; heard as {prediction.summary()}"
            clip = how.clip(np.asarray(sample.signal, np.float32))
            whole = draw_spectrogram(prediction.spectrogram)
            shots += [
                Shot(whole, truth, sample.path, sound=wav(clip / max(np.abs(clip).max(), 1e-9), how.sample_rate)),
                Shot(prediction.draw_mask(), "what it listened to", "the rest in grey", sound=prediction.heard_file()),
            ]
        text = "The clip, and the tenth of its spectrogram where the modulator of the last block is longest."
        return [*class_sections(details, names, "sound"), Section(HEARD, text, gallery=shots, columns=2)]

    def explained(self, model: Network, signal: np.ndarray) -> Image:
        return self.predict(model, [signal])[0].draw(signal)

    def predict(self, model: Network, signals: Sequence[np.ndarray]) -> list["SoundPrediction"]:
        how, weight = model.spec.preprocessing, next(model.parameters())
        names = class_names(model.spec)
        predictions = []
        for signal in signals:  # sounds differ in length
            wave = how(signal)[None].to(weight)
            with torch.inference_mode():
                (probabilities,) = model.postprocess(model(wave))
                parts = [model.spectrogram(wave)]
                if not hasattr(model, "exported"):  # a file tells the answer alone
                    parts += [mask := model.interpret(wave), model.play(wave, mask)]
            answer = ClassPrediction.from_probabilities(probabilities.cpu(), names)
            arrays = [(one if one.dtype == torch.bool else one.float())[0].cpu().numpy() for one in parts]
            predictions.append(SoundPrediction(answer.top, how.sample_rate, *arrays))
        return predictions


@dataclass(frozen=True)
class SoundPrediction(ClassPrediction):
    """What a classifier says of one sound, and what it listened to.

    Attributes:
        sample_rate: of `heard`, in samples per second.
        spectrogram: (F, N), frames and frequencies.
        mask: (F, N), bool, what it listened to; None where a file computed the answer.
        heard: (T,), the sound of that.
    """

    sample_rate: int
    spectrogram: np.ndarray
    mask: np.ndarray | None = None
    heard: np.ndarray | None = None

    def draw(self, signal: Any) -> Image:
        return annotate(self.draw_mask(), [f"{name}  {probability:.1%}" for name, probability in self.top])

    def draw_mask(self) -> Image:
        """The spectrogram, in color where it was listened to, if that is known."""
        return draw_spectrogram(self.spectrogram, self.mask)

    def heard_file(self) -> bytes:
        """`heard` as a WAV file."""
        assert self.heard is not None
        return wav(self.heard / max(float(np.abs(self.heard).max(initial=0)), 1e-9), self.sample_rate)

    def files(self) -> dict[str, bytes]:
        return {} if self.heard is None else {"heard.wav": self.heard_file()}


class SoundMetric(ClassificationMetric):
    """The figures of a classifier, and with `interpretation` those of what it listened to."""

    def __init__(self, task: Sound, spec: ModelSpec) -> None:
        super().__init__(spec, task.logits)
        self.interpretation = InterpretationMetric() if task.interpretation else None

    def update(self, model: Network, batch: Batch) -> None:
        super().update(model, batch)
        if self.interpretation is None:
            return
        waves = batch["images"][batch["index"] >= 0]
        if not len(waves):
            return
        mask = model.interpret(waves)
        spectrogram = model.spectrogram(waves)
        whole, part, rest = (
            torch.stack(model.postprocess(model.hear(heard)))
            for heard in (spectrogram, spectrogram * mask, spectrogram * ~mask)
        )
        self.interpretation.update(whole, part, rest, mask)

    def compute(self) -> dict[str, float]:
        more = {} if self.interpretation is None else self.interpretation.compute()
        return {**super().compute(), **more}
