"""Eight kinds of synthetic sounds under a hum, made when asked for, of which it is known where they are.

A clip of half a second at 16 kHz holds one event of a fifth of a second at a random time, and a louder hum that tells
nothing of the class. The cells of the spectrogram in which the event by itself is loud are the truth for what an
interpretation should find (`SoundScenes.event`). Clip i of a split depends on nothing but (split, i).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from focalnet.data.base import Load, Openers, Request, Split

RATE, LENGTH, EVENT = 16000, 8000, 3200
"""Samples per second, of a clip, and of an event."""
TRAIN_CLIPS, VAL_CLIPS = 1600, 120
HUM = 1.5
"""Loudness of the hum over that of the event."""

Wave = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _tone(frequency: Any, seconds: np.ndarray) -> np.ndarray:
    """A tone whose frequency, in Hz, may change."""
    return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(frequency, seconds.shape)) / RATE)


def _chirp(rng: np.random.Generator, seconds: np.ndarray, up: bool) -> np.ndarray:
    low, high = rng.uniform(800, 1200), rng.uniform(3000, 4000)
    course = np.linspace(0, 1, len(seconds))
    return _tone(low + (high - low) * (course if up else 1 - course), seconds)


def _horn(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    base = rng.uniform(300, 450)
    return sum((_tone(base * harmonic, seconds) / harmonic for harmonic in range(1, 8)), np.zeros(len(seconds)))


def _warble(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    return _tone(rng.uniform(1800, 2400) + 500 * np.sin(2 * np.pi * rng.uniform(18, 25) * seconds), seconds)


def _clicks(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    wave = np.zeros(len(seconds))
    for start in range(0, len(seconds) - 40, int(RATE / rng.uniform(40, 60))):
        wave[start : start + 40] = 3 * rng.standard_normal(40) * np.exp(-np.arange(40) / 10)
    return wave


def _hiss(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    return np.diff(rng.standard_normal(len(seconds) + 1)) / 2


def _beeps(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    return _tone(rng.uniform(2500, 3200), seconds) * (np.sin(2 * np.pi * rng.uniform(18, 24) * seconds) > 0)


def _two_tones(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    base = rng.uniform(1000, 1400)
    return (_tone(base, seconds) + _tone(base * 2.6, seconds)) / 2


SOUNDS: dict[str, Wave] = {
    "beeps": _beeps,
    "chirp_down": lambda rng, seconds: _chirp(rng, seconds, up=False),
    "chirp_up": lambda rng, seconds: _chirp(rng, seconds, up=True),
    "clicks": _clicks,
    "hiss": _hiss,
    "horn": _horn,
    "two_tones": _two_tones,
    "warble": _warble,
}
CLASSES = tuple(SOUNDS)


@dataclass(frozen=True)
class SoundScenes:
    """Makes clips; an entry is the number of one, `stream` is the split's."""

    stream: int

    def name(self, entry: int) -> str:
        return f"sound_scenes/{'val' if self.stream else 'train'}[{entry}]"

    def read(self, entry: int, load: Load = lambda wave: wave) -> Any:
        event, hum = self.parts(entry)
        return load(event + hum)

    def event(self, entry: int) -> np.ndarray:
        """The event of a clip by itself, (LENGTH,), float32."""
        return self.parts(entry)[0]

    def parts(self, entry: int) -> tuple[np.ndarray, np.ndarray]:
        """The event and the hum of a clip, each (LENGTH,), float32; the clip is their sum."""
        rng = np.random.default_rng((self.stream, entry))
        seconds = np.arange(EVENT) / RATE
        wave = SOUNDS[kind(entry)](rng, seconds) * np.hanning(EVENT) ** 0.25
        event, start = np.zeros(LENGTH), rng.integers(LENGTH - EVENT + 1)
        event[start : start + EVENT] = wave / np.sqrt((wave**2).mean())
        base, times = rng.uniform(90, 130), np.arange(LENGTH) / RATE
        hum = sum(rng.uniform(0.3, 1) * np.sin(2 * np.pi * (base * n * times + rng.uniform())) for n in range(1, 5))
        hum = HUM * hum / np.sqrt((hum**2).mean()) + 0.05 * rng.standard_normal(LENGTH)
        scale = 0.1 * rng.uniform(0.5, 1)
        return (scale * event).astype(np.float32), (scale * hum).astype(np.float32)


def kind(entry: int) -> str:
    """The class of a clip; all in turn."""
    return CLASSES[entry % len(CLASSES)]


def find_sound_scenes(source: str, _: Request) -> Openers:
    """What opens both splits, of `TRAIN_CLIPS` and `VAL_CLIPS`."""

    def opener(stream: int, count: int) -> Split:
        names = [kind(entry) for entry in range(count)]
        return Split(reader=SoundScenes(stream), entries=range(count), classes=CLASSES, names=names)

    return Openers(lambda: opener(0, TRAIN_CLIPS), lambda: opener(1, VAL_CLIPS))
