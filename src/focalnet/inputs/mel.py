"""Log-mel spectrograms of waveforms, differentiable, as HiFi-GAN and its successors measure speech; and their pieces.

spectrum   short-time Fourier transform under a Hann window, centred, mirrored at the ends
mel        magnitudes under `mels` triangles that are equally far apart on Slaney's mel scale, each of area 1
log-mel    its natural logarithm, from 1e-5 on
"""

import math
from functools import cache

import torch
from torch import Tensor

LEAST = 1e-5
LINEAR, STEP, LOG_STEP = 1000.0, 200 / 3, math.log(6.4) / 27
"""Slaney's scale: linear up to so many Hz, a mel every so many; logarithmic above."""


def log_mel(
    waves: Tensor, sample_rate: int, *, mels: int = 80, n_fft: int = 1024, hop: int = 320, highest: float = 8000.0
) -> Tensor:
    """(B, T) -> (B, T // hop + 1, mels).

    Args:
        waves: from -1 to 1; what is shorter than half a transform is followed by silence.
        sample_rate: samples per second.
        mels: how many bands.
        n_fft: samples of one transform, and of its window.
        hop: samples from one transform to the next.
        highest: frequency in Hz; half the sample rate where that is less.
    """
    least = n_fft // 2 + 1
    if waves.shape[-1] < least:
        waves = torch.nn.functional.pad(waves, (0, least - waves.shape[-1]))
    window = torch.hann_window(n_fft, dtype=waves.dtype, device=waves.device)
    spectrum = torch.stft(waves, n_fft, hop, n_fft, window, pad_mode="reflect", return_complex=True)
    bands = _triangles(sample_rate, n_fft, mels, min(highest, sample_rate / 2)).to(waves)
    return (spectrum.abs().transpose(1, 2) @ bands).clamp(min=LEAST).log()


@cache
def _triangles(sample_rate: int, n_fft: int, mels: int, highest: float) -> Tensor:
    """(n_fft // 2 + 1, mels), the weight of each frequency in each band."""
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    edges = _hertz(torch.linspace(0, _mel(highest), mels + 2, dtype=torch.float64))
    return (triangles(edges, frequencies).T * 2 / (edges[2:] - edges[:-2])).float()


def triangles(corners: Tensor, frequencies: Tensor) -> Tensor:
    """(bands, F): the height at each frequency of triangles of height 1 from one corner to the next but one."""
    slopes = frequencies - corners[:, None]
    rising = slopes[:-2] / (corners[1:-1] - corners[:-2])[:, None]
    falling = -slopes[2:] / (corners[2:] - corners[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


def waves_of_window(n_fft: int) -> Tensor:
    """(2 (n_fft / 2 + 1), n_fft), float64: cosines, then negative sines, of a Fourier transform of real numbers."""
    angles = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * torch.arange(n_fft, dtype=torch.float64)
    angles = angles * (2 * torch.pi / n_fft)
    return torch.cat([angles.cos(), -angles.sin()])


def _mel(hertz: float) -> float:
    return hertz / STEP if hertz < LINEAR else LINEAR / STEP + math.log(hertz / LINEAR) / LOG_STEP


def _hertz(mels: Tensor) -> Tensor:
    above = LINEAR * ((mels - LINEAR / STEP) * LOG_STEP).exp()
    return torch.where(mels < LINEAR / STEP, mels * STEP, above)
