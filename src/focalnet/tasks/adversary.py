"""What a decoder of speech is trained against, as HiFi-GAN (Kong et al. 2020, 2010.05646) with hinge losses.

    periods   every p-th sample in a row of its own, p = 2, 3, 5, 7, 11, convolved along the rows
    scales    the wave itself, and averaged over 2 and 4 samples

    discriminators   sum over all of mean max(0, 1 - D(wave)) + mean max(0, 1 + D(decoded))
    decoder          sum over all of mean max(0, 1 - D(decoded)), + 54 x the mean difference of all features inside D,
                     + 45 x the mean difference of log-mels

The weights 54 and 45, and the sums, are those of SpeechBrain's recipe for FocalCodec; from HiFi-GAN is the padding with
zeros, where SpeechBrain mirrors.

Legend: B batch, T samples.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from focalnet.inputs.mel import log_mel

PERIODS = (2, 3, 5, 7, 11)
SCALES = 3
SLOPE = 0.1
"""Of the leaky ReLU below zero."""
MATCHING, MEL = 54.0, 45.0
"""Weights of the difference of features and of log-mels."""
LEAST_CHANNELS = 4


class Judgement(NamedTuple):
    """What one discriminator says: of a wave its scores (B, S), and its feature maps."""

    scores: Tensor
    features: list[Tensor]


class PeriodDiscriminator(nn.Module):
    """Judges every `period`-th sample.

    Args:
        period: p.
        share: of the published numbers of channels.
    """

    def __init__(self, period: int, share: float = 1.0) -> None:
        super().__init__()
        self.period = period
        dims = [1, *(_channels(dim, share) for dim in (32, 128, 512, 1024, 1024))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(dims[i], dims[i + 1], (5, 1), (3 if i < 4 else 1, 1), (2, 0))) for i in range(5)
        )
        self.layers.append(weight_norm(nn.Conv2d(dims[-1], 1, (3, 1), padding=(1, 0))))

    def forward(self, waves: Tensor) -> Judgement:
        """Judge (B, 1, T)."""
        rows = F.pad(waves, (0, -waves.shape[-1] % self.period), "reflect").unflatten(-1, (-1, self.period))
        return _judged(self.layers, rows)


class ScaleDiscriminator(nn.Module):
    """Judges a wave.

    Args:
        share: of the published numbers of channels.
        spectral: divide the weights by their largest singular value, instead of learning their lengths.
    """

    def __init__(self, share: float = 1.0, *, spectral: bool = False) -> None:
        super().__init__()
        norm = spectral_norm if spectral else weight_norm
        rows = (
            *((128, 15, 1, 1), (128, 41, 2, 4), (256, 41, 2, 16), (512, 41, 4, 16)),
            *((1024, 41, 4, 16), (1024, 41, 1, 16), (1024, 5, 1, 1)),
        )
        self.layers, before = nn.ModuleList(), 1
        for channels, kernel, stride, groups in rows:
            dim = _channels(channels, share)
            shared = math.gcd(groups, before, dim)
            self.layers.append(norm(nn.Conv1d(before, dim, kernel, stride, kernel // 2, groups=shared)))
            before = dim
        self.layers.append(norm(nn.Conv1d(before, 1, 3, padding=1)))

    def forward(self, waves: Tensor) -> Judgement:
        """Judge (B, 1, T)."""
        return _judged(self.layers, waves)


class Discriminators(nn.Module):
    """All of them; 70.7 million parameters with the published numbers of channels.

    Args:
        share: of these numbers.
    """

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period, share) for period in PERIODS)
        self.scales = nn.ModuleList(ScaleDiscriminator(share, spectral=scale == 0) for scale in range(SCALES))

    def forward(self, waves: Tensor) -> list[Judgement]:
        """Judge (B, T), at least 12 samples."""
        waves = waves[:, None]
        found = [judge(waves) for judge in self.periods]
        for number, judge in enumerate(self.scales):
            waves = F.avg_pool1d(waves, 4, 2, 2) if number else waves
            found.append(judge(waves))
        return found

    def loss(self, real: Tensor, decoded: Tensor) -> dict[str, Tensor]:
        """What they want to be small.

        Args:
            real: (B, T).
            decoded: (B, T); no gradient goes to it.
        """
        fake = [(1 + judgement.scores).clamp(min=0).mean() for judgement in self(decoded.detach())]
        true = [(1 - judgement.scores).clamp(min=0).mean() for judgement in self(real)]
        return {"loss": torch.stack(fake + true).sum()}


def decoder_loss(discriminators: Discriminators, real: Tensor, decoded: Tensor, sample_rate: int) -> dict[str, Tensor]:
    """What the decoder wants to be small, and its terms, not weighted.

    Args:
        discriminators: the weights of which get no gradients.
        real, decoded: (B, T).
        sample_rate: of both.
    """
    with _fixed(discriminators):
        judged = discriminators(decoded)
        with torch.no_grad():
            wanted = discriminators(real)
    hinge = torch.stack([(1 - judgement.scores).clamp(min=0).mean() for judgement in judged]).sum()
    pairs = [pair for ours, theirs in zip(judged, wanted, strict=True) for pair in _pairs(ours, theirs)]
    matching = torch.stack([F.l1_loss(*pair) for pair in pairs]).mean()
    mel = F.l1_loss(log_mel(decoded.float(), sample_rate), log_mel(real.float(), sample_rate))
    loss = hinge + MATCHING * matching + MEL * mel
    return {"loss": loss, "hinge": hinge, "matching": matching, "mel": mel}


def _pairs(ours: Judgement, theirs: Judgement) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(ours.features, theirs.features, strict=True)


def _judged(layers: Sequence[nn.Module] | nn.ModuleList, values: Tensor) -> Judgement:
    """Features after every layer, of which the last gives the scores."""
    features = []
    for number, layer in enumerate(layers, 1):
        values = layer(values)
        if number < len(layers):
            values = F.leaky_relu(values, SLOPE)
        features.append(values)
    return Judgement(values.flatten(1), features)


def _channels(published: int, share: float) -> int:
    return max(round(published * share), LEAST_CHANNELS)


@contextmanager
def _fixed(module: nn.Module) -> Iterator[None]:
    """The weights of a module are no part of the graph that is built meanwhile."""
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
