"""Decoders: features to sound.

    Vocos     (Siuzdak 2023, 2306.00814)    ConvNeXt blocks -> magnitude, phase -> inverse Fourier transform, overlapped
    WaveNeXt  (Okamoto et al. 2023)         ConvNeXt blocks -> the samples of a frame, a linear layer

Both have one backbone: a convolution, LayerNorm, blocks, LayerNorm. A causal backbone looks back only; before the first
frame Vocos repeats it, WaveNeXt has zeros. A causal Vocos takes the last samples of each transform, without overlap.

The inverse transform is a transposed convolution with a table of sines, the window multiplied in; that of the squared
window is what the overlapped frames are divided by. So no complex number is needed, and every format of exported files
knows the steps.

Legend: B batch, N frames, C channels, T samples.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.inputs.mel import waves_of_window
from focalnet.models.focalcodec.focal import joined
from focalnet.models.focalcodec.options import DecoderOptions
from focalnet.ops import convolve

LOUDEST = 100.0
"""Most that a magnitude of Vocos may be."""


class ConvNeXtBlock(nn.Module):
    """Depth-wise convolution, LayerNorm, linear, GELU, linear, scaled per channel, around a shortcut."""

    def __init__(self, dim: int, ffn_dim: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, ffn_dim)
        self.pwconv2 = nn.Linear(ffn_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(B, N, C), and the same with the frames around that the kernel reaches -> (B, N, C)."""
        y = self.norm(self.dwconv(seen.mT).mT)
        return x + self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))


class Backbone(nn.Module):
    """A convolution and ConvNeXt blocks."""

    def __init__(self, in_dim: int, options: DecoderOptions, *, causal: bool, zeros: bool) -> None:
        super().__init__()
        scale = 1 / options.layers if options.layerscale is None else options.layerscale
        self.reach, self.causal, self.zeros = options.kernel - 1, causal, zeros
        self.embedding = nn.Conv1d(in_dim, options.dim, options.kernel)
        self.input_norm = nn.LayerNorm(options.dim, eps=1e-6)
        self.layers = nn.ModuleList(
            ConvNeXtBlock(options.dim, options.ffn_dim, options.kernel, scale) for _ in range(options.layers)
        )
        self.output_norm = nn.LayerNorm(options.dim, eps=1e-6)

    def forward(self, x: Tensor, past: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, N, C) -> (B, N, C'), and the past of the next frames, k - 1 of each convolution; () if not causal."""
        seen, kept = self._around(x, past, 0)
        x = self.input_norm(convolve(seen, self.embedding.weight, self.embedding.bias))
        states = kept
        for index, layer in enumerate(self.layers):
            seen, kept = self._around(x, past, index + 1)
            x = layer(x, seen)
            states += kept
        return self.output_norm(x), states

    def _around(self, x: Tensor, past: Sequence[Tensor] | None, index: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        if not self.causal:
            left = self.reach // 2
            return F.pad(x, (0, 0, left, self.reach - left)), ()
        seen, kept = joined(x, None if past is None else past[index], self.reach, zeros=self.zeros)
        return seen, (kept,)


class _Decoder(nn.Module):
    backbone: Backbone
    head: nn.Module

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, F) -> (B, hop N)."""
        return self.head(self.backbone(features)[0])

    def stream(self, features: Tensor, past: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The samples of the next frames, and the past of those after them, if causal."""
        x, kept = self.backbone(features, past)
        return self.head(x), kept


class FourierHead(nn.Module):
    """Magnitude and phase of each frame, and the sound that they are of."""

    synthesis: Tensor
    envelope: Tensor

    def __init__(self, options: DecoderOptions, *, causal: bool) -> None:
        super().__init__()
        self.n_fft, self.hop, self.causal = options.n_fft, options.hop, causal
        self.proj = nn.Linear(options.dim, options.n_fft + 2)
        window = torch.hann_window(options.n_fft, dtype=torch.float64)
        counts = torch.full((options.n_fft // 2 + 1, 1), 2 / options.n_fft, dtype=torch.float64)
        counts[0] = counts[-1] = 1 / options.n_fft  # all other frequencies stand for two
        table = waves_of_window(options.n_fft) * counts.repeat(2, 1)
        table = table[:, -options.hop :] if causal else table * window
        self.register_buffer("synthesis", table.float()[:, None], persistent=False)
        self.register_buffer("envelope", window.square().float()[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, hop N)."""
        magnitude, phase = self.proj(x).chunk(2, -1)
        magnitude = magnitude.exp().clamp(max=LOUDEST)
        spectra = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], -1)
        if self.causal:
            return (spectra @ self.synthesis[:, 0]).flatten(1)
        waves = F.conv_transpose1d(spectra.mT, self.synthesis, stride=self.hop)
        weight = F.conv_transpose1d(torch.ones_like(spectra[:1, :, :1]).mT, self.envelope, stride=self.hop)
        around = (self.n_fft - self.hop) // 2
        inside = slice(around, waves.shape[2] - around)  # at the ends the window is 0, and so is the weight
        return waves[:, 0, inside] / weight[:, 0, inside]


class Vocos(_Decoder):
    """Spectra, and their inverse transform.

    Args:
        in_dim: channels of the features.
        options: widths.
        causal: look back only.
    """

    def __init__(self, in_dim: int, options: DecoderOptions, *, causal: bool) -> None:
        super().__init__()
        self.backbone = Backbone(in_dim, options, causal=causal, zeros=False)
        self.head = FourierHead(options, causal=causal)


class SampleHead(nn.Module):
    """The samples of each frame, from -1 to 1."""

    def __init__(self, options: DecoderOptions) -> None:
        super().__init__()
        self.proj = nn.Linear(options.dim, options.hop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, hop N)."""
        return self.proj(x).flatten(1).clamp(-1, 1)


class WaveNeXt(_Decoder):
    """The samples themselves. Arguments as of `Vocos`."""

    def __init__(self, in_dim: int, options: DecoderOptions, *, causal: bool) -> None:
        super().__init__()
        self.backbone = Backbone(in_dim, options, causal=causal, zeros=True)
        self.head = SampleHead(options)


DECODERS: dict[str, Any] = {"vocos": Vocos, "wavenext": WaveNeXt}
