"""Classification of films: what moves how (Video-FocalNets, Wasim et al. 2023, 2307.06947).

Some frames, spread over a film, are seen at once. With `tta` the probabilities of four draws of frames, each in three
crops along the longer side, are averaged, as in the published figures; there the frames are drawn at random, here from
an eighth, three, five and seven eighths of each part of the film.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torchvision import tv_tensors

from focalnet.data import Datasets
from focalnet.data.transforms.films import train_film
from focalnet.data.transforms.mixup import MixupCutmix
from focalnet.errors import UserError
from focalnet.inputs.films import Film, Video
from focalnet.inputs.image import pixels_of
from focalnet.modulation import capture
from focalnet.tasks.base import MapDataset, Meaning, Network, Section
from focalnet.tasks.classes import ClassTask
from focalnet.tasks.classify import ClassPrediction, accuracy_meanings
from focalnet.tasks.figures import class_names, class_sections
from focalnet.tasks.signal_options import VideoOptions
from focalnet.visualize.draw import annotate
from focalnet.visualize.page import Shot
from focalnet.visualize.signals import film_strip, heat_maps

SHOWN = 4
"""Films in the report."""
PLACES = (1 / 8, 3 / 8, 5 / 8, 7 / 8)
"""Of the frames in each part of a film, with `tta`."""


@dataclass(frozen=True, kw_only=True)
class VideoTask(VideoOptions, ClassTask):
    """Classification of films."""

    meanings: ClassVar[Mapping[str, Meaning]] = accuracy_meanings("films")

    def build_model(self, data: Datasets) -> Network:
        model: Any = super().build_model(data)
        if self.temporal_gates == "open" and self.weights is None:
            model.open_temporal_gates()
        return model

    def fit(self, how: Video) -> Video:
        return replace(how, frames=self.frames or how.frames, input_size=self.image_size or how.input_size)

    def transform(self, how: Video, signal: Film, *, train: bool) -> Tensor:
        if train:
            return train_film(how, signal, self.augment)
        return views(how, signal) if self.tta else how(signal)

    def mix(self, signals: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        mixup, cutmix = self.mixing
        mix = MixupCutmix(
            mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=self.label_smoothing, num_classes=classes
        )
        films, targets = mix(tv_tensors.Video(signals), labels)
        return films.as_subclass(Tensor), targets

    def logits(self, model: Network, signals: Tensor) -> Tensor:
        if signals.ndim == 5:
            return model(signals)
        each = [model(films).float().softmax(-1) for films in signals]  # the views of one film at a time
        return torch.stack([shares.mean(0) for shares in each]).log()

    def explained(self, model: Network, signal: Film) -> Image:
        return explain_film(model, signal)

    def predict(self, model: Network, signals: Sequence[Film]) -> list[ClassPrediction]:
        how, names = model.spec.preprocessing, class_names(model.spec)
        shown = [film.take(how.numbers(len(film))) for film in signals]
        seen = [views(how, film) for film in signals] if self.tta else [how.seen(frames) for frames in shown]
        with torch.inference_mode():
            logits = self.logits(model, torch.stack(seen).to(next(model.parameters())))
            probabilities = logits.float().softmax(-1).cpu()
        return [
            FilmPrediction(ClassPrediction.from_probabilities(row, names).top, tuple(frames))
            for row, frames in zip(probabilities, shown, strict=True)
        ]

    def render(self, model: Network, dataset: MapDataset, details: Mapping[str, Any]) -> list[Section]:
        names = model.spec.classes
        samples, shots = self.shown(dataset, details, SHOWN), []
        for sample, prediction in zip(samples, self.predict(model, [s.signal for s in samples]), strict=True):
            shots.append(Shot(explain_film(model, sample.signal), f"{names[sample.label]}; {prediction.summary()}",
                              sample.path))  # fmt: skip
        text = (
            "Frames of a film; below, how long the modulator of the last block is at each position: over space, and "
            "over time."
        )
        return [
            *class_sections(details, names, "video"),
            Section("Where and when it looks", text, gallery=shots, columns=1),
        ]


@dataclass(frozen=True)
class FilmPrediction(ClassPrediction):
    """What a classifier says of one film.

    Attributes:
        frames: what it saw.
    """

    frames: tuple[Image, ...]

    def draw(self, signal: Any) -> Image:
        return annotate(film_strip(self.frames), [f"{name}  {probability:.1%}" for name, probability in self.top])


def views(how: Video, film: Film) -> Tensor:
    """Twelve views of a film: (12, frames, 3, H, W)."""
    still, found = how.still, []
    taken = film.take([number for place in PLACES for number in how.numbers(len(film), place)])
    for frames in (taken[start : start + how.frames] for start in range(0, len(taken), how.frames)):
        covering = torch.stack([still.covering(pixels_of(frame), still.size) for frame in frames])
        height, width = covering.shape[2:]
        side = how.input_size
        for share in (0.0, 0.5, 1.0):
            top, left = int(share * (height - side)), int(share * (width - side))
            found.append(still.normalize(covering[:, :, top : top + side, left : left + side]))
    return torch.stack(found)


def explain_film(model: Network, film: Film) -> Image:
    """The frames that a network saw, and where and when it looked: a strip of images.

    Raises:
        UserError: the network is none for films.
    """
    how = model.spec.preprocessing
    if not isinstance(how, Video):
        raise UserError(f"films are explained by networks for films, and this one takes {how.kind}.")
    frames = film.take(how.numbers(len(film)))
    with torch.no_grad(), capture(model) as parts:
        model(how.seen(frames)[None].to(next(model.parameters())))
    last: Any = next(reversed(parts.values()))  # of both factors
    rows = [heat_maps(_lengths(values, len(frames))) for values in (last.modulator, last.temporal.modulator)]
    return film_strip(frames, rows)


def _lengths(modulator: Tensor, frames: int) -> np.ndarray:
    """(frames, h, w): the length of a modulator (1, T, h, w, C) at each frame."""
    lengths = modulator[0].float().norm(dim=-1)
    return lengths.repeat_interleave(frames // len(lengths), 0).cpu().numpy()
