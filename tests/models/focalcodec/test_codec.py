"""FocalCodec as a member of the house: files, names, tokens, streams."""

import json
import logging
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import focalnet
from focalnet.errors import UserError
from focalnet.models.convert import convert_file
from focalnet.models.focalcodec.layouts import LAYOUTS
from focalnet.models.focalcodec.model import FocalCodec, resized
from focalnet.models.focalcodec.quantizer import SHARPNESS, BinarySphericalQuantizer
from focalnet.models.publish import save_pretrained

FIXTURE = Path(__file__).parents[2] / "fixtures" / "focalcodec"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
REFERENCE = np.load(FIXTURE / "reference.npz")
BY_NAME = {layout.name: layout for layout in LAYOUTS}
PUBLISHED = {
    "focalcodec_50hz": (142_126_257, 320, 16000),
    "focalcodec_25hz": (144_223_409, 640, 16000),
    "focalcodec_12_5hz": (145_271_985, 1280, 16000),
    "focalcodec_50hz_2k_causal": (249_036_441, 320, 24000),
    "focalcodec_50hz_4k_causal": (249_038_490, 320, 24000),
    "focalcodec_50hz_65k_causal": (249_046_686, 320, 24000),
}


@pytest.fixture(scope="module")
def small() -> FocalCodec:
    torch.manual_seed(0)
    return focalnet.create_model("focalcodec_small").eval()


def published(name: str, path: Path, layout: str = "v0.0.2") -> Path:
    """A published folder, in one of the two layouts."""
    codec = focalnet.models.registry.get_family("focalcodec").build(
        None, 0, BY_NAME["v0.0.2"].described(MADE["CONFIGS"][name], "config.json", {}).head_options
    )
    weights = MADE["draw"](BY_NAME["v0.0.2"].write(codec.state_dict()))
    if layout == "v0.0.1":
        weights = BY_NAME["v0.0.1"].write(BY_NAME["v0.0.2"].read(weights))
        weights |= {f"encoder.encoder.norm.{part}": torch.ones(MADE["WIDTH"]) for part in ("weight", "bias")}
        weights["quantizer.mask"] = 2 ** torch.arange(MADE["BITS"] - 1, -1, -1)
    path.mkdir()
    (path / "config.json").write_text(json.dumps(MADE["CONFIGS"][name]))
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path / "model.safetensors")
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes(name):
    parameters, frame, rate = PUBLISHED[name]
    with torch.device("meta"):
        codec = focalnet.create_model(name)
    assert sum(weight.numel() for weight in codec.parameters()) == parameters
    assert (codec.frame, codec.sample_rate_out, codec.chunk_size) == (frame, rate, 1280 if rate == 24000 else None)
    assert codec.spec.architecture is None
    assert not any(weight.requires_grad for weight in codec.encoder.parameters())


@pytest.mark.parametrize("layout", ["v0.0.1", "v0.0.2"])
@pytest.mark.parametrize("name", ["whole", "causal"])
def test_published_folders_are_read_strictly(tmp_path, name, layout):
    folder = published(name, tmp_path / "codec", layout)
    weights = load_file(folder / "model.safetensors")
    if (name, layout) == ("whole", "v0.0.1"):
        assert sorted(weights) == REFERENCE["whole.old_names"].tolist()
    elif layout == "v0.0.2":
        assert sorted(weights) == REFERENCE[f"{name}.names"].tolist()
    codec = focalnet.create_model(weights=folder)
    waves = MADE["sounds"](MADE["SAMPLES"][name])
    assert torch.equal(codec.encode(waves).short(), torch.from_numpy(REFERENCE[f"{name}.tokens"]))
    back = BY_NAME[layout].write(codec.state_dict())
    assert all(torch.equal(back[key], weights[key]) for key in back)
    left = weights.keys() - back.keys()
    assert left == ({"encoder.encoder.norm.weight", "encoder.encoder.norm.bias", "quantizer.mask"}
                    if layout == "v0.0.1" else set())  # fmt: skip
    for change, sentence in (({"decoder.more": torch.ones(3)}, "1 unexpected"), ({}, "1 missing")):
        changed = weights | change
        if not change:
            del changed["compressor.out_proj.bias"]
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(UserError, match=sentence):
            focalnet.create_model(weights=folder)


