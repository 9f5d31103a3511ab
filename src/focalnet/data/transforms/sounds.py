"""Waveforms for training: a part of the clip, bands of frequencies and moments dropped (SpeechBrain's `DropFreq` and
`DropChunk`, in the numbers of the ESC-50 recipe).

    clip     of a longer sound any part
    bands    one to three, each a twentieth of all frequencies wide, are silenced
    chunks   1,000 to 2,000, each of 1 to 5 samples, are set to zero

Bands and chunks come together, with probability 3/4. What differs from SpeechBrain: bands are cut out of the spectrum
instead of being filtered by a notch of 101 samples, and every clip of a batch has its own. All randomness comes from
torch's global generator.
"""

import numpy as np
import torch
from torch import Tensor

from focalnet.inputs.audio import Audio

PROBABILITY = 0.75
BANDS, WIDTH = (1, 3), 0.05
CHUNKS, LENGTH = (1000, 2000), (1, 5)


def train_clip(how: Audio, wave: np.ndarray, *, drop: bool) -> Tensor:
    """(T,), float32: a clip of a waveform for training, with what `drop` takes out of it."""
    samples = torch.from_numpy(how.clip(np.asarray(wave, np.float32), place=float(torch.rand(()))))
    if not drop or float(torch.rand(())) >= PROBABILITY:
        return samples
    return drop_chunks(drop_bands(samples))


def drop_bands(samples: Tensor) -> Tensor:
    """(T,) without some bands of frequencies."""
    spectrum = torch.fft.rfft(samples)
    width = max(1, round(WIDTH * len(spectrum)))
    for place in torch.rand(_draw(BANDS)):
        start = int(place * max(len(spectrum) - width, 1))
        spectrum[start : start + width] = 0
    return torch.fft.irfft(spectrum, n=len(samples))


def drop_chunks(samples: Tensor) -> Tensor:
    """(T,) with zeros in some chunks."""
    starts = torch.randint(len(samples), (_draw(CHUNKS),))
    lengths = torch.randint(LENGTH[0], LENGTH[1] + 1, starts.shape)
    kept = samples.clone()
    for step in range(LENGTH[1]):
        kept[(starts[lengths > step] + step).clamp(max=len(samples) - 1)] = 0
    return kept


def _draw(ends: tuple[int, int]) -> int:
    return int(torch.randint(ends[0], ends[1] + 1, ()))
