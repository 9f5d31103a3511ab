"""FocalCodec beside the published code."""

import runpy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from focalnet.models.focalcodec import decoders, focal, wavlm
from focalnet.models.focalcodec.layouts import LAYOUTS
from focalnet.models.focalcodec.model import FocalCodec
from focalnet.models.registry import get_family

FIXTURE = Path(__file__).parents[2] / "fixtures" / "focalcodec"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
REFERENCE = np.load(FIXTURE / "reference.npz")
NEW = next(layout for layout in LAYOUTS if layout.name == "v0.0.2")


@cache
def options_of(name: str) -> dict[str, Any]:
    assert NEW.described
    return dict(NEW.described(MADE["CONFIGS"][name], "config.json", {}).head_options)


@cache
def codec_of(name: str) -> FocalCodec:
    """A codec of the fixture, with drawn weights."""
    codec = get_family("focalcodec").build(None, 0, options_of(name)).eval()
    codec.load_state_dict(NEW.read(MADE["draw"](NEW.write(codec.state_dict()))))
    return codec


def waves_of(name: str) -> torch.Tensor:
    return MADE["sounds"](MADE["SAMPLES"][name])


def expected(name: str, key: str) -> torch.Tensor:
    return torch.from_numpy(REFERENCE[f"{name}.{key}"])


def distance(values: torch.Tensor, name: str, key: str) -> float:
    """The largest difference, in standard deviations of the expected values."""
    wanted = expected(name, key)
    return float((values[:, : wanted.shape[1]] - wanted).abs().max() / wanted.std())


@pytest.mark.parametrize("name", MADE["CONFIGS"])
def test_features_latents_tokens_and_sound(name):
    codec, waves = codec_of(name), waves_of(name)
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
def test_streams(name):
    codec, waves = codec_of(name), waves_of(name)
    assert codec.chunk_size == 1280
    stream, tokens, sound = codec.stream(), [], []
    for chunk in waves.split(codec.chunk_size, 1):
        tokens.append(stream.encode(chunk))
        sound.append(stream.decode(tokens[-1]))
    assert torch.equal(torch.cat(tokens, 1).short(), expected(name, "streamed_tokens"))
    assert distance(torch.cat(sound, 1), name, "streamed_sound") <= 1e-4


@pytest.mark.parametrize("name", ["whole", "other"])
def test_another_voice_says_it(name):
    codec, waves = codec_of(name), waves_of(name)
    tokens, voice = codec.encode(waves), codec.quantized_features(waves)[1]
    found, wanted = codec.decode(tokens, matching_set=voice, topk=4), expected(name, "voice")
    near = (found[:, : wanted.shape[1]] - wanted).abs() <= 1e-4 * wanted.std()
    assert near.float().mean() > 0.95  # near ties fall either way
    assert (found[:, :4000] - codec.decode(tokens)[:, :4000]).abs().max() > 1e-2


def without_second_gelu(context, gates, kernels, biases=None):
    total = 0.0
    for index, kernel in enumerate(kernels):
        y = F.conv1d(context.mT, kernel, biases[index], padding="same", groups=len(kernel))
        context = F.gelu(y).mT
        total = total + context * gates[..., index : index + 1]
    return total + context.mean(1, keepdim=True) * gates[..., len(kernels) :]


def zeros_before(x, past, reach, *, zeros=False):
    return focal.joined(x, past, reach, zeros=True)


def passes(name: str) -> bool:
    """Whether tokens and latents of a codec are those of the published code."""
    codec = codec_of(name)
    with torch.no_grad():
        outputs = codec(waves_of(name))
    same = torch.equal(outputs.tokens.short(), expected(name, "tokens"))
    return same and distance(outputs.latents, name, "latents") <= 1e-4 and distance(outputs.wave, name, "sound") <= 1e-4


def test_what_is_broken_on_purpose_is_noticed(monkeypatch):
    assert passes("whole")
    with monkeypatch.context() as broken:
        broken.setattr("focalnet.modulation.focal_context", without_second_gelu)
        assert not passes("whole")
    with monkeypatch.context() as broken:
        broken.setattr(codec_of("whole").quantizer, "places", codec_of("whole").quantizer.places.flip(0))
        assert not passes("whole")
    assert passes("causal")
    for module in (wavlm, decoders):  # the encoder repeats the first frame, WaveNeXt has zeros
        with monkeypatch.context() as broken:
            broken.setattr(
                module, "joined", zeros_before if module is wavlm else lambda *args, **_: focal.joined(*args)
            )
            assert not passes("causal")


def test_a_lost_state_is_noticed():
    codec, waves = codec_of("causal"), waves_of("causal")
    tokens = torch.cat([codec.encode_step(chunk)[0] for chunk in waves.split(1280, 1)], 1)
    assert not torch.equal(tokens.short(), expected("causal", "streamed_tokens"))
