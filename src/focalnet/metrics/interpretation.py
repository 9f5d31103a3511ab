"""How well the part of a sample that a network is said to have looked at, or listened to, accounts for its answer.

p are the probabilities of the whole sample, o those of the part alone, r those of the rest alone, and c the likeliest
class of the whole. As in SpeechBrain's recipes for interpretable sound (after Paissan et al., L-MAC, 2024):

    fidelity           share of the samples with argmax o = c
    average_increase   share, in percent, with o_c > p_c
    average_drop       mean of max(p_c - o_c, 0) / p_c, in percent; less is better
    average_gain       mean of max(o_c - p_c, 0) / (1 - p_c), in percent
    faithfulness       mean of p_c - r_c: what the answer loses with the part
    sparseness         Gini index of the mask: 0 where it is even, near 1 where it is in one place
    complexity         entropy of the mask made to sum to one, in nats; less is simpler

Another paper of the same authors (2402.02754) calls the mean of p_c - o_c faithfulness, the part kept instead of left
out; less is better there. It is `kept_loss` here.
"""

import torch
from torch import Tensor

from focalnet.metrics import gathered

LEAST = 1e-10


class InterpretationMetric:
    """The figures above."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def update(self, whole: Tensor, part: Tensor, rest: Tensor, mask: Tensor) -> None:
        """Take in some samples.

        Args:
            whole, part, rest: (B, K), probabilities of the classes.
            mask: (B, ...), weights of at least 0: how much of each place is the part.
        """
        whole, part, rest = (values.double() for values in (whole, part, rest))
        best = whole.argmax(1, keepdim=True)
        p, o, r = (values.gather(1, best)[:, 0] for values in (whole, part, rest))
        flat = mask.flatten(1).double()
        self.rows.append(
            torch.stack([
                (part.argmax(1) == best[:, 0]).double(),
                100 * (o > p).double(),
                100 * (p - o).clamp(min=0) / (p + LEAST),
                100 * (o - p).clamp(min=0) / (1 - p + LEAST),
                p - r,
                p - o,
                gini(flat),
                entropy(flat),
            ], dim=1).cpu()
        )  # fmt: skip

    def compute(self) -> dict[str, float]:
        """The figures over all samples of all processes; a sample with an empty mask has no last two, and without any
        sample there are none."""
        rows = torch.cat([row for rows in gathered(self.rows) for row in rows] or [torch.zeros(0, len(NAMES))])
        means = rows.nanmean(0).tolist()
        return {name: value for name, value in zip(NAMES, means, strict=True) if value == value}


NAMES = (
    "fidelity", "average_increase", "average_drop", "average_gain", "faithfulness", "kept_loss", "sparseness",
    "complexity",
)  # fmt: skip


def gini(weights: Tensor) -> Tensor:
    """Gini index of rows of weights: (B, N) -> (B,), nan for a row of zeros."""
    count = weights.shape[1]
    ranks = torch.arange(1, count + 1, dtype=weights.dtype, device=weights.device)
    ordered = weights.sort(dim=1).values
    return ((2 * ranks - count - 1) * ordered).sum(1) / (count * ordered.sum(1))


def entropy(weights: Tensor) -> Tensor:
    """Entropy in nats of rows of weights made to sum to one: (B, N) -> (B,), nan for a row of zeros."""
    shares = weights / weights.sum(1, keepdim=True)
    return -torch.special.xlogy(shares, shares).sum(1)
