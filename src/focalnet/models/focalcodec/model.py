"""FocalCodec: speech as a few hundred bits per second (Della Libera et al., NeurIPS 2025, 2502.04465), and its version
for streams (FocalCodec-Stream, 2509.16195).

    wave -> encoder -> features -> compressor -> latents -> quantizer -> tokens, codes
    codes -> decompressor -> features -> decoder -> wave

No FocalNet is inside, but compressor and decompressor are made of its blocks, on the axis of time. The encoder is
frozen; the quantizer with the parts around it learns to give the features back, the decoder to make sound of features.

`stream` codes a sound while it arrives, if every part looks back only: in chunks of `chunk_size` samples, with the same
tokens and the same sound as the whole at once.

Legend: B batch, T samples, N frames, n tokens, d bits, F channels of the features.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet.errors import UserError
from focalnet.models.base import Network, Program
from focalnet.models.focalcodec.decoders import DECODERS
from focalnet.models.focalcodec.focal import Compressor, Decompressor
from focalnet.models.focalcodec.mel import LogMel
from focalnet.models.focalcodec.options import FocalCodecOptions
from focalnet.models.focalcodec.programs import programs
from focalnet.models.focalcodec.quantizer import BinarySphericalQuantizer
from focalnet.models.focalcodec.streaming import CodecStream
from focalnet.models.focalcodec.wavlm import CausalWavLM, WavLM
from focalnet.variants import Recompute

SAMPLE_RATE = 16000
"""Samples per second that every encoder hears."""
AT_ONCE = 750
"""Chunks of a causal codec that are coded together: of a longer sound the next ones follow as in a stream, so that it
takes no more memory."""
DEFAULTS = FocalCodecOptions()


class CodecOutputs(NamedTuple):
    """What the codec makes of waves.

    Attributes:
        tokens: (B, n), int64.
        latents: (B, n, d), of length 1.
        features: (B, N, F), of the encoder.
        quantized: (B, N', F), the features that the tokens give back; N' is N or, where frames are put together, about.
        wave: (B, T'), as long as the input.
    """

    tokens: Tensor
    latents: Tensor
    features: Tensor
    quantized: Tensor
    wave: Tensor


class FocalCodec(Network[CodecOutputs]):
    """A speech codec.

    Args:
        options: its parts.
        recompute: see `FocalNet`; of the focal blocks.

    Raises:
        MissingExtraError: an encoder of WavLM without transformers.
    """

    Options = FocalCodecOptions
    backbone_prefix = None

    def __init__(self, *, options: FocalCodecOptions = DEFAULTS, recompute: Recompute = "none") -> None:
        super().__init__()
        self.options = options
        causal, width = options.causal, options.encoder.dim
        self.encoder: Any
        if options.encoder.kind == "mel":
            self.encoder = LogMel(width, sample_rate=SAMPLE_RATE)
        else:
            self.encoder = (CausalWavLM if causal else WavLM)(options.encoder)
        around: dict[str, Any] = {"causal": causal, "recompute": recompute}
        self.compressor = Compressor(width, options.bits, options.down, options.compressor, **around)
        self.quantizer = BinarySphericalQuantizer(options.bits)
        self.decompressor = Decompressor(options.bits, width, options.up, options.decompressor, **around)
        self.decoder = DECODERS[options.decoder.kind](width, options.decoder, causal=causal)

    def train(self, mode: bool = True) -> "FocalCodec":
        """Set the training mode; the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def class_parameters(self) -> Iterator[str]:
        yield from ()

    @property
    def bits(self) -> int:
        """Of a token."""
        return self.options.bits

    @property
    def sample_rate(self) -> int:
        """Samples per second of what is encoded."""
        return SAMPLE_RATE

    @property
    def sample_rate_out(self) -> int:
        """Samples per second of what is decoded."""
        return SAMPLE_RATE * self.options.decoder.hop // self.encoder.frame

    @property
    def frame(self) -> int:
        """Samples per token, of what is encoded."""
        return self.encoder.frame * math.prod(self.options.down)

    @property
    def chunk_size(self) -> int | None:
        """Samples of a chunk of a stream, or a multiple of them; None if the codec is not causal."""
        if not self.options.causal:
            return None
        groups = (self.options.encoder.lookahead + 1, self.options.decompressor.lookahead + 1)
        return self.encoder.frame * math.lcm(math.prod(self.options.down), *groups)

    def encode(self, waves: Tensor) -> Tensor:
        """Waves to tokens.

        Args:
            waves: (B, T), from -1 to 1, at `sample_rate`.

        Returns:
            (B, n), int64.

        Raises:
            UserError: no waves.
        """
        self.check_waves(waves)
        if self.chunk_size and not torch.compiler.is_compiling() and waves.shape[1] > AT_ONCE * self.chunk_size:
            stream = self.stream()
            return torch.cat([stream.encode(part) for part in waves.split(AT_ONCE * self.chunk_size, 1)], 1)
        with torch.no_grad():
            return self.quantizer.lats_to_toks(self.compressor(self.encoder(waves)))

    def decode(self, tokens: Tensor, matching_set: Tensor | None = None, topk: int = 4) -> Tensor:
        """Tokens to waves.

        Args:
            tokens: (B, n), int64.
            matching_set: (M, F), `quantized_features` of a voice; each feature then becomes the mean of the `topk` of
                them whose direction is nearest, so that the voice speaks what the tokens say.
            topk: how many.

        Returns:
            (B, T), from about -1 to 1, at `sample_rate_out`.

        Raises:
            UserError: no tokens of this codec, or an empty or strange matching set.
        """
        self.check_tokens(tokens)
        with torch.no_grad():
            features = self.decompressor(self.quantizer.toks_to_codes(tokens))
            return self.decoder(self.match(features, matching_set, topk))

    def encode_step(self, waves: Tensor, past: Any = None) -> tuple[Tensor, Any]:
        """The tokens of the next chunk of a stream, and the state for those after it.

        Args:
            waves: (B, T), a multiple of `chunk_size`.
            past: what the call before returned, nested tuples of tensors; None for the first chunk.
        """
        with torch.no_grad():
            features, first = self.encoder.stream(waves, past[0] if past else None)
            latents, second = self.compressor.stream(features, past[1] if past else None)
        return self.quantizer.lats_to_toks(latents), (first, second)

    def decode_step(
        self, tokens: Tensor, past: Any = None, matching_set: Tensor | None = None, topk: int = 4
    ) -> tuple[Tensor, Any]:
        """The samples of the next tokens of a stream, and the state for those after them; as `encode_step`."""
        with torch.no_grad():
            codes = self.quantizer.toks_to_codes(tokens)
            features, first = self.decompressor.stream(codes, past[0] if past else None)
            waves, second = self.decoder.stream(self.match(features, matching_set, topk), past[1] if past else None)
        return waves, (first, second)

    def stream(self) -> CodecStream:
        """A stream to encode and decode chunk by chunk.

        Raises:
            UserError: the codec is not causal.
        """
        return CodecStream(self)

    def programs(self) -> Mapping[str, Program]:
        return programs(self)

    def quantized_features(self, waves: Tensor) -> Tensor:
        """What the tokens of waves give back, (B, N, F): a `matching_set` once flattened.

        Raises:
            UserError: no waves.
        """
        tokens = self.encode(waves)
        with torch.no_grad():
            return self.decompressor(self.quantizer.toks_to_codes(tokens))

    def match(self, features: Tensor, matching_set: Tensor | None, topk: int = 4) -> Tensor:
        """Features (B, N, F), each replaced by the mean of its `topk` nearest in a matching set; as they are without.

        Raises:
            UserError: as of `decode`.
        """
        if matching_set is None:
            return features
        if matching_set.ndim != 2 or matching_set.shape[1] != features.shape[2] or not len(matching_set):
            raise UserError(
                f"the matching set has the shape {tuple(matching_set.shape)}, wanted is (M, {features.shape[2]}): take "
                "quantized_features(waves).flatten(0, 1)."
            )
        if topk < 1:
            raise UserError(f"topk={topk}; give 1 or more.")
        matching_set = matching_set.to(features)
        likeness = F.normalize(features, dim=-1) @ F.normalize(matching_set, dim=-1).T
        return matching_set[likeness.topk(min(topk, len(matching_set)), -1).indices].mean(-2)

    def forward(self, inputs: Tensor, sizes: Tensor | None = None) -> CodecOutputs:
        """Waves to tokens and back.

        Args:
            inputs: (B, T), from -1 to 1, at `sample_rate`.
            sizes: (B,) or (B, 1), int64, samples of each wave before the padding; without it, all is sound.

        Raises:
            UserError: no waves.
        """
        self.check_waves(inputs)
        features, latents = self._latents(inputs, sizes)
        codes = self.quantizer.lats_to_codes(latents)
        quantized = self.decompressor(codes)
        length = inputs.shape[1] * self.options.decoder.hop // self.encoder.frame
        wave = resized(self.decoder(quantized), length)
        return CodecOutputs(self.quantizer.codes_to_toks(codes), latents, features, quantized, wave)

    def loss(self, inputs: Tensor, targets: Any = None, sizes: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of the quantizer and what is around it: `features`, the squared error of what the tokens give back,
        and `entropy`; under "loss" their sum.

        Args:
            inputs, sizes: as in `forward`.
            targets: (B, N, F), the features of the encoder, where they are known; without them, they are made.
        """
        self.check_waves(inputs)
        features, latents = self._latents(inputs, sizes, targets)
        quantized = self.decompressor(self.quantizer.lats_to_codes(latents)).float()
        frames = min(features.shape[1], quantized.shape[1])
        features, quantized = features[:, :frames], quantized[:, :frames]
        error, entropy = (quantized - features).square(), self.quantizer.loss(latents)
        if sizes is not None:
            heard = self.encoder.frames(lengths_of(sizes)).clamp(min=1)
            inside = (torch.arange(frames, device=inputs.device) < heard[:, None])[..., None]
            error = (error * inside).sum() / (inside.sum() * features.shape[2])
        error = error.mean()
        return {"loss": error + entropy, "features": error, "entropy": entropy}

    def _latents(self, waves: Tensor, sizes: Tensor | None, features: Any = None) -> tuple[Tensor, Tensor]:
        if features is None:
            with torch.no_grad():
                features = self.encoder(waves, None if sizes is None else lengths_of(sizes))
        return features, self.compressor(features)

    def postprocess(
        self, outputs: CodecOutputs, sizes: Tensor, original_sizes: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Per sound its tokens (n,) and the decoded wave (T,), cut to its length."""
        results = []
        for tokens, wave, length in zip(outputs.tokens, outputs.wave, lengths_of(sizes).tolist(), strict=True):
            count = self.compressor.count(max(self.encoder.frames(length), 1))
            results.append((tokens[:count], wave[: length * self.options.decoder.hop // self.encoder.frame]))
        return results

    def check_waves(self, waves: Tensor) -> None:
        """Refuse what is no batch of waves.

        Raises:
            UserError: it is none.
        """
        if waves.ndim != 2 or waves.shape[1] == 0 or not waves.is_floating_point():
            raise UserError(f"the codec takes waves of shape (B, T), got {tuple(waves.shape)} of {waves.dtype}.")

    def check_tokens(self, tokens: Tensor) -> None:
        """Refuse what are no tokens of this codec.

        Raises:
            UserError: they are none.
        """
        if tokens.ndim != 2 or tokens.shape[1] == 0 or tokens.is_floating_point():
            raise UserError(f"the codec takes tokens of shape (B, n), got {tuple(tokens.shape)} of {tokens.dtype}.")
        if torch.compiler.is_compiling():
            return
        least, most = (int(end) for end in tokens.aminmax())
        if least < 0 or most >= 2**self.bits:
            raise UserError(
                f"tokens from {least} to {most} are not of this codec: its {self.bits} bits give 0 to "
                f"{2**self.bits - 1}."
            )


def lengths_of(sizes: Tensor) -> Tensor:
    """`sizes` (B,) or (B, 1) as (B,)."""
    return sizes.reshape(len(sizes), -1)[:, -1]


def resized(waves: Tensor, length: int) -> Tensor:
    """Waves (B, T) cut to a length, or their last sample repeated up to it."""
    missing = length - waves.shape[1]
    if torch.compiler.is_compiling():  # a branch would fix the length
        missing = torch.sym_max(missing, 0)
    if isinstance(missing, int) and missing <= 0:
        return waves[:, :length]
    return torch.cat([waves, waves[:, -1:].expand(-1, missing)], 1)[:, :length]
