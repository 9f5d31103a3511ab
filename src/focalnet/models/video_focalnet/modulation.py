"""Spatio-temporal focal modulation (Wasim et al., "Video-FocalNets", ICCV 2023, Eq. 3 to 7).

    y = proj( q(x) ⊙ m_space ⊙ m_time )

m_space is the modulator of each frame by itself. m_time is one per pixel, along the frames: context and gates come from
a projection `f_temporal` of its own, without a query; the convolutions of its levels mix the channels, and its global
level is the mean over the frames. Parameters carry the official names.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from focalnet.modulation import FocalModulation, ModulationParts
from focalnet.ops import focal_context, linear


class SpatioTemporalParts(NamedTuple):
    """The intermediates of one spatio-temporal focal modulation, as in `ModulationParts`, (B, T, H, W, ·).

    Attributes:
        gates, context, modulator: of the factor in space.
        temporal: of the factor along time.
    """

    gates: Tensor
    context: Tensor
    modulator: Tensor
    temporal: ModulationParts


class SpatioTemporalFocalModulation(FocalModulation):
    """Focal modulation of films, (B, T, H, W, C).

    Args:
        dim: C, channels in and out.
        options: of `FocalModulation`; levels, kernel sizes and biases are those of both factors.
    """

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(dim, **options)
        bias = self.f.bias is not None
        self.f_temporal = nn.Linear(dim, dim + self.focal_level + 1, bias=bias)
        self.h_temporal = nn.Conv1d(dim, dim, kernel_size=1, bias=bias)
        self.focal_layers_temporal: Any = nn.ModuleList(
            nn.Sequential(nn.Conv1d(dim, dim, layer[0].kernel_size[0], padding="same", bias=False))
            for layer in self.focal_layers
        )

    def forward(self, x: Tensor, return_parts: bool = False) -> Any:
        """Modulate every position of every frame by its surroundings in space and in time.

        Args:
            x: (B, T, H, W, C).
            return_parts: also return the intermediates of both factors.

        Returns:
            (B, T, H, W, C), and with `return_parts` the `SpatioTemporalParts`.
        """
        query, context, gates = (part.flatten(0, 1) for part in self._project(x))
        columns = linear(x, self.f_temporal.weight, self.f_temporal.bias).permute(0, 2, 3, 1, 4)  # (B, H, W, T, ·)
        past, weights = columns.flatten(0, 2).split((self.dim, self.focal_level + 1), dim=-1)
        arguments = (context, gates, past, weights)
        if self.recompute and self.training:
            made = checkpoint(self._modulators, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            made = self._modulators(*arguments)
        context, modulator, past, temporal = made

        def film(frames: Tensor) -> Tensor:
            return frames.unflatten(0, x.shape[:2])

        def along(pixels: Tensor) -> Tensor:
            return pixels.unflatten(0, columns.shape[:3]).permute(0, 3, 1, 2, 4)

        temporal = along(temporal)
        y = self._modulate(film(query), film(modulator) * temporal)
        if not return_parts:
            return y
        inner = ModulationParts(along(weights), along(past), temporal)
        return y, SpatioTemporalParts(film(gates), film(context), film(modulator), inner)

    def _modulators(self, context: Tensor, gates: Tensor, past: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """The gated sum and the modulator, of both factors."""
        return *self._modulator(context, gates), *self._temporal_modulator(past, weights)

    def _temporal_modulator(self, context: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        context = focal_context(context, gates, [layer[0].weight for layer in self.focal_layers_temporal])
        if self.normalize_modulator:
            context = context / (self.focal_level + 1)
        return context, linear(context, self.h_temporal.weight.flatten(1), self.h_temporal.bias)
