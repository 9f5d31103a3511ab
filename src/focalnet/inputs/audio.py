"""Sounds: how a file becomes a waveform, and a waveform a spectrogram.

wave            (T,), mono, at `sample_rate`; each clip is divided by its largest value before anything else
spectrum        the short-time Fourier transform, periodic Hamming window, centred, zeros around
spectrogram     log(1 + |spectrum|), (T // hop_length + 1, n_fft // 2 + 1): time, frequency
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from focalnet.errors import BadFileError, MissingExtraError, UserError, counted, first_line

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 2**27
"""Most samples of a file, and of what it is resampled to: two hours at 16,000 per second."""
LEAST_RATE = 100
"""Fewest samples per second of a file: some kilobytes at one per second would be an hour at 16,000."""
MOST_SECONDS = 3600.0
LEAST_POWER = 1e-14
"""Added to the power before the root, which has no slope at zero."""


@dataclass(frozen=True, kw_only=True)
class Audio:
    """How a network wants its sounds. The defaults are those of Della Libera et al. 2024 (2402.02754).

    Raises:
        UserError: a length below 1, or a window longer than its transform.
    """

    kind: ClassVar[str] = "audio"
    noun: ClassVar[str] = "sound"
    suffixes: ClassVar[frozenset[str]] = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"})

    sample_rate: int = 16000
    """Samples per second."""
    n_fft: int = 1024
    """Samples of one transform."""
    win_length: int = 372
    """Samples under the window."""
    hop_length: int = 186
    """Samples from one transform to the next."""
    input_size: int = 224
    """Side in pixels of the square image that the network sees a spectrogram as."""
    seconds: float | None = None
    """Length of a clip: the middle of a longer sound is heard, and a shorter one is followed by silence; None hears the
    whole."""
    antialias: bool = True
    """Whether shrinking a spectrogram averages what it drops; torchvision did not before version 0.17."""
    waveform: bool = False
    """Whether the network hears the waveform as it is; what is said of spectrograms then means nothing."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "win_length", "hop_length", "input_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}; give 1 or more.")
        if self.seconds is not None and not 0 < self.seconds <= MOST_SECONDS:
            raise UserError(f"seconds={self.seconds}; give the length of a clip, up to {MOST_SECONDS:.0f} seconds.")
        if self.win_length > self.n_fft:
            raise UserError(f"win_length={self.win_length} is more than n_fft={self.n_fft}; take a longer transform.")

    def read(self, source: Any, /, *, name: str | None = None) -> np.ndarray:
        """The waveform of a file, (T,), float32: channels averaged, resampled to `sample_rate`.

        Args:
            source: a path, an open binary file, the bytes of a file, or samples at `sample_rate`: an array (T,), or
                (T, channels).
            name: what errors call it.

        Raises:
            BadFileError: it is no sound, damaged, empty, or holds numbers that are no numbers.
            MissingExtraError: soundfile is not installed.
        """
        if isinstance(source, np.ndarray):
            return _mono(source, name or "the array")
        name = name or ("the bytes" if isinstance(source, bytes) else str(source))
        try:
            import soundfile
        except ImportError:
            raise MissingExtraError("Reading sounds", "audio") from None
        if isinstance(source, str | Path) and not Path(source).is_file():
            raise BadFileError(f"{name} is no file; check the path.")
        try:
            with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
                rate, size = file.samplerate, file.frames * file.channels
                if rate < 1 or max(size, file.frames * self.sample_rate / rate) > LONGEST:
                    size = f"{file.frames} x {counted(file.channels, 'channels')} at {rate} per second"
                    raise UserError(f"{name} has more than {LONGEST:,} samples ({size}); cut it into pieces.")
                if rate < LEAST_RATE:
                    raise BadFileError(f"{name} has {counted(rate, 'samples')} per second, no sound; remove it.")
                samples = file.read(dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise BadFileError(
                f"{name} cannot be read as a sound ({first_line(error)}); replace or remove it."
            ) from error
        wave = resample(_mono(samples, name), rate, self.sample_rate)
        if not len(wave):
            raise BadFileError(f"{name} has too few samples ({len(samples)} at {rate} per second); remove it.")
        return wave

    def describe(self) -> str:
        """What is done to a sound, one sentence for the model card."""
        if self.waveform:
            return f"Mono at {self.sample_rate} samples per second, from -1 to 1."
        return (
            f"Mono at {self.sample_rate} samples per second, divided by the largest; log(1 + |STFT|) of {self.n_fft} "
            f"samples under a Hamming window of {self.win_length}, every {self.hop_length}; resized to "
            f"{self.input_size} x {self.input_size}{' with' if self.antialias else ' without'} antialiasing."
        )

    def __call__(self, signal: Any, /) -> "Tensor":
        """(T,), float32: the waveform itself, `seconds` of it; the network makes its spectrogram."""
        import torch

        return torch.as_tensor(self.clip(np.asarray(signal, dtype=np.float32)))

    def clip(self, wave: np.ndarray, place: float = 0.5) -> np.ndarray:
        """`seconds` of a waveform: where it is longer, from `place` of what is too much, 0 to 1."""
        if self.seconds is None:
            return wave
        length = max(1, round(self.seconds * self.sample_rate))
        start = int(place * max(len(wave) - length, 0))
        return np.pad(wave[start : start + length], (0, max(length - len(wave), 0)))

    def spectrum(self, waves: "Tensor") -> "Tensor":
        """(B, T) -> (B, T // hop_length + 1, n_fft // 2 + 1), complex."""
        import torch

        window = torch.hamming_window(self.win_length, dtype=waves.dtype, device=waves.device)
        return torch.stft(
            waves, self.n_fft, self.hop_length, self.win_length, window, pad_mode="constant", return_complex=True
        ).transpose(1, 2)

    def spectrogram(self, spectrum: "Tensor") -> "Tensor":
        """log(1 + |spectrum|), of the same shape."""
        return (spectrum.real.square() + spectrum.imag.square() + LEAST_POWER).sqrt().log1p()

    def waves(self, spectrum: "Tensor") -> "Tensor":
        """The inverse of `spectrum`: (B, F, n_fft // 2 + 1) -> (B, hop_length · (F - 1))."""
        import torch

        if spectrum.shape[1] < 2:
            return spectrum.real.new_zeros(len(spectrum), 0)
        window = torch.hamming_window(self.win_length, dtype=spectrum.real.dtype, device=spectrum.device)
        return torch.istft(spectrum.transpose(1, 2), self.n_fft, self.hop_length, self.win_length, window)


def _mono(samples: np.ndarray, source: Any) -> np.ndarray:
    if not samples.size or samples.ndim > 2:
        raise BadFileError(f"{source} holds no samples; replace or remove it.")
    if not np.isfinite(samples).all():
        raise BadFileError(f"{source} holds samples that are infinite or no numbers; replace or remove it.")
    return (samples if samples.ndim == 1 else samples.mean(axis=1)).astype(np.float32, copy=False)


def resample(wave: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """(T,) at `rate` samples per second -> (T · wanted / rate,): by soxr where it is installed, else by scipy."""
    if rate == wanted:
        return wave
    try:
        import soxr

        return soxr.resample(wave, rate, wanted).astype(np.float32)
    except ImportError:
        pass
    try:
        from scipy.signal import resample_poly
    except ImportError:
        raise MissingExtraError(f"Sounds at {rate} samples per second", "audio") from None
    common = math.gcd(rate, wanted)
    return resample_poly(wave, wanted // common, rate // common).astype(np.float32)
