"""Hostile sounds, and folders of classes of sounds and of films."""

import io
import random
import shutil
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
    return [["predict", str(base / "networks" / "sound"), path.name, "--json"]], b""


def sounds(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    """A folder of classes of sounds, with some of its files changed."""
    for path in some(base / "sounds", folder / "sounds", rng):
        suffix, content = encoded(rng)
        match rng.randrange(4):
            case 0:
                no_file(path, rng.choice(NO_FILES), rng)
            case 1:
                path.with_suffix(f".{suffix}").write_bytes(content)
            case 2:
                path.write_bytes(damaged(path.read_bytes(), rng))
            case 3:
                path.write_bytes(headed(rng))
    more = ["--seconds", "0.2", "--size", "32"]
    return [learned("sound", "sound_minifocal_32", "sounds", rng, index, base, more)], b""


def films(rng: random.Random, index: int, folder: Path, base: Path) -> Commands:
    """A folder of classes of films, with some of its files changed."""
    for path in some(base / "films", folder / "films", rng):
        match rng.randrange(4):
            case 0:
                no_file(path, rng.choice(NO_FILES), rng)
            case 1:
                path.write_bytes(path.read_bytes()[: rng.randrange(400)])
            case 2:
                path.write_bytes(damaged(path.read_bytes(), rng))
            case 3:
                shutil.copy(rng.choice(sorted((base / "pictures").iterdir())), path)
    more = ["--frames", "2", "--image-size", "16"]
    return [learned("video", "video_focalnet_minifocal_32", "films", rng, index, base, more)], b""


def some(good: Path, data: Path, rng: random.Random) -> list[Path]:
    """Copy a folder of data; returns one of its files, a class, or all of them."""
    shutil.copytree(good, data)
    files = sorted(path for path in data.rglob("*") if path.is_file())
    if rng.random() < 0.1:
        shutil.rmtree(files[0].parent)
        files = [path for path in files if path.exists()]
    one = rng.choice(files)
    return rng.choice([[one], [one], files[:3], files])


def learned(task: str, model: str, data: str, rng: random.Random, index: int, base: Path, more: list[str]) -> list[str]:
    if index % 5 == 0:
        return ["train", "--task", task, "--model", model, "--data", data, "--out", "out/run", "--epochs", "1", "--batch-size", "2",
                "--workers", "0", "--weights", "None", "--precision", "fp32", "--on-bad-file", rng.choice(["stop", "skip"]), *more]  # fmt: skip
    network = str(base / "networks" / model.removesuffix("_minifocal_32"))
    if index % 5 == 1:
        return ["predict", network, data, "--json"]
    return ["evaluate", network, "--data", data, "--workers", "0"]
