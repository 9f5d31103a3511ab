"""A sound that arrives in chunks, coded and decoded as it comes.

The state of a stream is what each part keeps of the past: at full width 9.7 million numbers per sound, 39 MB, for all
of its length. `encode_step` and `decode_step` of the codec take and give it explicitly, for exported programs;
a `CodecStream` keeps it.
"""

from typing import Any

from torch import Tensor

from focalnet.errors import UserError


class CodecStream:
    """One stream of sounds, as many at once as its first chunk has. Encoding and decoding are independent.

    Args:
        codec: a causal `FocalCodec`.

    Attributes:
        encoder_state, decoder_state: of the stream so far, nested tuples of tensors; None at the beginning.

    Raises:
        UserError: the codec is not causal.

    Example:
        >>> stream = codec.stream()
        >>> sound = [stream.decode(stream.encode(chunk)) for chunk in waves.split(codec.chunk_size, 1)]
    """

    def __init__(self, codec: Any) -> None:
        if codec.chunk_size is None:
            raise UserError("this codec looks ahead and cannot stream; take one of the causal ones.")
        self.codec = codec
        self.encoder_state: Any = None
        self.decoder_state: Any = None
        self._ended = {"chunk": False, "tokens": False}

    def encode(self, chunk: Tensor) -> Tensor:
        """The tokens of the next samples.

        Args:
            chunk: (B, T), a multiple of `codec.chunk_size` samples; the last chunk of a stream may be shorter.

        Returns:
            (B, n), int64.

        Raises:
            UserError: no waves, or a chunk after one that was no multiple.
        """
        self.codec.check_waves(chunk)
        self._check("chunk", chunk.shape[1], self.codec.chunk_size, "samples")
        tokens, self.encoder_state = self.codec.encode_step(chunk, self.encoder_state)
        return tokens

    def decode(self, tokens: Tensor, matching_set: Tensor | None = None, topk: int = 4) -> Tensor:
        """The samples of the next tokens.

        Args:
            tokens: (B, n), those of whole chunks; the last of a stream may be fewer.
            matching_set, topk: as of `FocalCodec.decode`.

        Returns:
            (B, T).

        Raises:
            UserError: as of `FocalCodec.decode`, or tokens after some that were no whole chunk.
        """
        self.codec.check_tokens(tokens)
        self._check("tokens", tokens.shape[1], self.codec.chunk_size // self.codec.frame, "tokens")
        waves, self.decoder_state = self.codec.decode_step(tokens, self.decoder_state, matching_set, topk)
        return waves

    def _check(self, what: str, size: int, step: int, unit: str) -> None:
        if self._ended[what]:
            raise UserError(f"the stream has ended: only its last part may be no multiple of {step} {unit}.")
        self._ended[what] = size % step > 0
