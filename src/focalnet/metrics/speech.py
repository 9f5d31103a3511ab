"""What is measured of a speech codec that needs no network: tokens, features, spectra, and two judges.

share of variance   sum of squared errors / sum of squared distances from the mean, over all frames and dimensions
entropy             of the histogram of all tokens, in bits; of d bits at most d
codebook use        share of the codes that occur at least once
STOI                short-time objective intelligibility (Taal et al. 2011), by pystoi; of speech long enough for it
dWER (PocketSphinx) word error rate of what PocketSphinx understands of the decoded speech against what it
                    understands of the original; no transcript is needed. Papers take larger recognizers, so their
                    figures are other ones.
"""

import math
import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from focalnet.errors import MissingExtraError
from focalnet.metrics import gathered

JUDGED_RATE = 16000
"""Samples per second at which PocketSphinx listens."""
LEAST_SECONDS = 0.5
"""Of speech that STOI judges."""


class ShareOfVariance:
    """Squared errors over the variance of the truth, summed over frames (N, D)."""

    def __init__(self) -> None:
        self.count, self.error = 0, 0.0
        self.total: Any = 0.0
        self.square = 0.0

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Take in frames (N, D)."""
        truth = truth.double()
        self.count += len(truth)
        self.error += float((predicted.double() - truth).square().sum())
        self.square += float(truth.square().sum())
        self.total = self.total + truth.sum(0).cpu().numpy()

    def compute(self) -> float | None:
        """Over all processes; None where the truth does not vary."""
        count, error, total, square = (
            sum(values) for values in zip(*gathered((self.count, self.error, self.total, self.square)), strict=True)
        )
        variance = square - float((np.asarray(total) ** 2).sum()) / max(count, 1)
        return error / variance if variance > 1e-9 * max(square, 1e-30) else None


class Codebook:
    """How often the tokens of a codec occur.

    Args:
        bits: of a token; may be set later.
    """

    def __init__(self, bits: int = 0) -> None:
        self.bits = bits
        self.counts: Counter[int] = Counter()

    def update(self, tokens: Tensor) -> None:
        """Take in tokens of any shape."""
        values, counts = tokens.cpu().unique(return_counts=True)
        self.counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def compute(self) -> dict[str, float]:
        """`entropy` in bits and `codebook_use`, over all processes."""
        counts = np.array([*sum(gathered(self.counts), Counter[int]()).values()], float)
        shares = counts / max(counts.sum(), 1)
        return {"entropy": float(-(shares * np.log2(shares)).sum()) + 0.0, "codebook_use": len(counts) / 2**self.bits}


def stoi(original: np.ndarray, decoded: np.ndarray, sample_rate: int) -> float | None:
    """STOI of a waveform (T,), about 0 to 1; None where pystoi is missing or the speech is too short or silent."""
    try:
        from pystoi import stoi as measure
    except ImportError:
        return None
    if len(original) < LEAST_SECONDS * sample_rate or not np.abs(original).max() > 0:
        return None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", RuntimeWarning)  # it warns where too little is not silent
        try:
            value = float(measure(original, decoded, sample_rate))
        except (RuntimeWarning, ValueError, IndexError):
            return None
    return value if math.isfinite(value) else None


class WordErrors:
    """dWER (PocketSphinx).

    Raises:
        MissingExtraError: PocketSphinx is not installed.
    """

    def __init__(self) -> None:
        _recognizer()
        self.edits = self.words = 0

    def update(self, original: np.ndarray, decoded: np.ndarray) -> None:
        """Take in waveforms (T,) at `JUDGED_RATE`."""
        wanted, heard = transcript(original), transcript(decoded)
        self.edits += edit_distance(wanted, heard)
        self.words += len(wanted)

    def compute(self) -> dict[str, float]:
        """`dwer`, edits per word, over all processes; nothing where no word was understood."""
        edits, words = (sum(values) for values in zip(*gathered((self.edits, self.words)), strict=True))
        return {"dwer": edits / words} if words else {}


def transcript(wave: np.ndarray) -> list[str]:
    """The words that PocketSphinx understands of a waveform (T,) at `JUDGED_RATE`."""
    recognizer = _recognizer()
    samples = (np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes()
    recognizer.start_utt()
    recognizer.process_raw(samples, no_search=False, full_utt=True)
    recognizer.end_utt()
    found = recognizer.hyp()
    return found.hypstr.split() if found else []


@cache
def _recognizer() -> Any:
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise MissingExtraError("Measuring dWER (PocketSphinx)", "speech") from None
    return Decoder(samprate=JUDGED_RATE, loglevel="FATAL")


def edit_distance(wanted: list[str], heard: list[str]) -> int:
    """Words to leave out, put in or replace, at least (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(wanted, 1):
        above, row[0] = row[0], number
        for place, other in enumerate(heard, 1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, above + (word != other))
    return row[-1]
