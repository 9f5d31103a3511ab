"""Focal modulation: the token mixer of Yang et al., "Focal Modulation Networks", NeurIPS 2022.

    y_i = q(x_i) ⊙ m(i, X)                                          Eq. 3   modulate the query
    m(i, X) = h( sum_{l=1}^{L+1} g_l^i · z_l^i )                     Eq. 6   the modulator
    z_0 = f_z(X),  z_l = GELU(DWConv_l(z_{l-1}))                     Eq. 4   context from near to far
    z_{L+1} = GELU(mean(z_L)),  g = f_g(X)                           Eq. 5   global context, gates

Attention first weighs every pair of positions and then sums; focal modulation first sums the surroundings of a
position, at L+1 ranges, and then lets one product per position and channel do the interaction.

One linear layer `f` makes query, context and gates; `h` and `proj` are linear too. The parameters carry the
official names, so the weight of `h` has the shape of a 1x1 convolution.

What differs from the official code: tensors stay channels last; nothing is stored on the module during forward
(the official layer keeps gates and modulator alive on `self`): ask with `return_parts=True`, or for a whole model
with `capture`; the layer works on sequences, images and volumes.

`CausalFocalModulation`, at the end, is the relative for streams of sound: every level looks back only.

Legend: B batch, S one to three spatial axes, T positions of a sequence, C channels, L focal levels.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, overload

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from focalnet.errors import UserError
from focalnet.ops import causal_focal_context, focal_context, linear, linear_slices

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class ModulationParts(NamedTuple):
    """The intermediates of one focal modulation, channels last.

    Attributes:
        gates: g, (B, *S, L+1): one number per position and level, no activation; the last is the global level.
        context: the gated sum over the levels, (B, *S, C), divided by L+1 where the layer normalises it.
        modulator: h(context), (B, *S, C): what the query is multiplied by.
    """

    gates: Tensor
    context: Tensor
    modulator: Tensor


class FocalModulation(nn.Module):
    """Focal modulation on channels-last maps (Eq. 3 to 6, Algorithm 1; official `classification/focalnet.py`).

    Level l = 0..L-1 convolves with kernels of `focal_window + focal_factor * l`.

    Args:
        dim: C, channels in and out.
        focal_level: L, the number of depth-wise levels; 0 leaves only the global one.
        focal_window: kernel size of the first level; odd in the paper. An even kernel sees one position more on the
            right, as in FocalCodec (`padding="same"`).
        focal_factor: growth of the kernel per level; 2 in the paper, 4 in FocalCodec-Stream.
        bias: bias in `f` and `h`.
        focal_bias: bias in the convolutions of the levels, as in FocalCodec; none in the paper.
        proj_drop: dropout after `proj`, a probability.
        use_postln_in_modulation: LayerNorm `ln` between the product and `proj`.
        normalize_modulator: divide the gated sum by L+1.
        spatial_dims: 1, 2 or 3 axes between batch and channels.

    Attributes:
        recompute: while training, keep neither the levels nor their sum; the backward pass computes them again.

    Raises:
        UserError: a kernel below 1, a negative level count, or `spatial_dims` outside 1..3.
    """

    def __init__(
        self,
        dim: int,
        *,
        focal_level: int,
        focal_window: int,
        focal_factor: int = 2,
        bias: bool = True,
        focal_bias: bool = False,
        proj_drop: float = 0.0,
        use_postln_in_modulation: bool = False,
        normalize_modulator: bool = False,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        kernel_sizes = [focal_window + focal_factor * level for level in range(focal_level)]
        if focal_level < 0 or any(size < 1 for size in kernel_sizes):
            raise UserError(
                f"focal_level={focal_level}, focal_window={focal_window}, focal_factor={focal_factor} give the kernels "
                f"{kernel_sizes}; take a level count of 0 or more and kernels of 1 or more."
            )
        if spatial_dims not in (1, 2, 3):
            raise UserError(f"spatial_dims={spatial_dims}; focal modulation works on 1, 2 or 3 spatial axes.")
        self.dim = dim
        self.focal_level = focal_level
        self.normalize_modulator = normalize_modulator
        self.recompute = False
        convolution = CONVOLUTIONS[spatial_dims - 1]
        self.f = nn.Linear(dim, 2 * dim + focal_level + 1, bias=bias)
        self.h = convolution(dim, dim, kernel_size=1, bias=bias)
        self.focal_layers: Any = nn.ModuleList(
            nn.Sequential(convolution(dim, dim, size, padding="same", groups=dim, bias=focal_bias))
            for size in kernel_sizes
        )
        self.ln = nn.LayerNorm(dim) if use_postln_in_modulation else None
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    @overload
    def forward(self, x: Tensor, return_parts: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, return_parts: Literal[True]) -> tuple[Tensor, ModulationParts]: ...

    def forward(self, x: Tensor, return_parts: bool = False) -> Tensor | tuple[Tensor, ModulationParts]:
        """Modulate every position of `x` by its surroundings.

        Args:
            x: (B, *S, C).
            return_parts: also return the intermediates.

        Returns:
            (B, *S, C), and with `return_parts` the `ModulationParts`.
        """
        query, context, gates = self._project(x)
        if self.recompute and self.training:
            context, modulator = checkpoint(
                self._modulator, context, gates, use_reentrant=False, preserve_rng_state=False
            )
        else:
            context, modulator = self._modulator(context, gates)
        y = self._modulate(query, modulator)
        return (y, ModulationParts(gates, context, modulator)) if return_parts else y

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        sizes = (self.dim, self.dim, self.focal_level + 1)
        return linear_slices(x, self.f.weight, self.f.bias, sizes)

    def _modulator(self, context: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        return self._transform(focal_context(context, gates, *self._levels()))

    def _transform(self, context: Tensor) -> tuple[Tensor, Tensor]:
        if self.normalize_modulator:
            context = context / (self.focal_level + 1)
        return context, linear(context, self.h.weight.flatten(1), self.h.bias)

    def _modulate(self, query: Tensor, modulator: Tensor) -> Tensor:
        y = query * modulator
        if self.ln is not None:
            y = self.ln(y)
        return self.proj_drop(linear(y, self.proj.weight, self.proj.bias))

    def _levels(self) -> tuple[list[Tensor], list[Tensor] | None]:
        convolutions = [layer[0] for layer in self.focal_layers]
        biased = any(layer.bias is not None for layer in convolutions)
        return [layer.weight for layer in convolutions], [layer.bias for layer in convolutions] if biased else None

    def extra_repr(self) -> str:
        return f"dim={self.dim}, focal_level={self.focal_level}, normalize_modulator={self.normalize_modulator}"


@contextmanager
def capture(model: nn.Module) -> Iterator[dict[str, ModulationParts]]:
    """Collect the intermediates of every focal modulation in `model` while the context is open.

    Nothing is computed twice, and the model is as before when the context closes. Later forward passes overwrite
    earlier ones. Detach what you keep, or run under `torch.inference_mode()`.

    Args:
        model: any module that holds `FocalModulation` layers.

    Yields:
        a dictionary, filled by the forward pass: module name -> `ModulationParts`.

    Raises:
        UserError: the model holds no focal modulation.

    Example:
        >>> with torch.inference_mode(), focalnet.capture(model) as parts:
        ...     model(images)
        >>> parts["layers.3.blocks.1.modulation"].gates.shape
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, FocalModulation)}
    if not layers:
        raise UserError(f"{type(model).__name__} holds no FocalModulation layer, so there is nothing to capture.")
    parts: dict[str, ModulationParts] = {}

    def record(name: str, forward, x: Tensor) -> Tensor:
        y, parts[name] = forward(x, return_parts=True)
        return y

    with ExitStack() as stack:
        for name, layer in layers.items():
            layer.forward = partial(record, name, layer.forward)  # pyright: ignore[reportAttributeAccessIssue]
            stack.callback(layer.__dict__.pop, "forward", None)
        yield parts


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards each in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def strongest(modulator: Tensor, size: Sequence[int], share: float = 0.1) -> Tensor:
    """Where a modulator is longest: the thresholded activation map of Della Libera et al. 2024 (2402.02754).

    Args:
        modulator: (B, h, w, C), for example of the last block, from `capture`.
        size: height and width of what the map lies over: an image, a spectrogram.
        share: of the positions to keep, between 0 and 1.

    Returns:
        (B, *size), bool: the length over the channels, enlarged bilinearly, is in the upper `share` of its map.

    Raises:
        UserError: `share` is no share.
    """
    if not 0 < share <= 1:
        raise UserError(f"share={share}; give a share of the positions between 0 and 1.")
    length = F.interpolate(modulator.norm(dim=-1)[:, None], size=tuple(size), mode="bilinear")[:, 0]
    least = length.flatten(1).float().quantile(1 - share, dim=1).to(length.dtype)
    return length >= least[:, None, None]


