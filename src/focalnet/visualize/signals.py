"""Spectrograms with what a network listened to, films with where it looked, and sounds as files."""

import io
import wave
from collections.abc import Sequence

import numpy as np
from PIL import Image

HEAT = ((0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))
"""Colors from silence to the loudest cell, as matplotlib's magma."""
ROWS = 256
"""Pixels of a spectrogram from the lowest to the highest frequency."""


def draw_spectrogram(values: np.ndarray, mask: np.ndarray | None = None) -> Image.Image:
    """A spectrogram, time from left to right and low frequencies at the bottom; RGB.

    Args:
        values: (F, N), frames and frequencies, at least 0.
        mask: (F, N), bool: the rest is shown in grey.
    """
    shares = values.T[::-1] / max(float(values.max()), 1e-9)
    pixels = _heat(shares)
    if mask is not None:
        grey = pixels.mean(2, keepdims=True).repeat(3, 2) * 0.7 + 60
        pixels = np.where(mask.T[::-1, :, None], pixels, grey.astype(np.uint8))
    columns = max(ROWS, round(ROWS * len(values) / values.shape[1]))
    return Image.fromarray(pixels).resize((columns, ROWS), Image.Resampling.BILINEAR)


def heat_maps(values: np.ndarray) -> list[Image.Image]:
    """(T, h, w) as one image per frame, from black, the least of all, to white, the largest."""
    low, high = float(values.min()), float(values.max())
    return [Image.fromarray(_heat((frame - low) / max(high - low, 1e-9))) for frame in values]


def _heat(shares: np.ndarray) -> np.ndarray:
    """(H, W), 0 to 1, in colors: (H, W, 3), uint8."""
    places = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(shares, places, channel) for channel in zip(*HEAT, strict=True)], 2).astype(np.uint8)


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A sound (T,), from -1 to 1, as a WAV file of 16 bits; a louder one is made quieter."""
    scale = 32767 / max(1.0, float(np.abs(samples).max(initial=0)))
    with io.BytesIO() as buffer:
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((samples * scale).round().astype("<i2").tobytes())
        return buffer.getvalue()


def film_strip(
    frames: Sequence[Image.Image], rows: Sequence[Sequence[Image.Image]] = (), side: int = 112
) -> Image.Image:
    """Frames beside each other, and below each what belongs to it.

    Args:
        frames: of a film, in order.
        rows: images of each frame, of any size, one sequence per row.
        side: height of a row in pixels.
    """
    width = max(1, round(side * frames[0].width / frames[0].height))
    strip = Image.new("RGB", (len(frames) * (width + 2) - 2, (1 + len(rows)) * (side + 2) - 2), "white")
    for row, images in enumerate((frames, *rows)):
        for column, image in enumerate(images):
            how = Image.Resampling.NEAREST if image.height < side else Image.Resampling.BICUBIC
            strip.paste(image.convert("RGB").resize((width, side), how), (column * (width + 2), row * (side + 2)))
    return strip
