"""FocalCodec beside the published code, and its files in both published layouts."""

import json
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import focalnet
from focalnet.models.focalcodec.layouts import LAYOUTS
from focalnet.models.focalcodec.model import FocalCodec
from focalnet.models.registry import get_family

FIXTURE = Path(__file__).parents[2] / "fixtures" / "focalcodec"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
REFERENCE = np.load(FIXTURE / "reference.npz")
OLD, NEW, OURS = LAYOUTS


@cache
def weights_of(name: str) -> dict[str, torch.Tensor]:
    """Drawn weights of a codec, under the names of v0.0.2."""
    spec = NEW.described(MADE["CONFIGS"][name], "config.json", {})
    codec = get_family("focalcodec").build(None, 0, spec.head_options)
    return MADE["draw"](NEW.write(codec.state_dict()))


def folder_of(name: str, path: Path, weights: dict[str, torch.Tensor] | None = None) -> Path:
    """A published folder."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(MADE["CONFIGS"][name]))
    tensors = weights_of(name) if weights is None else weights
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path / "model.safetensors")
    return path


@pytest.fixture(scope="module")
def codecs(tmp_path_factory) -> dict[str, FocalCodec]:
    root = tmp_path_factory.mktemp("codecs")
    return {name: focalnet.create_model(weights=folder_of(name, root / name)) for name in MADE["CONFIGS"]}


def expected(name: str, key: str) -> torch.Tensor:
    return torch.from_numpy(REFERENCE[f"{name}.{key}"])


def distance(values: torch.Tensor, name: str, key: str) -> float:
    """The largest difference, in standard deviations of the expected values."""
    wanted = expected(name, key)
    return float((values[:, : wanted.shape[1]] - wanted).abs().max() / wanted.std())


@pytest.mark.parametrize("name", MADE["CONFIGS"])
def test_features_latents_tokens_and_sound(codecs, name):
    codec, waves = codecs[name], MADE["sounds"](MADE["SAMPLES"][name])
    with torch.no_grad():
        outputs = codec(waves)
    for key, values in (("features", outputs.features), ("latents", outputs.latents)):
        assert distance(values, name, key) <= 1e-4, key
    assert torch.equal(outputs.tokens.short(), expected(name, "tokens"))
    assert torch.equal(codec.encode(waves), outputs.tokens)
    assert distance(outputs.quantized, name, "quantized") <= 1e-4
    assert outputs.wave.shape[1] == waves.shape[1] * codec.sample_rate_out // 16000
    assert distance(outputs.wave, name, "sound") <= 1e-4
    decoded = codec.decode(outputs.tokens)
    assert torch.equal(decoded[:, :4000], outputs.wave[:, :4000])
    assert decoded.shape[1] == outputs.tokens.shape[1] * codec.frame * codec.sample_rate_out // 16000


@pytest.mark.parametrize("name", ["causal", "causal_other"])
def test_streams(codecs, name):
    codec, waves = codecs[name], MADE["sounds"](MADE["SAMPLES"][name])
    assert codec.chunk_size == 1280
    stream, tokens, sound = codec.stream(), [], []
    for chunk in waves.split(codec.chunk_size, 1):
        tokens.append(stream.encode(chunk))
        sound.append(stream.decode(tokens[-1]))
    assert torch.equal(torch.cat(tokens, 1).short(), expected(name, "streamed_tokens"))
    assert distance(torch.cat(sound, 1), name, "streamed_sound") <= 1e-4


@pytest.mark.parametrize("name", ["whole", "other"])
def test_another_voice_says_it(codecs, name):
    codec, waves = codecs[name], MADE["sounds"](MADE["SAMPLES"][name])
    tokens, voice = codec.encode(waves), codec.quantized_features(waves)[1]
    found, wanted = codec.decode(tokens, matching_set=voice, topk=4), expected(name, "voice")
    near = (found[:, : wanted.shape[1]] - wanted).abs() <= 1e-4 * wanted.std()
    assert near.float().mean() > 0.95  # near ties fall either way
    assert (found[:, :4000] - codec.decode(tokens)[:, :4000]).abs().max() > 1e-2
