"""What a FocalNet is made of besides the modulation: patch embedding, MLP, stochastic depth.

Maps are channels last, (*B, *S, C): one leading axis for the images of a batch, two for the frames of its films.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from focalnet.ops import linear


def channels_last(x: Tensor) -> Tensor:
    """(B, C, *S) -> (B, *S, C), a view."""
    return x.permute(0, *range(2, x.ndim), 1)


def channels_first(x: Tensor) -> Tensor:
    """(B, *S, C) -> (B, C, *S), a view in the strides of `channels_last`."""
    return x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))


class PatchEmbed(nn.Module):
    """Strided convolution and LayerNorm: the stem, and the downsample between stages (official `PatchEmbed`).

    Args:
        in_channels, out_channels: channels in and out.
        stride: the factor by which the map shrinks.
        kernel_size: `stride` for patches side by side, more for overlapped ones.
        padding: zeros around the map.
        pad_odd: pad the end of each axis to a multiple of `stride`; otherwise the convolution drops the rest.
        spatial_dims: 1, 2 or 3 axes between batch and channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *,
        stride: int, kernel_size: int, padding: int, pad_odd: bool, spatial_dims: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stride = stride
        self.pad_odd = pad_odd
        convolution = getattr(nn, f"Conv{spatial_dims}d")
        self.proj = convolution(in_channels, out_channels, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(*B, *S, C_in) -> (*B, *S / stride, C_out)."""
        if x.ndim > self.proj.weight.ndim:  # the frames of films
            return self.forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        if self.pad_odd:
            missing = [-size % self.stride for size in x.shape[1:-1]]
            if torch.compiler.is_compiling() or any(missing):  # while tracing, a branch would fix the size
                x = F.pad(x, (0, 0, *(side for size in reversed(missing) for side in (0, size))))
        return self.norm(channels_last(self.proj(channels_first(x))))


class Mlp(nn.Module):
    """Linear, GELU, Linear over the channels, with dropout after both.

    Attributes:
        recompute: while training, do not keep the output of the GELU; the backward pass computes it again.
    """

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0) -> None:
        super().__init__()
        self.recompute = False
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(*B, *S, C) -> (*B, *S, C)."""
        x = linear(x, self.fc1.weight, self.fc1.bias)
        if self.recompute and self.training:
            x = checkpoint(self._second, x, use_reentrant=False, preserve_rng_state=self.drop.p > 0)
        else:
            x = self._second(x)
        return self.drop(x)

    def _second(self, x: Tensor) -> Tensor:
        return linear(self.drop(F.gelu(x)), self.fc2.weight, self.fc2.bias)


def drop_path(x: Tensor, rate: float, training: bool, leading: int = 1) -> Tensor:
    """Stochastic depth: zero a whole sample of `x` with probability `rate`, scale the others by 1 / (1 - rate).

    Args:
        x: samples along the first `leading` axes.
        rate: a probability below 1; 0 does nothing.
        training: False does nothing.
        leading: 1 for images, 2 for the frames of films.
    """
    if rate == 0.0 or not training:
        return x
    shape = (*x.shape[:leading], *[1] * (x.ndim - leading))
    keep = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - rate)
    return x * (keep / (1 - rate))
