"""Compressor and decompressor: focal blocks that make fewer frames of many, and many of few.

    compressor      per stage: convolution of kernel = stride = r, Snake, focal block; at the end a linear layer to the
                    latents, which are normalized
    decompressor    a linear layer from the codes; per stage: focal block, Snake, transposed convolution of r

A focal block is that of the FocalNet on one axis, with focal modulation whose convolutions have biases. A causal one
(FocalCodec-Stream) has `CausalFocalModulation`, and tanh(α x) with one learned α for a norm; at its end, the
decompressor refines the frames of a group together.

Every part has `forward` for a whole sequence. What is causal has `stream` besides: the next part of a sequence, and the
past that the call before returned, None at the beginning. On the left of its first frame a convolution repeats it.

Legend: B batch, N frames, C channels, d bits, r factor of a stage.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from focalnet.models.focalcodec.options import FocalOptions
from focalnet.modulation import CausalFocalModulation, FocalModulation
from focalnet.ops import convolve, linear

MLP_RATIO = 4
Past = tuple[Tensor, ...]
"""Of a block: the frame before the (de)scaling convolution, or its r - 1 last ones, and what its modulation read."""


class DynamicTanh(nn.Module):
    """tanh(α x), with one number α (Zhu et al. 2025, 2503.10622)."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), scale))

    def forward(self, x: Tensor) -> Tensor:
        return (self.alpha * x).tanh()


