"""Short English sentences without a recording: spoken by espeak-ng, or vowels and hisses that resemble speech.

Sentence i of a split depends on nothing but (split, i). Six voices speak; of every sixth validation sentence the voice
is one that training does not have. What espeak-ng says is kept in the cache folder, by its version and its words.

Without espeak-ng there is `formants`: a row of syllables, each a hiss of one band and a vowel, the harmonics of a
falling pitch under three resonances (after Klatt 1980) that glide from one vowel to the next.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from focalnet.data.base import Load, Openers, Request, Split
from focalnet.errors import UserError, first_line
from focalnet.inputs.folders import cache_folder

PROGRAM = "espeak-ng"
RATE = 16000
"""Samples per second of `formants`."""
TRAIN_SENTENCES, VAL_SENTENCES = 400, 24
UNSEEN = 6
"""Of so many validation sentences one is in a voice that was not trained on."""
VOICES = ("en-us", "en-us+f3", "en-gb-scotland", "en-gb-x-rp+f2", "en-029+m3", "en-gb+f4", "en-us+m7")
"""The last one is not trained on."""
WORDS = (
    "the a this every that our".split(),  # noqa: SIM905
    "small quiet yellow heavy careful broken early wooden young distant cheap silver".split(),  # noqa: SIM905
    "farmer teacher river window garden engine letter doctor village mountain chair storm".split(),  # noqa: SIM905
    "carried watched followed opened painted forgot visited measured covered answered".split(),  # noqa: SIM905
    "the a this every that our".split(),  # noqa: SIM905
    "bridge kitchen question summer basket island record shadow journey harbor machine paper".split(),  # noqa: SIM905
    "near before under without behind after".split(),  # noqa: SIM905
    "seven those many three few other".split(),  # noqa: SIM905
    "houses children voices fields stones evenings horses papers lamps brothers".split(),  # noqa: SIM905
)
"""Of each place in a sentence."""
VOWELS = (
    *((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240)),
    *((530, 1840, 2480), (570, 840, 2410), (660, 1720, 2410)),
)
"""Resonances in Hz (Peterson and Barney 1952)."""
WIDTHS = (80.0, 110.0, 160.0)
"""Their widths in Hz."""
SYLLABLES, STEP = 12, 80
"""Of a sentence; and samples from one computed gain to the next."""


def text_of(stream: int, entry: int) -> str:
    """The words of a sentence."""
    rng = np.random.default_rng((stream, entry))
    return " ".join(words[rng.integers(len(words))] for words in WORDS)


def voice_of(stream: int, entry: int) -> int:
    """The number of its voice, from 0."""
    known = len(VOICES) - 1
    return known if stream and entry % UNSEEN == UNSEEN - 1 else entry % known


@dataclass(frozen=True)
class Spoken:
    """Has sentences spoken; an entry is the number of one, `stream` is the split's."""

    stream: int

    def name(self, entry: int) -> str:
        return f"spoken/{'val' if self.stream else 'train'}[{entry}]"

    def read(self, entry: int, load: Load) -> Any:
        words = [PROGRAM, "-v", VOICES[voice_of(self.stream, entry)], "-s", str(140 + 7 * (entry % 6)), "-w"]
        text = text_of(self.stream, entry)
        key = hashlib.blake2b(repr((_version(), words, text)).encode(), digest_size=12).hexdigest()
        path = cache_folder("spoken") / f"{key}.wav"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(f".{os.getpid()}")  # several processes may ask for it
            done = subprocess.run([*words, str(new), text], capture_output=True, text=True, check=False)
            if done.returncode or not new.is_file():
                raise UserError(f"{PROGRAM} says nothing ({done.stderr.strip() or done.returncode}); take formants.")
            new.replace(path)
        return load(str(path))


