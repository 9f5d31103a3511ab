"""Sounds as tokens and back: what a codec says of a sound, and the files that hold it.

A file of tokens is an .npz without pickles:

    tokens   (n,), whole numbers
    pieces   (P, 2), tokens and samples (of the original, at the codec's rate) of each piece that was coded by itself
    bits     of a token
    codec    a checksum of the weights that made them; other weights give another sound, and are refused
"""

import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from focalnet.errors import BadFileError, UserError, first_line
from focalnet.inputs.audio import LONGEST, resample
from focalnet.inputs.mel import log_mel
from focalnet.metrics.speech import Codebook, stoi
from focalnet.modulation import capture
from focalnet.tasks.base import Network
from focalnet.visualize.page import Group, Section, Shot, Value, page
from focalnet.visualize.signals import draw_spectrogram, heat_maps, wav

PIECE = 480_000
"""Samples of a piece, about: attention over minutes of sound would need more memory than there is."""
SUFFIX = ".npz"
STRIP, MOST_DRAWN = 16, 800
"""Height of a row of an explanation, in pixels; and most frames of a spectrogram."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a sound.

    Attributes:
        tokens: (n,), int64.
        pieces: (P, 2), int64, tokens and samples of each piece; 0 samples where their number is not known.
        bits: of a token; 0 where that is not known.
        codec: checksum of the weights that made them; empty where that is not known.
    """

    tokens: np.ndarray
    pieces: np.ndarray
    bits: int = 0
    codec: str = ""

    def file(self) -> bytes:
        """The content of a file of them."""
        buffer = io.BytesIO()
        kind = np.min_scalar_type(2**self.bits - 1)
        np.savez(
            buffer, tokens=self.tokens.astype(kind), pieces=self.pieces, bits=np.array(self.bits),
            codec=np.array(self.codec),
        )  # fmt: skip
        return buffer.getvalue()


@dataclass(frozen=True)
class Coded:
    """What a codec makes of a sound.

    Attributes:
        tokens: the sound as tokens.
        wave: (T,), what they give back.
        sample_rate: of that, per second.
        token_rate: tokens per second.
        original: the sound at `original_rate`; None where tokens were all that was given.
        original_rate: samples per second.
    """

    tokens: Tokens
    wave: np.ndarray
    sample_rate: int
    token_rate: float
    original: np.ndarray | None
    original_rate: int

    @property
    def kbps(self) -> float:
        """Kilobits per second of sound."""
        return self.token_rate * self.tokens.bits / 1000

    def errors(self) -> dict[str, float]:
        """How far the decoded sound is from the original, as far as that is known: `mel_error`, `stoi`."""
        if self.original is None:
            return {}
        decoded = aligned(self.wave, self.sample_rate, self.original, self.original_rate)
        ours, theirs = (torch.from_numpy(wave)[None] for wave in (decoded, self.original))
        mels = log_mel(ours, self.original_rate), log_mel(theirs, self.original_rate)
        found = {"mel_error": float(torch.nn.functional.l1_loss(*mels))}
        intelligible = stoi(self.original, decoded, self.original_rate)
        return found if intelligible is None else {**found, "stoi": intelligible}

    def to_dict(self) -> dict[str, Any]:
        return {
            "seconds": len(self.wave) / self.sample_rate, "bits": self.tokens.bits, "kbps": self.kbps, **self.errors(),
            "tokens": self.tokens.tokens.tolist(),
        }  # fmt: skip

    def summary(self) -> str:
        errors = "".join(f", {SAID[name]} {value:.3f}" for name, value in self.errors().items())
        count = len(self.tokens.tokens)
        seconds = len(self.wave) / self.sample_rate
        return f"{seconds:.2f} s, {count} tokens of {self.tokens.bits} bits, {self.kbps:.2f} kbit/s{errors}"

    def draw(self, signal: Any) -> Image.Image:
        """Log-mels of the original above those of the decoded sound."""
        drawn = [draw_log_mels(self.wave, self.sample_rate)]
        if self.original is not None:
            drawn.insert(0, draw_log_mels(self.original, self.original_rate))
        return stacked(drawn)

    def maps(self) -> dict[str, Image.Image]:
        return {}

    def written(self, kind: str) -> bytes:
        """The content of a file of this ending: "npz", the tokens, or "wav", the decoded sound."""
        return self.tokens.file() if kind == "npz" else wav(self.wave, self.sample_rate)

    def files(self) -> dict[str, bytes]:
        return {"decoded.wav": self.written("wav"), "tokens.npz": self.written("npz")}

    @staticmethod
    def page(kept: Sequence[tuple[str, "Coded"]]) -> bytes:
        """A page to hear sounds and what their tokens give back, with the figures of each and of all."""
        codebook = Codebook(kept[0][1].tokens.bits)
        rows: list[list[Any]] = [["sound", "seconds", "tokens", "kbit/s", *SAID.values()]]
        for name, coded in kept:
            codebook.update(torch.from_numpy(coded.tokens.tokens))
            seconds, errors = len(coded.wave) / coded.sample_rate, coded.errors()
            figures = (f"{errors[each]:.3f}" if each in errors else "–" for each in SAID)
            rows.append([name, f"{seconds:.2f}", len(coded.tokens.tokens), f"{coded.kbps:.2f}", *figures])
        found = codebook.compute()
        values = [
            Value("bit rate", kept[0][1].kbps, "kbit per second of speech"),
            Value("entropy", found["entropy"], f"of all tokens here, of {codebook.bits} bits at most"),
            Value("codebook use", found["codebook_use"], "share of the tokens that occur"),
        ]
        shots = [shot for name, coded in kept for shot in coded.shots(name)]
        sections = [
            Section("", groups=[Group("Tokens", values)]),
            Section("Sounds", table=rows, folded=len(rows) > 20),
            Section("Reconstruction", "Sounds, and what their tokens give back.", gallery=shots, columns=2),
        ]
        return page("Decoded speech", sections)

    def shots(self, name: str) -> list[Shot]:
        """The original and the decoded sound, to look at and to hear; of long ones the beginning."""
        sounds = [("decoded", self.summary(), self.wave, self.sample_rate)]
        if self.original is not None:
            sounds.insert(0, ("original", name, self.original, self.original_rate))
        return [
            Shot(draw_log_mels(wave[:PIECE], rate), caption, note, sound=wav(wave[:PIECE], rate))
            for caption, note, wave, rate in sounds
        ]