class CausalFocalModulation(FocalModulation):
    """Focal modulation of a sequence that arrives in chunks (FocalCodec-Stream, Della Libera et al. 2025, 2509.16195).

    The levels look back only: on the left of its first value a level repeats it. The mean of Eq. 5 would need the end
    of the sequence; one more depth-wise convolution over the last `global_window` positions takes its place,

        z_{L+1} = GELU(DWConv_{L+1}(z_L)),

    and is the last of `focal_layers`. All else is as in `FocalModulation`. A call takes a whole sequence; `stream`
    takes it in chunks of any lengths, with the same results.

    Args:
        dim: C, channels in and out.
        global_window: kernel size of the last level; 512 in FocalCodec-Stream.
        options: those of `FocalModulation` without `spatial_dims`; FocalCodec-Stream has `focal_level=2,
            focal_window=14, focal_factor=4, focal_bias=True`.

    Raises:
        UserError: as for `FocalModulation`, or a `global_window` below 1.
    """

    def __init__(self, dim: int, *, global_window: int, **options: Any) -> None:
        if global_window < 1:
            raise UserError(
                f"global_window={global_window}; the last level sees at least the position itself: take 1 or more."
            )
        super().__init__(dim, spatial_dims=1, **options)
        biased = options.get("focal_bias", False)
        self.focal_layers.append(nn.Sequential(nn.Conv1d(dim, dim, global_window, groups=dim, bias=biased)))

    def stream(self, x: Tensor, past: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Modulate the next chunk of a sequence.

        Args:
            x: (B, T, C), T at least 1.
            past: what the call for the chunk before returned; None for the first chunk.

        Returns:
            (B, T, C), and the past of the next chunk: per level the k - 1 values that it read last, (B, k - 1, C).
        """
        query, context, gates = self._project(x)
        context, past = causal_focal_context(context, gates, *self._levels(), past)
        return self._modulate(query, self._transform(context)[1]), past

    def _modulator(self, context: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        return self._transform(causal_focal_context(context, gates, *self._levels())[0])
