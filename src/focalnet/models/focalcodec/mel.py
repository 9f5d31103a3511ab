"""Log-mel spectra: the encoder of the small codec, which has no weights.

Frames of `n_fft` samples under a Hann window, one every `hop`, the first around sample hop / 2; the length of their
Fourier transform in triangular bands of equal width on the mel scale, as a logarithm to the base of ten. The transform
is a convolution with a table of sines, which every format of exported files knows.

Legend: B batch, T samples, N frames, F bands.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.inputs.mel import triangles, waves_of_window

LEAST = 1e-5
"""What a band has at least, before the logarithm."""


def mel_bands(bands: int, n_fft: int, sample_rate: int, highest: float | None = None) -> Tensor:
    """(bands, n_fft / 2 + 1): triangles over the frequencies, from 0 to `highest` Hz, by default half the rate."""
    most = 2595 * torch.log10(torch.tensor(1 + (highest or sample_rate / 2) / 700, dtype=torch.float64))
    corners = 700 * (10 ** (torch.linspace(0, 1, bands + 2, dtype=torch.float64) * most / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    return triangles(corners, frequencies).float()


class LogMel(nn.Module):
    """Waves to log-mel spectra.

    Args:
        bands: F.
        hop: samples per frame.
        n_fft: samples of a transform.
        sample_rate: samples per second.
    """

    basis: Tensor
    bands: Tensor

    def __init__(self, bands: int = 80, *, hop: int = 320, n_fft: int = 1024, sample_rate: int = 16000) -> None:
        super().__init__()
        self.frame, self.n_fft = hop, n_fft
        window = torch.hann_window(n_fft, dtype=torch.float64)
        self.register_buffer("basis", (waves_of_window(n_fft) * window).float()[:, None], persistent=False)
        self.register_buffer("bands", mel_bands(bands, n_fft, sample_rate), persistent=False)

    def frames(self, samples: Any) -> Any:
        """Frames of a sound of so many samples, a number or a tensor of them."""
        return -(-samples // self.frame)

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, N, F), N = ⌈T / hop⌉; `lengths` are not needed."""
        around = (self.n_fft - self.frame) // 2
        behind = self.n_fft - self.frame - around + -waves.shape[1] % self.frame
        real, imaginary = F.conv1d(F.pad(waves, (around, behind))[:, None], self.basis, stride=self.frame).chunk(2, 1)
        length = (real.square() + imaginary.square() + 1e-12).sqrt()
        return (self.bands @ length).clamp(min=LEAST).log10().mT