@dataclass(frozen=True)
class Formants:
    """Makes what resembles sentences; an entry is the number of one, `stream` is the split's."""

    stream: int

    def name(self, entry: int) -> str:
        return f"formants/{'val' if self.stream else 'train'}[{entry}]"

    def read(self, entry: int, load: Load) -> Any:
        rng = np.random.default_rng((self.stream, entry, 1))
        speaker = voice_of(self.stream, entry)
        size, pitch = 1 + 0.05 * (speaker - 3), 95.0 + 18 * speaker
        hiss, vowel = rng.uniform(0.03, 0.11, SYLLABLES), rng.uniform(0.09, 0.24, SYLLABLES)
        borders = np.concatenate(([0], np.cumsum(np.stack((hiss, vowel), 1).ravel()))) + 0.1
        seconds = np.arange(int((borders[-1] + 0.1) * RATE)) / RATE
        moments = seconds[::STEP]
        resonances = size * np.array(VOWELS, float)[rng.integers(len(VOWELS), size=SYLLABLES)]
        middles = (borders[1:-1:2] + borders[2::2]) / 2
        courses = [np.interp(moments, middles, row) for row in resonances.T]
        phase = 2 * np.pi * np.cumsum(pitch * (1.1 - 0.25 * seconds / seconds[-1])) / RATE
        turn = np.exp(1j * phase)
        wave, turned = np.zeros(len(seconds)), np.ones_like(turn)
        for harmonic in range(1, int(RATE / 2 / (1.1 * pitch))):
            hertz = harmonic * pitch
            gain = np.prod([_gain(hertz, *pair) for pair in zip(courses, WIDTHS, strict=True)], axis=0) / harmonic
            turned *= turn
            wave += np.interp(seconds, moments, gain) * np.imag(turned)
        wave *= _during(seconds, borders[1:-1:2], borders[2::2])
        noise = np.fft.rfft(rng.standard_normal(len(seconds)))
        places = np.fft.rfftfreq(len(seconds), 1 / RATE)
        band = np.fft.irfft(noise * np.exp(-(((places - rng.uniform(3000, 5500)) / 900) ** 2)), len(seconds))
        wave /= np.abs(wave).max()
        wave += 0.2 * band / np.abs(band).max() * _during(seconds, borders[:-1:2], borders[1::2])
        wave += 1e-3 * rng.standard_normal(len(seconds))
        return load((0.6 * wave / np.abs(wave).max()).astype(np.float32))


def _gain(hertz: float, middles: np.ndarray, width: float) -> np.ndarray:
    """What a resonance makes of a frequency; 1 far below it."""
    return middles**2 / np.hypot(middles**2 - hertz**2, width * hertz)


def _during(seconds: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """1 inside the spans, 0 outside, with slopes of 20 ms."""
    spans = zip(begins, ends, strict=True)
    return np.max([np.minimum(seconds - begin, end - seconds).clip(0, 0.02) / 0.02 for begin, end in spans], axis=0)


@cache
def _version() -> str:
    try:
        done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{PROGRAM}, which speaks the sentences, does not run ({first_line(error)}); install it, or give "
            "--data formants."
        ) from error
    return done.stdout.partition("Data at")[0].strip()


def can_speak() -> bool:
    """Whether espeak-ng is installed."""
    return shutil.which(PROGRAM) is not None


def find_spoken(source: str, request: Request) -> Openers:
    """What opens both splits of `Spoken`, of `TRAIN_SENTENCES` and `VAL_SENTENCES`.

    Raises:
        UserError: espeak-ng does not run.
    """
    _version()
    return _openers(Spoken)


def find_formants(source: str, request: Request) -> Openers:
    """What opens both splits of `Formants`."""
    return _openers(Formants)


def _openers(reader: Callable[[int], Any]) -> Openers:
    def opener(stream: int, count: int) -> Split:
        return Split(reader=reader(stream), entries=range(count), classes=())

    return Openers(lambda: opener(0, TRAIN_SENTENCES), lambda: opener(1, VAL_SENTENCES))
