"""Binary spherical quantization (Zhao et al. 2024, 2406.07548): the sign of every coordinate is a bit.

    u = z / |z|                       the latent on the unit sphere of d dimensions
    c = sign(u) / sqrt(d)             its code, a corner of a cube in that sphere; 0 counts as negative
    token = sum_i (z_i > 0) 2^(d-1-i) its number, the most significant bit first

The 2^d codes are not learned. In training, the gradient passes straight through to u, and the entropy of the soft
assignment P(c | u) = softmax(2 τ <u, c>), with τ = 100, keeps tokens certain and all of them in use:

    loss = 0.1 (mean over u of H(P(· | u)) - H(mean over u of P(· | u)))

The softmax is a product over the bits, P(bit i = 1 | u) = sigmoid(4 τ u_i / sqrt(d)), so the first entropy is a sum
of d binary ones, exactly; so is the second if the bits are independent, as the paper takes them to be: an upper bound.

Legend: B batch, N tokens, d bits.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = 100.0
"""τ, the inverse temperature of the soft assignment."""
WEIGHT = 0.1
"""Of the entropies in the loss."""


class Entropies(NamedTuple):
    """In nats: of the tokens of single latents, on average, and of all tokens of a batch."""

    sample: Tensor
    batch: Tensor


class BinarySphericalQuantizer(nn.Module):
    """Latents to tokens and codes, and back. It has no weights.

    Args:
        bits: d.
    """

    places: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("places", 2 ** torch.arange(bits - 1, -1, -1), persistent=False)

    def lats_to_toks(self, latents: Tensor) -> Tensor:
        """(B, N, d), of any length, -> (B, N), int64."""
        return ((latents > 0) * self.places).sum(-1)

    def codes_to_toks(self, codes: Tensor) -> Tensor:
        """(B, N, d) -> (B, N), int64."""
        return self.lats_to_toks(codes)

    def toks_to_codes(self, tokens: Tensor) -> Tensor:
        """(B, N) -> (B, N, d), ± 1 / sqrt(d)."""
        return self._codes(tokens[..., None] // self.places % 2 > 0, torch.get_default_dtype())

    def lats_to_codes(self, latents: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d), ± 1 / sqrt(d); in training with the gradient of the normalized latents."""
        codes = self._codes(latents > 0, latents.dtype)
        if not self.training:
            return codes
        normal = F.normalize(latents, dim=-1)
        return normal + (codes - normal).detach()

    def _codes(self, bits: Tensor, dtype: torch.dtype) -> Tensor:
        return (2 * bits.to(dtype) - 1) / math.sqrt(self.bits)

    def entropies(self, latents: Tensor) -> Entropies:
        """The two entropies of the soft assignment of latents (B, N, d), scalars."""
        logits = 4 * SHARPNESS / math.sqrt(self.bits) * F.normalize(latents.float(), dim=-1).flatten(0, -2)
        ones = logits.sigmoid()
        mean = ones.mean(0).clamp(1e-6, 1 - 1e-6)
        batch = torch.special.entr(mean) + torch.special.entr(1 - mean)
        return Entropies((F.softplus(logits) - logits * ones).sum(-1).mean(), batch.sum())

    def loss(self, latents: Tensor) -> Tensor:
        """The term of the loss for latents (B, N, d), a scalar."""
        sample, batch = self.entropies(latents)
        return WEIGHT * (sample - batch)
