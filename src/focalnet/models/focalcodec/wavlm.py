"""The encoder: the first layers of WavLM-large (Chen et al. 2022, 2110.13900), without the norm behind the last one.

    wave -> convolutions, LayerNorm and GELU each: a frame of 20 ms -> LayerNorm, linear layer
         -> + GELU(convolution over 128 frames) -> layers of attention with gated relative positions, pre-norm

The modules are those of transformers, under its names; the weight of the convolution of positions is multiplied out.
The wave goes in as it is, not normalized.

`CausalWavLM` has the same modules (FocalCodec-Stream, 2509.16195). Its convolutions look back only and repeat the first
sample or frame. A frame attends to its own group of 4 and to the frames before it, `window` with those of the group:
frame i to frames from e - window to e, where e = 4 (i // 4 + 1). A stream keeps for each convolution what the kernel
reaches back, for each layer keys and values of `window` frames, and how many of them there are.

Encoders are frozen: without gradients, and in evaluation mode while the codec learns.

Legend: B batch, T samples, N frames, C channels, H heads, D channels of a head.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet.errors import MissingExtraError, UserError
from focalnet.models.focalcodec.focal import joined
from focalnet.models.focalcodec.options import EncoderOptions
from focalnet.ops import convolve

LONGEST = 300 * 16000
"""Samples that an encoder takes at once whose frames all attend to each other: five minutes, in the published one 16
heads of 15,000 x 15,000 numbers, 14 GB."""


class EncoderPast(NamedTuple):
    """What a stream keeps of the sound so far.

    Attributes:
        convolutions: k - 1 inputs of each convolution, (B, k - 1, C), that of positions the last.
        cache: per layer the last keys and values, (B, window, H, D, 2), the newest at the end.
        position: how many of them there are, int64; it stops where the next group leaves room for no more.
    """

    convolutions: tuple[Tensor, ...]
    cache: tuple[Tensor, ...]
    position: Tensor


class WavLM(nn.Module):
    """The encoder of whole sounds.

    Args:
        options: its widths.

    Raises:
        MissingExtraError: transformers is not installed.
    """

    def __init__(self, options: EncoderOptions) -> None:
        super().__init__()
        try:
            from transformers import WavLMConfig, WavLMModel
        except ImportError:
            raise MissingExtraError("The encoder of the published codecs", "dense") from None
        config = WavLMConfig(
            hidden_size=options.dim, num_hidden_layers=options.layers, num_attention_heads=options.heads,
            intermediate_size=options.ffn_dim, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=False,
            conv_dim=options.conv_dims, conv_kernel=options.conv_kernels, conv_stride=options.conv_strides,
            num_buckets=options.buckets, max_bucket_distance=options.max_distance,
            num_conv_pos_embeddings=options.position_kernel, num_conv_pos_embedding_groups=options.position_groups,
            mask_time_prob=0.0, mask_feature_prob=0.0, layerdrop=0.0, hidden_dropout=0.0, attention_dropout=0.0,
            activation_dropout=0.0, feat_proj_dropout=0.0,
        )  # fmt: skip
        model: Any = WavLMModel(config)
        self.options = options
        self.frame = math.prod(options.conv_strides)
        self.feature_extractor, self.feature_projection = model.feature_extractor, model.feature_projection
        self.encoder = model.encoder
        self.encoder.layer_norm = nn.Identity()  # read by nothing in the published codecs
        nn.utils.parametrize.remove_parametrizations(self.encoder.pos_conv_embed.conv, "weight")
        self.requires_grad_(False)

    @property
    def field(self) -> int:
        """Samples that make one frame."""
        field = 1
        for kernel, stride in zip(self.options.conv_kernels[::-1], self.options.conv_strides[::-1], strict=True):
            field = (field - 1) * stride + kernel
        return field

    def frames(self, samples: Any) -> Any:
        """Frames of a sound of so many samples, a number or a tensor of them."""
        return (samples - self.field) // self.frame + 1

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, N, C). A sound shorter than one frame is followed by silence.

        Args:
            waves: from -1 to 1, at 16,000 samples per second.
            lengths: (B,), samples of each before the padding, which is then not attended to.

        Raises:
            UserError: more than `LONGEST` samples.
        """
        samples = waves.shape[1]
        if not torch.compiler.is_compiling() and samples > LONGEST:
            raise UserError(
                f"the sound has {samples:,} samples; a codec that looks ahead takes up to {LONGEST:,} at once, five "
                "minutes, as each of its frames attends to all others: cut the sound into pieces, as Predictor and "
                "`focalnet predict` do, or take a causal codec."
            )
        if not torch.compiler.is_compiling() and samples < self.field:
            waves = F.pad(waves, (0, self.field - samples))
        x = self.feature_projection(self.feature_extractor(waves).mT)[0]
        mask = None
        if lengths is not None:
            mask = torch.arange(x.shape[1], device=x.device) < self.frames(lengths).clamp(min=1)[:, None]
        return self.encoder(x, attention_mask=mask).last_hidden_state


