"""Options of the optimizers, which a command line reads without importing torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AdamWOptions:
    """Options of AdamW; the defaults are the paper's."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay per step of the means of the gradient and of its square."""
    eps: float = 1e-8
    """What is added to the root of the second mean."""
    decay_all: bool = False
    """Decay biases, norms and embeddings like every other weight."""


@dataclass(frozen=True, kw_only=True)
class SGDOptions:
    """Options of stochastic gradient descent; the defaults are Video-FocalNet's."""

    momentum: float = 0.9
    """Share of the momentum that a step keeps."""
    nesterov: bool = True
    """Whether the gradient counts as if the momentum's step was taken already (Nesterov)."""


@dataclass(frozen=True, kw_only=True)
class MuonOptions(AdamWOptions):
    """Options of Muon, and of the AdamW beside it."""

    momentum: float = 0.95
    """Share of the momentum that a step keeps."""