def test_names_and_descriptions_that_do_not_fit(tmp_path):
    folder = published("whole", tmp_path / "codec")
    with pytest.raises(UserError, match="has bits=9, focalcodec_25hz asks for 13"):
        focalnet.create_model("focalcodec_25hz", weights=folder)
    with pytest.raises(UserError, match="no start for a classifier"):
        focalnet.create_model("minifocal_32", weights=folder)
    bare = folder / "model.safetensors"
    bare.rename(tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match="does not say which focalcodec it is; give its folder"):
        focalnet.create_model(weights=tmp_path / "bare.safetensors")
    (tmp_path / "bare.safetensors").rename(bare)
    for change, sentence in (
        ({"decoder_name": "HiFiGAN"}, "no decoder in .* 'HiFiGAN'"),
        ({"quantizer_config": {"codebook_size": 500}}, "which does not fit the parts around it"),
        ({"encoder_config": {"causal": True}}, "only some parts are causal"),
        ({"encoder_config": {**MADE["WAVLM"], "window": 3}}, "no field of .* 'window'"),
        ({"more": 1}, "describes no FocalCodec"),
    ):
        (folder / "config.json").write_text(json.dumps(MADE["CONFIGS"]["whole"] | change))
        with pytest.raises(UserError, match=sentence):
            focalnet.create_model(weights=folder)
    for call, sentence in (
        (lambda: focalnet.create_model("focalcodec_50"), "did you mean 'focalcodec_50hz'"),
        (lambda: focalnet.create_model("focalcodec_small", num_classes=3), "knows no classes"),
        (lambda: focalnet.create_model("minifocal_32", head="focalcodec"), "stands on no FocalNet; name one of"),
        (lambda: focalnet.create_model("focalcodec_small", embed_dim=3), "no option of focalcodec 'embed_dim'"),
        (lambda: focalnet.create_model("focalcodec_small", bits=99), "bits=99"),
        (lambda: focalnet.create_model("focalcodec_small").focalnet, "has no FocalNet inside"),
        (lambda: focalnet.create_model("focalcodec_small").stream(), "cannot stream; take one of the causal ones"),
    ):
        with pytest.raises(UserError, match=sentence):
            call()


def test_saved_and_converted(tmp_path, small, caplog):
    save_pretrained(small, tmp_path / "small")
    again = focalnet.create_model(weights=tmp_path / "small")
    assert again.spec == small.spec
    waves = torch.randn(2, 5000) / 9
    assert torch.equal(again.encode(waves), small.encode(waves))
    assert "coding of speech" in (tmp_path / "small" / "README.md").read_text()
    codec = focalnet.create_model(weights=published("causal", tmp_path / "codec", "v0.0.1"))
    save_pretrained(codec, tmp_path / "ours")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "focalnet"):
        for source in ("codec", "ours"):
            convert_file(tmp_path / source, tmp_path / f"{source}.safetensors", to="v0.0.2")
    assert not caplog.records
    one, other = (load_file(tmp_path / f"{source}.safetensors") for source in ("codec", "ours"))
    assert sorted(one) == sorted(other) == REFERENCE["causal.names"].tolist()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert focalnet.create_model(weights=tmp_path / "ours.safetensors").spec == codec.spec
    focalnet.load_weights(codec, tmp_path / "ours")


def test_every_token_is_a_code_and_back():
    quantizer = BinarySphericalQuantizer(9).eval()
    tokens = torch.arange(512)[None]
    codes = quantizer.toks_to_codes(tokens)
    assert torch.equal(quantizer.codes_to_toks(codes), tokens)
    assert len(codes[0].unique(dim=0)) == 512
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(1, 512))
    assert codes[0, 256].sign().tolist() == [1] + [-1] * 8  # the most significant bit first
    assert torch.equal(quantizer.lats_to_codes(codes * 7), codes)
    assert quantizer.lats_to_toks(torch.zeros(1, 1, 9)).item() == 0


