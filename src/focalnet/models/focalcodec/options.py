"""What a FocalCodec is made of, as options; the defaults are those of the published one with 50 tokens per second."""

import math
from dataclasses import dataclass
from typing import Literal

from focalnet.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """The encoder: the first layers of WavLM-large, or log-mels, which have no weights."""

    kind: Literal["wavlm", "mel"] = "wavlm"
    """`mel` has `dim` bands and no other option."""
    dim: int = 1024
    """Features per frame."""
    layers: int = 6
    """Layers of the transformer."""
    heads: int = 16
    """Heads of the attention."""
    ffn_dim: int = 4096
    """Hidden width of the feed-forward part."""
    conv_dims: tuple[int, ...] = (512,) * 7
    """Channels of the convolutions that make frames of samples."""
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    """Their kernels."""
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    """Their strides."""
    buckets: int = 320
    """Buckets of the relative positions."""
    max_distance: int = 800
    """Frames from which on all distances share a bucket."""
    position_kernel: int = 128
    """Kernel of the convolution that tells positions."""
    position_groups: int = 16
    """Its groups."""
    window: int = 512
    """Frames that a causal encoder attends to, those of its own group among them."""
    lookahead: int = 3
    """Frames of its group that a frame of a causal encoder may wait for: a group has one more."""


@dataclass(frozen=True, kw_only=True)
class FocalOptions:
    """The compressor or the decompressor: a row of focal blocks."""

    dims: tuple[int, ...]
    """Channels of the blocks."""
    focal_window: int = 7
    """Kernel of the first focal level."""
    focal_levels: int = 2
    """Focal levels, without the global one."""
    focal_factor: int = 2
    """Growth of the kernel from one level to the next."""
    post_norm: bool = False
    """Norms behind modulation and feed-forward part, and one inside the modulation."""
    layerscale: float | None = None
    """First value of a learned scale per channel on both branches; None for none."""
    normalize_modulator: bool = False
    """Divide the gated sum by the number of levels."""
    window: int = 512
    """Frames of the last level of a causal block, in place of the mean over all."""
    last_window: int | None = None
    """The same of the last block; None for the same."""
    tanh_scale: float = 0.5
    """First value of the scale of the tanh that a causal block has for a norm."""
    lookahead: int = 0
    """Frames that a causal decompressor refines together with the first of a group; 0 for no refinement."""


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """The decoder: a row of ConvNeXt blocks, and what makes samples of their last features."""

    kind: Literal["vocos", "wavenext"] = "vocos"
    """`vocos` predicts spectra, `wavenext` the samples themselves."""
    dim: int = 512
    """Channels."""
    layers: int = 8
    """Blocks."""
    ffn_dim: int = 1536
    """Hidden width of a block."""
    kernel: int = 7
    """Kernel of a block."""
    layerscale: float | None = None
    """First value of the learned scale per channel; None for 1 / `layers`."""
    n_fft: int = 1024
    """Samples of a spectrum, for `vocos`."""
    hop: int = 320
    """Samples per frame."""


@dataclass(frozen=True, kw_only=True)
class FocalCodecOptions:
    """Options of a `FocalCodec`."""

    bits: int = 13
    """Bits of a token: there are 2 ** bits tokens."""
    causal: bool = False
    """Whether every part looks back only, so that sound can be coded while it arrives."""
    down: tuple[int, ...] = (1, 1, 1)
    """Frames that each block of the compressor makes one of."""
    up: tuple[int, ...] = (1, 1, 1)
    """Frames that each block of the decompressor makes of one."""
    encoder: EncoderOptions = EncoderOptions()
    """The encoder."""
    compressor: FocalOptions = FocalOptions(dims=(1024, 512, 256))
    """The compressor."""
    decompressor: FocalOptions = FocalOptions(dims=(256, 512, 1024))
    """The decompressor."""
    decoder: DecoderOptions = DecoderOptions()
    """The decoder."""

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 24:
            raise UserError(f"bits={self.bits}; give 1 to 24.")
        if math.prod(self.down) != math.prod(self.up):
            raise UserError(f"down={self.down} and up={self.up}; the products must be equal.")
        for part, factors in (("compressor", self.down), ("decompressor", self.up)):
            dims = getattr(self, part).dims
            if not dims or len(dims) != len(factors) or min(*dims, *factors) < 1:
                raise UserError(f"the {part} has dims={dims} and factors {factors}; give one of both per block.")
        convolutions = {len(getattr(self.encoder, f"conv_{name}")) for name in ("dims", "kernels", "strides")}
        if len(convolutions) != 1 or convolutions == {0}:
            raise UserError("conv_dims, conv_kernels and conv_strides of the encoder need one entry per convolution.")
        if self.causal and self.encoder.kind == "mel":
            raise UserError("an encoder of log-mels looks ahead: it cannot be causal.")