SAID = {"mel_error": "log-mel error", "stoi": "STOI"}


def draw_log_mels(wave: np.ndarray, sample_rate: int) -> Image.Image:
    """Log-mels of a waveform (T,), time from left to right; of a long one, every so often."""
    hop = max(320, len(wave) // MOST_DRAWN)
    values = log_mel(torch.from_numpy(np.array(wave, np.float32))[None], sample_rate, hop=hop)[0].numpy()
    return draw_spectrogram(values - values.min())


def stacked(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one width, below each other."""
    width = images[0].width
    images = [image if image.width == width else image.resize((width, image.height)) for image in images]
    whole = Image.new("RGB", (width, sum(image.height + 4 for image in images) - 4), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height + 4
    return whole


def explain_sound(model: Network, wave: np.ndarray) -> Image.Image:
    """How long the modulator of each focal block is over time, between log-mels of a sound and of what comes back."""
    wave = within(wave[:PIECE])
    with capture(model) as parts:
        coded = code(model, wave)
    above, below = (draw_log_mels(*pair) for pair in ((wave, model.sample_rate), (coded.wave, coded.sample_rate)))
    strips = []
    for part in parts.values():
        lengths = part.modulator[0].float().norm(dim=-1).cpu().numpy()
        strips.append(heat_maps(lengths[None, None])[0].resize((above.width, STRIP), Image.Resampling.NEAREST))
    return stacked([above, *strips, below])


def aligned(wave: np.ndarray, sample_rate: int, original: np.ndarray, original_rate: int) -> np.ndarray:
    """A decoded sound at the rate and length of the original."""
    wave = resample(wave, sample_rate, original_rate)
    return np.pad(wave, (0, max(len(original) - len(wave), 0)), mode="edge")[: len(original)]


def pieces_of(model: Network, wave: np.ndarray) -> Iterator[np.ndarray]:
    """A sound (T,) in pieces of nearly equal length, in multiples of what one token or chunk stands for."""
    unit = math.lcm(model.frame, model.chunk_size or 1)
    count = max(-(-len(wave) // PIECE), 1)
    step = -(-len(wave) // (count * unit)) * unit
    for start in range(0, len(wave), step):
        yield wave[start : start + step]


def coded_pieces(model: Network, wave: np.ndarray) -> Iterator[tuple[np.ndarray, Any]]:
    """Each piece of a sound with what the network gives for it, a batch of one."""
    weight = next(model.parameters())
    for piece in pieces_of(model, wave):
        with torch.inference_mode():
            yield piece, model(torch.from_numpy(np.array(piece, np.float32))[None].to(weight))


def within(wave: np.ndarray) -> np.ndarray:
    """A sound (T,) from -1 to 1: one of floats that is louder is made quieter."""
    wave = np.asarray(wave, np.float32)
    return wave / np.float32(max(np.abs(wave).max(initial=0), 1))


def code(model: Network, wave: np.ndarray, codec: str = "") -> Coded:
    """A sound (T,) as tokens, and back."""
    wave = within(wave)
    tokens, pieces, waves = [], [], []
    for piece, outputs in coded_pieces(model, wave):
        tokens.append(outputs.tokens[0].cpu().numpy())
        pieces.append((len(tokens[-1]), len(piece)))
        waves.append(outputs.wave[0].float().cpu().numpy())
    coded = Tokens(np.concatenate(tokens), np.array(pieces, np.int64), model.bits, codec)
    return _coded(model, coded, np.concatenate(waves), wave)


def speak(model: Network, coded: Tokens, codec: str = "") -> Coded:
    """The sound of tokens.

    Raises:
        UserError: another codec made them.
    """
    if coded.codec and codec and coded.codec != codec:
        raise UserError("the tokens were made by a codec of other weights, to which they mean another sound: take it.")
    if coded.bits not in (0, model.bits):
        raise UserError(f"the tokens have {coded.bits} bits, those of this codec {model.bits}: take the codec of them.")
    device, waves = next(model.parameters()).device, []
    for part, samples in zip(np.split(coded.tokens, coded.pieces[:-1, 0].cumsum()), coded.pieces[:, 1], strict=True):
        with torch.inference_mode():
            wave = model.decode(torch.from_numpy(part)[None].to(device))[0].float().cpu().numpy()
        whole = len(part) * model.frame  # and what is too little for another token
        known = int(samples) if 0 < samples <= whole + 2 * model.frame else whole
        length = known * model.sample_rate_out // model.sample_rate
        waves.append(np.pad(wave, (0, max(length - len(wave), 0)), mode="edge")[:length])
    tokens = Tokens(coded.tokens, coded.pieces, model.bits, coded.codec)
    return _coded(model, tokens, np.concatenate(waves), None)


def _coded(model: Network, tokens: Tokens, wave: np.ndarray, original: np.ndarray | None) -> Coded:
    return Coded(tokens, wave, model.sample_rate_out, model.sample_rate / model.frame, original, model.sample_rate)


def read_tokens(path: str | Path) -> Tokens:
    """The tokens in a file; without `pieces` they are one, of a length that nobody knows.

    Raises:
        BadFileError: it is no file of tokens.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 8 * LONGEST:
                raise UserError(f"{path} has more tokens than a sound may have samples; cut it into pieces.")
        with np.load(path, allow_pickle=False) as content:
            tokens = content["tokens"]
            pieces = content["pieces"] if "pieces" in content else np.array([[len(tokens), 0]])
            bits = int(content["bits"]) if "bits" in content else 0
            codec = str(content["codec"]) if "codec" in content else ""
    except UserError:
        raise
    except Exception as error:
        raise BadFileError(f"{path} cannot be read as tokens ({first_line(error)}); make it again.") from error
    whole = tokens.ndim == 1 and tokens.size and tokens.dtype.kind in "iu" and tokens.max(initial=0) < 2**62
    table = pieces.ndim == 2 and pieces.shape[1] == 2 and pieces.dtype.kind in "iu"
    if not (whole and table and pieces[:, 0].min() > 0 and int(pieces[:, 0].sum()) == len(tokens) and 0 <= bits <= 62):
        raise BadFileError(f"{path} holds no row of tokens with the lengths of its pieces; make it again.")
    return Tokens(tokens.astype(np.int64), pieces.astype(np.int64), bits, codec)