def test_entropies_are_those_of_the_softmax_over_all_codes():
    quantizer = BinarySphericalQuantizer(6)
    latents = torch.nn.functional.normalize(torch.randn(1, 50, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    codes = quantizer.toks_to_codes(torch.arange(64))
    chances = (2 * SHARPNESS * latents[0].double() @ codes.double().T).softmax(-1)
    sample, batch = quantizer.entropies(latents)
    assert sample == pytest.approx(float(torch.special.entr(chances).sum(-1).mean()), rel=1e-4)
    assert float(torch.special.entr(chances.mean(0)).sum()) <= float(batch) <= 6 * np.log(2) + 1e-6
    assert quantizer.loss(latents) == pytest.approx(0.1 * float(sample - batch), rel=1e-5)
    learned = latents.clone().requires_grad_()
    (quantizer.lats_to_codes(learned).sum() + quantizer.loss(learned)).backward()
    assert learned.grad is not None
    assert bool(learned.grad.isfinite().all())


def causal(name: str = "causal") -> FocalCodec:
    options = BY_NAME["v0.0.2"].described(MADE["CONFIGS"][name], "config.json", {}).head_options
    codec = focalnet.create_model("focalcodec_50hz_4k_causal", **options).eval()
    codec.load_state_dict(BY_NAME["v0.0.2"].read(MADE["draw"](BY_NAME["v0.0.2"].write(codec.state_dict()))))
    return codec


@torch.no_grad()
def test_a_stream_is_the_whole_and_its_state_keeps_its_size(monkeypatch):
    codec = causal()
    waves = MADE["sounds"](1280 * 26 + 700)  # 105 frames: the window of 32 rolls over, the last group is cut off
    whole = codec.encode(waves)
    sound = codec.decode(whole)
    for step in (1280, 5120):
        stream, tokens, parts, sizes = codec.stream(), [], [], set()
        for chunk in waves.split(step, 1):
            tokens.append(stream.encode(chunk))
            parts.append(stream.decode(tokens[-1]))
            state = torch.utils._pytree.tree_leaves((stream.encoder_state, stream.decoder_state))
            sizes.add(tuple(tensor.shape for tensor in state))
        assert torch.equal(torch.cat(tokens, 1), whole)
        assert (torch.cat(parts, 1) - sound).abs().max() <= 1e-4 * sound.std()
        assert len(sizes) == 1
        with pytest.raises(UserError, match="the stream has ended"):
            stream.encode(chunk)
    monkeypatch.setattr("focalnet.models.focalcodec.model.AT_ONCE", 7)
    assert torch.equal(codec.encode(waves), whole)
    (convolutions, cache, position), compressor = stream.encoder_state
    decompressor, decoder = stream.decoder_state
    assert [tuple(kept.shape[1:]) for kept in convolutions] == [(9, 1), *[(2, 16)] * 4, *[(1, 16)] * 2, (15, 32)]
    assert [tuple(kept.shape) for kept in cache] == [(2, 32, 4, 8, 2)] * 2
    assert int(position) == 32 - 4
    assert [[kept.shape[1] for kept in stage] for stage in compressor] == [[1, 4, 8, 31]] * 2
    assert [[kept.shape[1] for kept in stage] for stage in decompressor] == [[4, 8, 31, 1], [4, 8, 19, 1]]
    assert [tuple(kept.shape) for kept in decoder] == [(2, 6, 32), (2, 6, 24), (2, 6, 24)]


@torch.no_grad()
def test_what_comes_later_changes_nothing_before():
    codec, waves = causal(), MADE["sounds"](1280 * 20)
    later = waves.clone()
    later[:, 1280 * 12 :] *= -0.5
    one, other = codec(waves), codec(later)
    assert torch.equal(one.latents[:, :48], other.latents[:, :48])
    assert torch.equal(one.wave[:, : 48 * 480], other.wave[:, : 48 * 480])
    assert not torch.equal(one.latents[:, 48:], other.latents[:, 48:])


def test_batches_of_sounds_of_several_lengths(small):
    waves = torch.randn(2, 4000) / 9
    waves[1, 2500:] = 0
    sizes = torch.tensor([4000, 2500])
    with torch.no_grad():
        results = small.postprocess(small(waves, sizes), sizes)
    assert [(tuple(tokens.shape), tuple(wave.shape)) for tokens, wave in results] == [
        ((13,), (4000,)), ((8,), (2500,)),
    ]  # fmt: skip
    losses = small.loss(waves, sizes=sizes)
    assert losses["loss"] == losses["features"] + losses["entropy"]
    assert resized(torch.arange(3.0)[None], 5).tolist() == [[0, 1, 2, 2, 2]]
    for strange, sentence in ((torch.zeros(4000), "waves of shape"), (torch.zeros(1, 0), "waves of shape")):
        with pytest.raises(UserError, match=sentence):
            small.encode(strange)
    for tokens, sentence in ((torch.tensor([[2**13]]), "its 13 bits give 0 to 8191"), (torch.ones(1, 3), "tokens of")):
        with pytest.raises(UserError, match=sentence):
            small.decode(tokens)
    with pytest.raises(UserError, match="quantized_features"):
        small.decode(torch.tensor([[3]]), matching_set=torch.zeros(4, 7))
    assert small.encode(torch.zeros(1, 1)).shape == (1, 1)  # one sample


def test_long_sounds_are_refused_where_all_frames_are_compared(monkeypatch):
    options = BY_NAME["v0.0.2"].described(MADE["CONFIGS"]["whole"], "config.json", {}).head_options
    codec = focalnet.create_model("focalcodec_50hz", **options).eval()
    monkeypatch.setattr("focalnet.models.focalcodec.wavlm.LONGEST", 4000)
    assert codec.encode(torch.zeros(1, 4000)).shape[0] == 1
    for call in (codec.encode, codec, codec.loss):
        with pytest.raises(UserError, match=r"has 4,001 samples; a codec that looks ahead takes up to 4,000 at once"):
            call(torch.zeros(1, 4001))


class Step(torch.nn.Module):
    """A method of a codec as a module, for `torch.export`."""

    def __init__(self, codec: FocalCodec, name: str) -> None:
        super().__init__()
        self.codec, self.name = codec, name

    def forward(self, *arguments):
        return getattr(self.codec, self.name)(*arguments)


def program(codec: FocalCodec, name: str, *arguments, dynamic=None):
    return torch.export.export(Step(codec, name), arguments, dynamic_shapes=dynamic).module()


@pytest.mark.slow
def test_the_small_one_is_traced_with_free_sizes(small):
    waves, auto = torch.randn(2, 9000) / 9, torch.export.Dim.AUTO
    other = torch.randn(3, 9000) / 9
    encode = program(small, "encode", waves, dynamic=(({0: auto},),))
    assert torch.equal(encode(other), small.encode(other))
    tokens = small.encode(other)
    decode = program(small, "decode", tokens, dynamic=(({0: auto, 1: auto},),))
    torch.testing.assert_close(decode(tokens[:2, :20]), small.decode(tokens[:2, :20]), rtol=0, atol=1e-6)


@pytest.mark.slow
@torch.no_grad()
def test_steps_of_a_stream_are_traced_with_their_state():
    codec, waves = causal(), MADE["sounds"](1280 * 12)
    chunk, auto = waves[:, :1280], torch.export.Dim.AUTO
    assert torch.equal(program(codec, "encode", waves, dynamic=(({0: auto},),))(waves[:1]), codec.encode(waves[:1]))
    tokens, past = codec.encode_step(chunk)
    assert torch.equal(program(codec, "encode_step", chunk)(chunk)[0], tokens)
    sound, back = codec.decode_step(tokens)
    encode, decode = program(codec, "encode_step", chunk, past), program(codec, "decode_step", tokens, back)
    wanted = codec.stream()
    found, there = [], []
    for index, chunk in enumerate(waves.split(1280, 1)):
        there.append(wanted.decode(wanted.encode(chunk)))
        if index == 0:
            found.append(sound)
            continue
        tokens, past = encode(chunk, past)
        sound, back = decode(tokens, back)
        found.append(sound)
    torch.testing.assert_close(torch.cat(found, 1), torch.cat(there, 1), rtol=0, atol=1e-5)
