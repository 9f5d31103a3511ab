"""Courses of the learning rate after the warm-up.

The rate is a function of the place in the run and of nothing else, so there is no scheduler to save. Classification
has a cosine, UPerNet a straight line (mmseg's "poly" of power 1), Mask2Former on ADE20K "poly" of power 0.9, detectors
a constant that falls to a tenth at given epochs, Focal-UNet cosines with warm restarts (Loshchilov and Hutter, 2017),
the decoder of a speech codec a factor after every epoch. As in the official schedule (`lr_scheduler.py`) the curve does
not wait for the warm-up: after it, the rate continues where the curve is by then, a little under the peak.
"""

import math
from dataclasses import dataclass

from focalnet.engine.optim.rows import NoOptions, Place, Schedule
from focalnet.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PolyOptions:
    """Options of "poly"."""

    power: float = 0.9
    """Exponent of what is left of the run."""


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Options of "step"."""

    milestones: tuple[float, ...] = ()
    """Epochs at which the rate falls."""
    factor: float = 0.1
    """What the rate is multiplied by at each of them."""


@dataclass(frozen=True, kw_only=True)
class ExponentialOptions:
    """Options of "exponential"."""

    factor: float = 0.999
    """What the rate is multiplied by after every epoch."""


@dataclass(frozen=True, kw_only=True)
class RestartOptions:
    """Options of "restarts".

    Raises:
        UserError: a length that is no length, or one that shrinks.
    """

    first: float = 1.0
    """Epochs until the first restart."""
    factor: float = 2.0
    """How many times as long each course is as the one before."""

    def __post_init__(self) -> None:
        if self.first <= 0 or self.factor < 1:
            raise UserError(f"restarts have first={self.first}, factor={self.factor}; give above 0, and 1 or more.")


def cosine(place: Place, peak: float, end: float, options: NoOptions) -> float:
    """Half a cosine from the peak to the end."""
    return end + (peak - end) * (0.5 * (1 + math.cos(math.pi * place.progress)))


def linear(place: Place, peak: float, end: float, options: NoOptions) -> float:
    """A straight line from the peak to the end."""
    return end + (peak - end) * (1 - place.progress)


def poly(place: Place, peak: float, end: float, options: PolyOptions) -> float:
    """What is left of the run to a power."""
    return end + (peak - end) * (1 - place.progress) ** options.power


def restarts(place: Place, peak: float, end: float, options: RestartOptions) -> float:
    """Half a cosine from the peak to the end, again and again, each time over `factor` times as many epochs."""
    epoch, length = place.step / place.steps_per_epoch, options.first
    while epoch >= length:
        epoch, length = epoch - length, length * options.factor
    return end + (peak - end) * (0.5 * (1 + math.cos(math.pi * epoch / length)))


def exponential(place: Place, peak: float, end: float, options: ExponentialOptions) -> float:
    """The peak, multiplied by the factor after every epoch, never below the end."""
    return max(peak * options.factor ** (place.step // place.steps_per_epoch), end)


def step(place: Place, peak: float, end: float, options: StepOptions) -> float:
    """The peak, multiplied by the factor at every milestone; there is no end."""
    passed = sum(place.step >= round(epoch * place.steps_per_epoch) for epoch in options.milestones)
    return peak * options.factor**passed


COSINE = Schedule(name="cosine", rate=cosine)
LINEAR = Schedule(name="linear", rate=linear)
POLY = Schedule(name="poly", rate=poly, options=PolyOptions)
RESTARTS = Schedule(name="restarts", rate=restarts, options=RestartOptions)
STEP = Schedule(name="step", rate=step, options=StepOptions)
EXPONENTIAL = Schedule(name="exponential", rate=exponential, options=ExponentialOptions)
