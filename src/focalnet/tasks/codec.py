"""Speech codecs: tokens that give features back, and a decoder that makes sound of features (Della Libera et al. 2025,
2502.04465).

    features   compressor, quantizer and decompressor learn to give the features of the frozen encoder back: squared
               error, and the entropy of the tokens
    decoder    learns to make sound of the encoder's features, against discriminators (`adversary`)

The second stage never sees tokens, so neither waits for the other, and both may run at once, each with optimizers of
its own. Longer sounds are coded in pieces of about `PIECE` samples, each by itself.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from focalnet.data import Datasets, Sample
from focalnet.data.formats.sentences import can_speak
from focalnet.errors import UserError
from focalnet.inputs.audio import resample
from focalnet.inputs.mel import log_mel
from focalnet.metrics import gathered
from focalnet.metrics.speech import JUDGED_RATE, Codebook, ShareOfVariance, WordErrors, stoi
from focalnet.models.create import create_model
from focalnet.tasks.adversary import Discriminators, decoder_loss
from focalnet.tasks.base import Batch, MapDataset, Meaning, Metric, Network, Part, Section
from focalnet.tasks.coded import (
    SUFFIX,
    Coded,
    Tokens,
    aligned,
    code,
    coded_pieces,
    explain_sound,
    read_tokens,
    speak,
    within,
)
from focalnet.tasks.signal_options import CodecOptions
from focalnet.tasks.signals import SignalTask
from focalnet.weights.files import checksum
from focalnet.weights.spec import ModelSpec

log = logging.getLogger(__name__)

SHOWN = 6
"""Sounds in the report."""
SPEECH = "Decoded speech"
"""The part of the report about what is heard."""


@dataclass(frozen=True, kw_only=True)
class Codec(CodecOptions, SignalTask):
    """Training of a speech codec."""

    meanings: ClassVar[Mapping[str, Meaning]] = {
        "fidelity": Meaning(
            "fidelity",
            "share of the variance that is explained: of the features (--stage features), else of the log-mels of the "
            "decoded speech",
        ),
        "feature_error": Meaning("feature error", "squared error of the features, as a share of their variance"),
        "entropy": Meaning("entropy", "of the tokens, in bits; at most the bits of a token", "Tokens"),
        "codebook_use": Meaning("codebook use", "share of the tokens that occur", "Tokens"),
        "kbps": Meaning("bit rate", "kbit per second of speech", "Tokens"),
        "mel_error": Meaning("log-mel error", "mean difference of log-mels, of what tokens give back", SPEECH),
        "resynthesis_error": Meaning("without tokens", "the same of what the encoder's features give back", SPEECH),
        "stoi": Meaning("STOI", "intelligibility, at most 1, by pystoi", SPEECH),
        "dwer": Meaning("dWER (PocketSphinx)", "words understood otherwise than in the original, per word", SPEECH),
    }

    def commands(self, run: str) -> list[tuple[str, str]]:
        return [
            (f"focalnet predict {run} SOUND --out tokens.npz", "the tokens of a sound"),
            (f"focalnet predict {run} tokens.npz --out decoded.wav", "the sound of tokens"),
            super().commands(run)[1],
        ]

    def locate_data(self, recorded: bool) -> str | None:
        """As of other tasks; what is made here is recorded as what it is: another machine may lack espeak-ng."""
        if self.data in (None, self.embedded.data) and not recorded:
            if can_speak():
                return self.embedded.data
            log.info("espeak-ng is not installed: synthetic vowels and hisses are learned instead of sentences")
            return "formants"
        return self.data if self.source == self.embedded.data else super().locate_data(recorded)

    def build_model(self, data: Datasets) -> Network:
        model = create_model(self.model, weights=self.weights, recompute=self.recompute)
        model.spec = model.spec.replace(task=self.name)
        if self.stage != "features" and model.sample_rate_out != model.sample_rate:
            raise UserError(
                f"{self.model} speaks at {model.sample_rate_out} samples per second and hears {model.sample_rate}: how "
                "such a decoder is trained is not published; take --stage features."
            )
        model.requires_grad_(False)
        if self.stage != "features":
            model.discriminators = Discriminators(self.discriminator_share)
        for part in self.parts(model).values():
            part.module.requires_grad_(True)
        return model

    def parts(self, model: Network) -> Mapping[str, Part]:
        parts = {}
        if self.stage != "decoder":
            parts["features"] = Part(nn.ModuleList([model.compressor, model.decompressor]))
        if self.stage != "features":
            options = {
                "optimizer": "adamw",
                "optimizer_options": {"betas": (0.8, 0.99), "decay_all": True},
                **({} if self.decoder_lr is None else {"lr": self.decoder_lr}),
            }
            parts["discriminators"] = Part(model.discriminators, options, helper=True)
            parts["decoder"] = Part(model.decoder, options)
        return parts

    def example(self, spec: ModelSpec, sample: Sample, *, train: bool) -> tuple[Tensor, Tensor]:
        """A clip (T,) and where in it the decoder's part begins, from 0 to 1."""
        wave = torch.from_numpy(within(sample.signal))
        if not train:
            return wave, torch.zeros(())
        length = round(self.seconds * spec.preprocessing.sample_rate)
        begin, place = torch.rand(2)
        start = int(begin * max(len(wave) - length + 1, 1))
        clip = wave[start : start + length]
        return nn.functional.pad(clip, (0, length - len(clip))), place

    def collate(self, spec: ModelSpec, examples: Sequence[tuple[Tensor, Tensor]], *, train: bool) -> Batch:
        waves, places = zip(*examples, strict=True)
        return {"waves": torch.stack(waves), "places": torch.stack(places)}

    def eval_batch_size(self, spec: ModelSpec, dataset: MapDataset, wish: int) -> int:
        return 1  # sounds differ in length, and silence behind them would be heard

    def shared(self, model: Network, batch: Batch) -> Batch:
        with torch.no_grad():
            return {**batch, "features": model.encoder(batch["waves"])}

    def loss(self, model: Network, batch: Batch) -> Mapping[str, Tensor]:
        return model.loss(batch["waves"], batch.get("features"))

    def part_loss(self, part: str, model: Network, batch: Batch) -> Mapping[str, Tensor]:
        if part == "features":
            return self.loss(model, batch)
        features, real = self._segments(model, batch)
        with torch.set_grad_enabled(part == "decoder" and torch.is_grad_enabled()):
            decoded = model.decoder(features)[:, : real.shape[1]]
        if part == "discriminators":
            return model.discriminators.loss(real, decoded)
        return decoder_loss(model.discriminators, real, decoded, model.sample_rate)

    def _segments(self, model: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        """A part of the features of each clip, (B, n, F), and of its samples, (B, n · hop)."""
        features, hop = batch["features"], model.encoder.frame
        count = min(self.segment // hop, features.shape[1])
        last = features.shape[1] - count
        starts = (batch["places"] * (last + 1)).long().clamp(max=last)
        frames = starts[:, None] + torch.arange(count, device=starts.device)
        samples = hop * starts[:, None] + torch.arange(count * hop, device=starts.device)
        cut = features.gather(1, frames[..., None].expand(-1, -1, features.shape[2]))
        return cut, batch["waves"].gather(1, samples.clamp(max=batch["waves"].shape[1] - 1))

    def metric(self, spec: ModelSpec) -> Metric:
        return CodecMetric(self)

    def render(self, model: Network, dataset: MapDataset, details: Mapping[str, Any]) -> list[Section]:
        samples = [dataset[index] for index in range(0, len(dataset), max(1, len(dataset) // SHOWN))][:SHOWN]
        shots = []
        for sample, prediction in zip(samples, self.predict(model, [s.signal for s in samples]), strict=True):
            shots += prediction.shots(sample.path)
        text = "Sounds of the validation split, and what their tokens give back."
        return [Section("Reconstruction", text, gallery=shots, columns=2)]

    def read(self, how: Any, source: Any) -> Any:
        """A sound, or the `Tokens` of a file of them."""
        if isinstance(source, str | Path) and Path(source).suffix.lower() == SUFFIX:
            return read_tokens(source)
        return super().read(how, source)

    def predict(self, model: Network, signals: Sequence[Any]) -> list[Coded]:
        codec = checksum(model)
        return [
            speak(model, signal, codec) if isinstance(signal, Tokens) else code(model, signal, codec)
            for signal in signals
        ]

    def explained(self, model: Network, signal: Any) -> Image:
        return explain_sound(model, signal)


class CodecMetric:
    """How well sounds come back.

    Args:
        task: says what is trained, and what is measured besides.
    """

    def __init__(self, task: Codec) -> None:
        self.stage, self.codebook = task.stage, Codebook()
        self.features, self.mels = ShareOfVariance(), ShareOfVariance()
        self.words = WordErrors() if task.dwer else None
        self.means: dict[str, list[float]] = {"mel_error": [], "resynthesis_error": [], "stoi": []}
        self.kbps = 0.0

    def update(self, model: Network, batch: Batch) -> None:
        self.codebook.bits, self.kbps = model.bits, model.sample_rate / model.frame * model.bits / 1000
        for index, wave in zip(batch["index"].tolist(), batch["waves"], strict=True):
            if index >= 0:
                self._add(model, wave.float().cpu().numpy())

    def _add(self, model: Network, wave: np.ndarray) -> None:
        rate = model.sample_rate
        mels: dict[str, list[Tensor]] = {"original": [], "decoded": [], "resynthesis": []}
        heard = []
        for piece, outputs in coded_pieces(model, wave):
            features, quantized = outputs.features[0].float(), outputs.quantized[0].float()
            frames = min(len(features), len(quantized))
            self.features.update(quantized[:frames], features[:frames])
            self.codebook.update(outputs.tokens)
            sounds = {"original": piece, "decoded": outputs.wave[0].float().cpu().numpy()}
            if self.stage != "features":
                sounds["resynthesis"] = model.decoder(outputs.features)[0].float().cpu().numpy()
            for name, sound in sounds.items():
                sounds[name] = aligned(sound, rate if name == "original" else model.sample_rate_out, piece, rate)
                mels[name].append(log_mel(torch.from_numpy(sounds[name])[None], rate)[0])
            heard.append(sounds["decoded"])
        wanted, judged = torch.cat(mels["original"]), "resynthesis" if self.stage == "decoder" else "decoded"
        self.mels.update(torch.cat(mels[judged]), wanted)
        for name, found in (("mel_error", "decoded"), ("resynthesis_error", "resynthesis")):
            if mels[found]:
                self.means[name].append(float(nn.functional.l1_loss(torch.cat(mels[found]), wanted)))
        decoded = np.concatenate(heard)
        intelligible = stoi(wave, decoded, rate)
        self.means["stoi"] += [] if intelligible is None else [intelligible]
        if self.words is not None:
            self.words.update(resample(wave, rate, JUDGED_RATE), resample(decoded, rate, JUDGED_RATE))

    def compute(self) -> dict[str, float]:
        shares = {"features": self.features.compute(), "mels": self.mels.compute()}
        missing = shares["features" if self.stage == "features" else "mels"]
        metrics = {"fidelity": 0.0 if missing is None else 1 - missing}
        if shares["features"] is not None:
            metrics["feature_error"] = shares["features"]
        metrics |= {**self.codebook.compute(), "kbps": max(gathered(self.kbps))}
        for name, values in self.means.items():
            found = [value for part in gathered(values) for value in part]
            metrics |= {name: math.fsum(found) / len(found)} if found else {}
        return metrics | ({} if self.words is None else self.words.compute())

    def details(self) -> dict[str, Any]:
        return {}
