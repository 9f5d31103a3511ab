"""Hostile sounds. No command takes them yet: `sound PATH`, of the worker, reads one as `inputs.Audio` does."""

import io
import random
import struct
from pathlib import Path

import numpy as np
from files import Commands
from values import NO_FILES, damaged, no_file

FORMATS = (
    ("wav", "PCM_U8"), ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_32"), ("wav", "FLOAT"), ("wav", "DOUBLE"), ("wav", "ULAW"),
    ("flac", "PCM_16"), ("flac", "PCM_24"), ("ogg", "VORBIS"), ("aiff", "PCM_S8"), ("aiff", "FLOAT"), ("mp3", "MPEG_LAYER_III"),
)  # fmt: skip


def encoded(rng: random.Random) -> tuple[str, bytes]:
    """A sound of a length, rate, number of channels and depth that somebody records with."""
    import soundfile

    suffix, depth = rng.choice(FORMATS)
    length, channels = rng.choice([1, 1, 2, 7, 200, 5000]), rng.choice([1, 1, 2, 6])
    rate = rng.choice([1, 7, 8000, 16000, 22050, 44100, 96000, 192000, 655350])
    if suffix in ("ogg", "mp3"):
        rate, channels = rng.choice([16000, 44100, 48000]), min(channels, 2)
    wave = np.random.default_rng(rng.randrange(100)).uniform(-1, 1, (length, channels))
    wave *= rng.choice([0.0, 1e-9, 1.0, 1e30 if depth in ("FLOAT", "DOUBLE") else 0.5])
    if depth in ("FLOAT", "DOUBLE") and rng.random() < 0.4:
        wave[rng.randrange(length)] = rng.choice([np.nan, np.inf, -np.inf])
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, wave, rate, format=suffix.upper(), subtype=depth)
    except (soundfile.SoundFileError, ValueError):
        soundfile.write(buffer, wave[:, :1], 16000, format="WAV", subtype="PCM_16")
    return suffix, buffer.getvalue()


def headed(rng: random.Random) -> bytes:
    """A WAV whose header lies."""
    huge = rng.choice([0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1])
    rate, channels = rng.choice([0, 1, 16000, huge]), rng.choice([0, 1, 2, 255, 65535])
    kind, bits = rng.choice([0, 1, 2, 3, 6, 7, 17, 49, 65534]), rng.choice([0, 1, 8, 12, 16, 24, 32, 64, 65535])
    body = struct.pack("<HHIIHH", kind, channels, rate, huge, rng.choice([0, 1, 2, 4, 65535]), bits)
    data = rng.randbytes(rng.choice([0, 1, 3, 400]))
    parts = b"fmt " + struct.pack("<I", rng.choice([16, 18, huge])) + body
    parts += b"data" + struct.pack("<I", rng.choice([len(data), huge])) + data
    return (
        rng.choice([b"RIFF", b"RIFX", b"RF64"])
        + struct.pack("<I", rng.choice([len(parts) + 4, huge]))
        + b"WAVE"
        + parts
    )


def sound(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    suffix, content = encoded(rng)
    path = folder / f"x.{suffix}"
    match index % 5:
        case 0:
            no_file(path, rng.choice(NO_FILES), rng)
        case 1:
            path.write_bytes(content)
        case 2:
            path = folder / "x.wav"
            path.write_bytes(headed(rng))
        case 3:
            path.write_bytes(damaged(content, rng))
        case _:
            path.write_bytes(content[: rng.randrange(len(content))])
    return [["sound", path.name]], b""