class Snake(nn.Module):
    """x + sin²(α x) / α, with one α per channel (Ziyin et al. 2020, 2006.08195)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha.mT
        return x + (alpha * x).sin().square() / (alpha + 1e-9)


class FeedForward(nn.Module):
    """Linear, GELU, linear; with `group`, over that many frames at once, the last group filled up with zeros."""

    def __init__(self, dim: int, hidden_dim: int, group: int = 1) -> None:
        super().__init__()
        self.group = group
        self.in_proj = nn.Linear(group * dim, hidden_dim)
        self.out_proj = nn.Linear(hidden_dim, group * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        if self.group == 1:
            return self.out_proj(F.gelu(self.in_proj(x)))
        frames = x.shape[1]
        groups = F.pad(x, (0, 0, 0, -frames % self.group)).unflatten(1, (-1, self.group)).flatten(2)
        y = self.out_proj(F.gelu(self.in_proj(groups)))
        return y.unflatten(2, (self.group, -1)).flatten(1, 2)[:, :frames]


class FocalBlock(nn.Module):
    """Norm and focal modulation, norm and feed-forward, each around a shortcut.

    Args:
        dim: C.
        options: of the compressor or decompressor.
        causal: look back only.
        window: of the last level, if causal.
        recompute: see `FocalNet`.
    """

    def __init__(self, dim: int, options: FocalOptions, *, causal: bool, window: int, recompute: str = "none") -> None:
        super().__init__()
        levels: dict[str, Any] = {
            "focal_level": options.focal_levels, "focal_window": options.focal_window,
            "focal_factor": options.focal_factor, "focal_bias": True,
            "normalize_modulator": options.normalize_modulator, "use_postln_in_modulation": options.post_norm,
        }  # fmt: skip
        self.post_norm, self.recompute = options.post_norm, recompute
        self.modulation_norm: nn.Module
        self.feed_forward_norm: nn.Module
        if causal:
            self.modulation: Any = CausalFocalModulation(dim, global_window=window, **levels)
            self.modulation_norm, self.feed_forward_norm, inner = (DynamicTanh(options.tanh_scale) for _ in range(3))
            self.modulation.ln = inner if options.post_norm else None
        else:
            self.modulation = FocalModulation(dim, spatial_dims=1, **levels)
            self.modulation_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.modulation.recompute = recompute == "context"
        self.feed_forward = FeedForward(dim, MLP_RATIO * dim)
        self.modulation_gamma = self.feed_forward_gamma = None
        if options.layerscale is not None:
            self.modulation_gamma = nn.Parameter(torch.full((dim,), options.layerscale))
            self.feed_forward_gamma = nn.Parameter(torch.full((dim,), options.layerscale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        if self.recompute == "block" and self.training:
            return checkpoint(self._whole, x, use_reentrant=False)
        return self._whole(x)

    def _whole(self, x: Tensor) -> Tensor:
        return self._finish(x, self.modulation(x if self.post_norm else self.modulation_norm(x)))

    def stream(self, x: Tensor, past: Sequence[Tensor] | None) -> tuple[Tensor, Past]:
        """The next frames of a sequence, if causal."""
        y, kept = self.modulation.stream(x if self.post_norm else self.modulation_norm(x), past)
        return self._finish(x, y), kept

    def _finish(self, x: Tensor, modulated: Tensor) -> Tensor:
        y = self.modulation_norm(modulated) if self.post_norm else modulated
        x = x + (y if self.modulation_gamma is None else y * self.modulation_gamma)
        norm, mix = self.feed_forward_norm, self.feed_forward
        y = norm(mix(x)) if self.post_norm else mix(norm(x))
        return x + (y if self.feed_forward_gamma is None else y * self.feed_forward_gamma)


class DownScale(nn.Module):
    """A convolution of kernel = stride = `factor`, then Snake.

    (N - r) mod r zeros stand behind the last frame, as in the published code: they fill up its group where r is 2; a
    longer group may lose its rest. If causal, a group ends with its last frame: r - 1 frames stand before the first.
    """

    def __init__(self, in_dim: int, out_dim: int, factor: int, causal: bool) -> None:
        super().__init__()
        self.factor, self.causal = factor, causal
        self.downscale = nn.Conv1d(in_dim, out_dim, factor, factor)
        self.activation = Snake(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, `count(N)`, C')."""
        if self.causal:
            return self.stream(x, None)[0]
        return self._scale(F.pad(x, (0, 0, 0, self._missing(x.shape[1]))) if self.factor > 1 else x)

    def count(self, frames: int) -> int:
        """How many frames it makes of so many."""
        return -(-frames // self.factor) if self.causal else (frames + self._missing(frames)) // self.factor

    def _missing(self, frames: int) -> int:
        few = 0 if torch.compiler.is_compiling() else self.factor - frames
        return max((frames - self.factor) % self.factor, few)

    def stream(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next frames, if causal."""
        seen, past = joined(x, past, self.factor - 1)
        return self._scale(seen), past

    def _scale(self, x: Tensor) -> Tensor:
        return self.activation(convolve(x, self.downscale.weight, self.downscale.bias, stride=self.factor))


class UpScale(nn.Module):
    """Snake, then a transposed convolution of kernel = stride = `factor`."""

    def __init__(self, in_dim: int, out_dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.activation = Snake(in_dim)
        self.upscale = nn.ConvTranspose1d(in_dim, out_dim, factor, factor)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, r N, C')."""
        y, kernel = self.activation(x), self.upscale.weight
        return linear(y, kernel[..., 0].T, self.upscale.bias) if self.factor == 1 else self.upscale(y.mT).mT

    def stream(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next frames. Nothing of the past reaches them; it is kept as the published code keeps it."""
        return self(x), joined(x, past, self.factor - 1)[1]


def joined(x: Tensor, past: Tensor | None, reach: int, *, zeros: bool = False) -> tuple[Tensor, Tensor]:
    """Frames with the `reach` frames before them, and those before the next ones.

    Args:
        x: (B, N, C).
        past: what the call before returned, (B, max(reach, 1), C); None at the beginning, where the first frame is
            repeated, or `zeros` stand.
        reach: of 0, one frame is kept that nothing reads.
    """
    if past is None:
        past = x[:, :1].expand(-1, max(reach, 1), -1)
        past = torch.zeros_like(past) if zeros else past
    seen = torch.cat([past, x], 1)
    return seen[:, past.shape[1] - reach :], seen[:, seen.shape[1] - past.shape[1] :]


class CompressorStage(nn.Module):
    """Fewer frames, then a focal block."""

    def __init__(
        self, in_dim: int, dim: int, factor: int, options: FocalOptions, *, causal: bool, window: int, recompute: str
    ) -> None:
        super().__init__()
        self.downscale = DownScale(in_dim, dim, factor, causal)
        self.focal_block = FocalBlock(dim, options, causal=causal, window=window, recompute=recompute)

    def forward(self, x: Tensor) -> Tensor:
        return self.focal_block(self.downscale(x))

    def stream(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        x, first = self.downscale.stream(x, None if past is None else past[0])
        x, rest = self.focal_block.stream(x, None if past is None else past[1:])
        return x, (first, *rest)


class DecompressorStage(nn.Module):
    """A focal block, then more frames."""

    def __init__(self, dim: int, out_dim: int, factor: int, options: FocalOptions, **block: Any) -> None:
        super().__init__()
        self.focal_block = FocalBlock(dim, options, **block)
        self.upscale = UpScale(dim, out_dim, factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.upscale(self.focal_block(x))

    def stream(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        x, rest = self.focal_block.stream(x, None if past is None else past[:-1])
        x, last = self.upscale.stream(x, None if past is None else past[-1])
        return x, (*rest, last)


class _Stages(nn.Module):
    layers: nn.ModuleList

    def _run(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def _stream(self, x: Tensor, past: Sequence[Past] | None) -> tuple[Tensor, tuple[Past, ...]]:
        kept = []
        for index, layer in enumerate(self.layers):
            stage: Any = layer
            x, state = stage.stream(x, None if past is None else past[index])
            kept.append(state)
        return x, tuple(kept)


class Compressor(_Stages):
    """Features to latents.

    Args:
        in_dim: channels of the features.
        bits: d.
        factors: r of each stage.
        options: dims, and options of the blocks.
        causal: look back only.
        recompute: see `FocalNet`.
    """

    def __init__(
        self, in_dim: int, bits: int, factors: Sequence[int], options: FocalOptions, *, causal: bool, recompute: str
    ) -> None:
        super().__init__()
        windows = _windows(options)
        self.layers = nn.ModuleList(
            CompressorStage(a, b, factor, options, causal=causal, window=window, recompute=recompute)
            for a, b, factor, window in zip((in_dim, *options.dims), options.dims, factors, windows, strict=False)
        )
        self.out_proj = nn.Linear(options.dims[-1], bits)

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, F) -> (B, `count(N)`, d), each latent of length 1."""
        return F.normalize(self.out_proj(self._run(features)), dim=-1)

    def count(self, frames: int) -> int:
        """How many latents it makes of so many frames, at least 1: N / r, rounded up where every r is 1 or 2."""
        for layer in self.layers:
            stage: Any = layer
            frames = stage.downscale.count(frames)
        return frames

    def stream(self, features: Tensor, past: Sequence[Past] | None = None) -> tuple[Tensor, tuple[Past, ...]]:
        """The latents of the next frames, and the past of those after them."""
        x, kept = self._stream(features, past)
        return F.normalize(self.out_proj(x), dim=-1), kept


class Decompressor(_Stages):
    """Codes to features.

    Args:
        bits: d.
        out_dim: channels of the features.
        factors: r of each stage.
        options: dims, and options of the blocks.
        causal: look back only.
        recompute: see `FocalNet`.
    """

    def __init__(
        self, bits: int, out_dim: int, factors: Sequence[int], options: FocalOptions, *, causal: bool, recompute: str
    ) -> None:
        super().__init__()
        dims, windows = (*options.dims, out_dim), _windows(options)
        self.in_proj = nn.Linear(bits, dims[0])
        self.layers = nn.ModuleList(
            DecompressorStage(a, b, factor, options, causal=causal, window=window, recompute=recompute)
            for a, b, factor, window in zip(dims, dims[1:], factors, windows, strict=False)
        )
        group = options.lookahead + 1 if causal else 1
        self.refiner = FeedForward(out_dim, group * out_dim, group) if group > 1 else None

    def forward(self, codes: Tensor) -> Tensor:
        """(B, N, d) -> (B, r N, F)."""
        return self._refine(self._run(self._project(codes)))

    def stream(self, codes: Tensor, past: Sequence[Past] | None = None) -> tuple[Tensor, tuple[Past, ...]]:
        """The features of the next codes, whole groups, and the past of those after them."""
        x, kept = self._stream(self._project(codes), past)
        return self._refine(x), kept

    def _project(self, codes: Tensor) -> Tensor:
        return self.in_proj(codes.to(self.in_proj.weight.dtype))

    def _refine(self, x: Tensor) -> Tensor:
        return x if self.refiner is None else x + self.refiner(x)


def _windows(options: FocalOptions) -> list[int]:
    last = options.window if options.last_window is None else options.last_window
    return [*(options.window for _ in options.dims[1:]), last]