class CausalWavLM(WavLM):
    """The encoder of streams, on the same modules."""

    def frames(self, samples: Any) -> Any:
        return -(-samples // self.frame)

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, N, C), N = ⌈T / 320⌉.

        Args:
            waves: as of `WavLM`.
            lengths: not needed: what is behind the end of a sound reaches the last group of its frames alone.
        """
        return self._run(waves, None)[0]

    def stream(self, waves: Tensor, past: EncoderPast | None = None) -> tuple[Tensor, EncoderPast]:
        """The frames of the next samples, whole groups, and the past of those after them."""
        options = self.options
        if past is None:
            cache = waves.new_zeros(waves.shape[0], options.window, options.heads, options.dim // options.heads, 2)
            nothing = torch.zeros((), dtype=torch.int64, device=waves.device)
            past = EncoderPast((), (cache,) * options.layers, nothing)
        x, convolutions, cache = self._run(waves, past)
        position = (past.position + x.shape[1]).clamp(max=options.window - options.lookahead - 1)
        return x, EncoderPast(convolutions, cache, position)

    def _run(self, waves: Tensor, past: EncoderPast | None) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The frames of a whole sound, or with a past of the next part of one; what the convolutions reach, and keys
        and values."""
        before = past.convolutions if past else ()
        x, convolutions, cache = waves[..., None], [], []
        for index, layer in enumerate(self.feature_extractor.conv_layers):
            weight, bias = layer.conv.weight, layer.conv.bias
            seen, kept = joined(x, before[index] if before else None, weight.shape[2] - 1)
            x = F.gelu(layer.layer_norm(convolve(seen, weight, bias, stride=layer.conv.stride[0])))
            convolutions.append(kept)
        x = self.feature_projection(x)[0]
        places = self.encoder.pos_conv_embed.conv
        seen, kept = joined(x, before[-1] if before else None, places.kernel_size[0] - 1)
        x = x + F.gelu(convolve(seen, places.weight, places.bias, groups=places.groups))
        convolutions.append(kept)
        positions = self._positions(x, past.position if past else None)
        for index, layer in enumerate(self.encoder.layers):
            cached = past.cache[index] if past else None
            y, pairs = self._attend(layer.attention, layer.layer_norm(x), positions, cached)
            x = x + y
            x = x + layer.feed_forward(layer.final_layer_norm(x))
            cache.append(pairs)
        return x, tuple(convolutions), tuple(cache)

    def _positions(self, x: Tensor, position: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of each frame to each key: the bias (H, N, K) of their distance, and -inf where it does not look (N, K)."""
        options, first = self.options, self.encoder.layers[0].attention
        frames, before = x.shape[1], 0 if position is None else options.window
        query = torch.arange(frames, device=x.device)[:, None]
        key = torch.arange(-before, frames, device=x.device)
        group = options.lookahead + 1
        end = (group * (query // group + 1)).clamp(max=frames)
        seen = (key >= end - options.window) & (key < end)
        if position is not None:
            seen = seen & (key >= -position)
        buckets = first._relative_positions_bucket(key - query)
        bias = first.rel_attn_embed(buckets).permute(2, 0, 1)
        return bias, torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, -math.inf)

    def _attend(
        self, attention: Any, x: Tensor, positions: tuple[Tensor, Tensor], cache: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The attention of a layer, and the keys and values (B, window, H, D, 2) that the next frames see."""
        heads = (attention.num_heads, -1)
        query, key, value = (
            layer(x).unflatten(2, heads).transpose(1, 2)
            for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        pairs = torch.stack([key, value])  # in memory (2, B, H, N, D), as the attention reads them
        if cache is not None:
            pairs = torch.cat([cache.permute(4, 0, 2, 1, 3), pairs], 3)
        # the gate of the distances: two numbers per frame and head, each the sum of four
        gate = attention.gru_rel_pos_linear(x.unflatten(2, heads).transpose(1, 2)).unflatten(3, (2, 4)).sum(-1)
        a, b = gate.sigmoid().chunk(2, -1)
        bias, mask = positions
        bias = (a * (b * attention.gru_rel_pos_const - 1) + 2) * bias + mask
        y = F.scaled_dot_product_attention(query, *pairs, attn_mask=bias)
        kept = pairs[..., -self.options.window :, :].permute(1, 3, 2, 4, 0)
        return attention.out_proj(y.transpose(1, 2).flatten(2)), kept
