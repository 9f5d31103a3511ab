"""Sound classification that shows what it hears (Della Libera et al., "Focal Modulation Networks for Interpretable
Sound Classification", 2402.02754).

The spectrogram of a clip is the image of an ordinary FocalNet, time from top to bottom. The mean of its last map goes
through batch norm and a linear layer to a small embedding; the answer is its cosine with one vector per class.

Nothing is trained for the interpretation: where the modulator of the last block is longest, there the network listens.
The tenth of the spectrogram with the longest modulators is kept, and can be played.

The original, a recipe of SpeechBrain, has the last map without LayerNorm, and cosines without a scale: a softmax over
them is nearly flat. `scale` is 1 as there.

Legend: B batch, T samples, F frames, N frequencies, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.backbone import FocalNetBase, Recompute
from focalnet.errors import UserError
from focalnet.inputs.audio import Audio
from focalnet.inputs.mel import waves_of_window
from focalnet.models.base import Network
from focalnet.modulation import capture, evaluating, strongest
from focalnet.ops.compiling import is_exporting
from focalnet.variants import FocalNetConfig

LOUDEST = 1e6
"""Most of a sample over the largest, which may be far smaller than the smallest is negative: squares stay finite."""


@dataclass(frozen=True, kw_only=True)
class SoundOptions:
    """Options of a `SoundFocalNet`."""

    embedding: int = 192
    """Numbers that a clip is described by."""
    scale: float = 1.0
    """What the cosines are multiplied by for the loss and the probabilities."""


class CosineHead(nn.Module):
    """BatchNorm, a linear layer, and the cosines with one vector per class (SpeechBrain's `Classifier`).

    Args:
        channels: of the features.
        embedding: of the vectors.
        num_classes: vectors.
    """

    def __init__(self, channels: int, embedding: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.linear = nn.Linear(channels, embedding)
        self.weight = nn.Parameter(torch.empty(num_classes, embedding))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels) -> (B, K), from -1 to 1."""
        return F.linear(F.normalize(self.linear(self.norm(features))), F.normalize(self.weight))


class SoundFocalNet(Network[Tensor]):
    """FocalNet for the classification of sounds.

    Args:
        architecture: of the backbone.
        num_classes: K.
        options: of the head.
        recompute: see `FocalNet`.
    """

    Options = SoundOptions
    backbone_prefix = "backbone."

    def __init__(
        self,
        architecture: FocalNetConfig,
        *,
        num_classes: int = 50,
        options: SoundOptions = SoundOptions(),
        recompute: Recompute = "none",
    ) -> None:
        super().__init__()
        self.options = options
        self.backbone = FocalNetBase(architecture, pad_odd=False, recompute=recompute)
        self.backbone.init_weights()
        self.norm = nn.LayerNorm(architecture.channels[-1]).requires_grad_(False)  # published, read by nothing
        self.head = CosineHead(architecture.channels[-1], options.embedding, num_classes)

    @property
    def audio(self) -> Audio:
        """How the network wants its sounds: `spec.preprocessing`, or the published way."""
        spec: Any = self.__dict__.get("spec")
        return spec.preprocessing if spec else Audio()

    def class_parameters(self) -> Iterator[str]:
        yield "head.weight"

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> Tensor:
        """The cosine of each clip with each class.

        Args:
            inputs: (B, T), waveforms at `audio.sample_rate`; any loudness.
            sizes: not needed: clips of a batch have one length.

        Returns:
            (B, K), from -1 to 1.

        Raises:
            UserError: no waveforms, or one clip alone while training.
        """
        return self.hear(self.spectrogram(inputs))

    def hear(self, spectrogram: Tensor) -> Tensor:
        """The cosines of spectrograms as `spectrogram` gives them, or of parts of them: (B, F, N) -> (B, K).

        Raises:
            UserError: one clip alone while training.
        """
        if self.training and len(spectrogram) == 1:
            raise UserError("the head normalises over the batch and cannot learn from one clip; use a batch size >= 2.")
        side, channels = self.audio.input_size, self.backbone.config.in_channels
        images = F.interpolate(
            spectrogram[:, None], size=(side, side), mode="bilinear", antialias=self.audio.antialias
        ).expand(-1, channels, -1, -1)
        return self.head(self.backbone.forward_stages(images)[-1].mean((1, 2)))

    def loss(self, inputs: Tensor, targets: Tensor, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """Cross-entropy of the scaled cosines, in float32, as `loss`.

        Args:
            inputs: as in `forward`.
            targets: (B,), int64, the classes, or (B, K), their probabilities.
            sizes: not needed.
        """
        return {"loss": F.cross_entropy(self.options.scale * self(inputs).float(), targets)}

    def postprocess(
        self, outputs: Tensor, sizes: Tensor | None = None, original_sizes: Tensor | None = None
    ) -> list[Tensor]:
        """Per clip the probabilities of the classes, (K,), float32."""
        return list((self.options.scale * outputs.float()).softmax(-1))

    def spectrogram(self, waves: Tensor) -> Tensor:
        """What the network sees of waveforms: log(1 + |spectrum|) of each clip divided by its largest value.

        Args:
            waves: (B, T).

        Returns:
            (B, T // hop_length + 1, n_fft // 2 + 1): time, frequency.
        """
        return self.audio.spectrogram(self._spectrum(waves))

    def _spectrum(self, waves: Tensor) -> Any:
        if waves.ndim != 2 or waves.shape[1] == 0:
            raise UserError(f"the model takes waveforms of shape (B, T), got {tuple(waves.shape)}.")
        largest = waves.amax(1, keepdim=True)
        scaled = (waves / largest.where(largest > 0, torch.ones_like(largest))).clamp(-LOUDEST, LOUDEST)
        return _convolved(self.audio, scaled) if is_exporting() else self.audio.spectrum(scaled)

    @torch.no_grad()
    def interpret(self, waves: Tensor, *, share: float = 0.1) -> Tensor:
        """Where the network listens: the cells of the spectrogram whose modulators in the last block are longest.

        Args:
            waves: (B, T).
            share: of the cells to keep.

        Returns:
            (B, F, N), bool.
        """
        spectrogram = self.spectrogram(waves)
        with evaluating(self), capture(self.backbone) as parts:
            self.hear(spectrogram)
        last = next(reversed(parts.values()))
        return strongest(last.modulator, spectrogram.shape[1:], share)

    @torch.no_grad()
    def play(self, waves: Tensor, mask: Tensor) -> Tensor:
        """The sound of the kept cells, with the phase of the whole.

        Args:
            waves: (B, T).
            mask: (B, F, N), bool or weights, for example of `interpret`.

        Returns:
            (B, hop_length · (F - 1)), as loud as `waves` divided by their largest values.
        """
        spectrum = self._spectrum(waves)
        kept = (mask * self.audio.spectrogram(spectrum)).expm1()
        return self.audio.waves(torch.polar(kept, spectrum.angle()))


class Spectrum(NamedTuple):
    """A complex tensor in two parts."""

    real: Tensor
    imag: Tensor


def _convolved(audio: Audio, waves: Tensor) -> Spectrum:
    """`Audio.spectrum` as one convolution with the window's sines and cosines, as no format has complex numbers."""
    before = (audio.n_fft - audio.win_length) // 2
    after = audio.n_fft - audio.win_length - before
    table = waves_of_window(audio.n_fft)[:, before : before + audio.win_length]
    window = 0.54 - 0.46 * np.cos(2 * np.pi / audio.win_length * np.arange(audio.win_length))
    waving = (table * torch.tensor(window)).to(waves)
    half = audio.n_fft // 2
    padded = F.pad(waves[:, None], (half - before, half - after))
    real, imaginary = F.conv1d(padded, waving[:, None], stride=audio.hop_length).transpose(1, 2).chunk(2, -1)
    return Spectrum(real, imaginary)
