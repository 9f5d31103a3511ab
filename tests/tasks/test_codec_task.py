"""Training of a speech codec: both stages, tokens as files, and sounds of every kind."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import focalnet
from command_line import run
from focalnet.errors import UserError
from focalnet.models.focalcodec.layouts import LAYOUTS
from focalnet.tasks import get_task
from focalnet.tasks.adversary import Discriminators, decoder_loss
from focalnet.tasks.coded import Tokens, code, pieces_of, read_tokens, speak

RATE = 16000
CONFIGS = runpy.run_path(str(Path(__file__).parents[1] / "fixtures/focalcodec/make.py"))["CONFIGS"]
NEW = next(layout for layout in LAYOUTS if layout.name == "v0.0.2")
MODEL = get_task("codec").embedded.model
TINY = ("--task", "codec", "--model", MODEL, "--recipe", "small_codec", "--seconds", "0.5", "--epochs", "1",
        "--batch-size", "4", "--workers", "0", "--discriminator-share", "0.015625")  # fmt: skip


def speech(seconds: float = 0.8, pitch: float = 120.0, rate: int = RATE) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * pitch * n * (times + 0.02 * np.sin(3 * times))) / n for n in range(1, 9))
    return (0.2 * tones * (0.6 + 0.4 * np.sin(15 * times))).astype(np.float32)


def sounds_of(folder, count=8):
    folder.mkdir()
    for number in range(count):
        soundfile.write(folder / f"{number}.wav", speech(0.3 + 0.1 * number, 100 + 20 * number), RATE)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return sounds_of(tmp_path_factory.mktemp("data") / "speech")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return focalnet.create_model(MODEL).eval()


def test_a_folder_of_speech_is_learned_evaluated_and_coded(sounds, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(capsys, "train", "--data", sounds, "--out", out, *TINY)[0] == 0
    names = set(focalnet.weights.files.read_state_dict(out / "best/model.safetensors"))
    assert not any(name.startswith("discriminators") for name in names)
    state = torch.load(out / "best/state.pt")
    assert all(name.startswith("discriminators.") for name in state["helpers"])
    assert set(state["optimizers"]) == {"features", "discriminators", "decoder"}
    (row,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    parts = [row[f"train_loss_{part}"] for part in state["optimizers"]]
    assert row["train_loss"] == pytest.approx(sum(parts))
    assert row["kbps"] == 0.65
    assert {"fidelity", "feature_error", "entropy", "codebook_use", "mel_error", "resynthesis_error"} <= row.keys()
    report = (out / "report.html").read_text()
    assert report.count("<audio") == 2 * 2
    assert "codebook use" in report
    code, printed, _ = run(capsys, "evaluate", out, "--workers", "0")
    assert code == 0
    assert f"{row['mel_error']:.4f}" in printed

    sound, tokens, direct, again = (tmp_path / name for name in ("a.wav", "a.npz", "direct.wav", "again.wav"))
    soundfile.write(sound, speech(), RATE)
    for source, target in ((sound, tokens), (sound, direct), (tokens, again)):
        assert run(capsys, "predict", out, source, "--out", target)[0] == 0
    with np.load(tokens, allow_pickle=False) as content:
        assert (content["tokens"].dtype, content["tokens"].shape) == (np.uint16, (40,))
        assert content["pieces"].tolist() == [[40, 12800]]
    assert again.read_bytes() == direct.read_bytes()
    assert len(soundfile.read(direct)[0]) == 12800
    code, printed, _ = run(capsys, "predict", out, sounds, "--format", "npz", "--out", tmp_path / "many")
    assert code == 0
    assert "13 bits, 0.65 kbit/s, log-mel error" in printed
    assert len(list((tmp_path / "many").glob("*.npz"))) == 8
    code, _, _ = run(capsys, "predict", out, f"{tmp_path}/many/*.npz", "--format", "wav", "--out", tmp_path / "back")
    assert code == 0
    assert [len(soundfile.read(file)[0]) for file in sorted((tmp_path / "back").glob("*.wav"))] == [
        4800 + 1600 * number for number in range(8)
    ]
    code, _, _ = run(capsys, "predict", out, f"{sounds}/[01].wav", tokens, "--out", tmp_path / "page.html")
    assert code == 0
    assert (tmp_path / "page.html").read_text().count("<audio") == 2 * 2 + 1
    code, _, _ = run(capsys, "predict", out, sound, "--draw", tmp_path / "drawn", "--json")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        "0000_a.png", "0000_a_decoded.wav", "0000_a_tokens.npz", "predictions.jsonl",
    ]  # fmt: skip
    assert run(capsys, "explain", out, sound, "--out", tmp_path / "where.png")[0] == 0
    code, _, err = run(capsys, "predict", out, sounds, "--out", tmp_path / "one.npz")
    assert code == 2
    assert "one.npz is one file, and there are more predictions" in err


FILES = {
    "8 bits": ({"subtype": "PCM_U8"}, 0.3, RATE, 1),
    "24 bits": ({"subtype": "PCM_24"}, 0.3, RATE, 1),
    "floats": ({"subtype": "FLOAT"}, 0.3, RATE, 1),
    "stereo": ({"subtype": "PCM_16"}, 0.3, 44100, 2),
    "96 kHz": ({"subtype": "PCM_16"}, 0.3, 96000, 1),
    "one sample": ({"subtype": "PCM_16"}, 1 / RATE, RATE, 1),
    "loud": ({"subtype": "FLOAT"}, 0.3, RATE, 1),
    "silent": ({"subtype": "PCM_16"}, 0.3, RATE, 1),
}


@pytest.mark.parametrize("name", FILES)
def test_sounds_of_every_kind_come_back_in_their_length(name, model, tmp_path):
    options, seconds, rate, channels = FILES[name]
    wave = speech(seconds, rate=rate) * {"silent": 0, "loud": 1e30}.get(name, 1)
    soundfile.write(tmp_path / "a.wav", np.stack([wave] * channels, 1), rate, **options)
    predictor = focalnet.Predictor(model)
    coded = predictor(tmp_path / "a.wav")
    length = round(seconds * RATE)
    assert abs(len(coded.wave) - length) <= 1
    assert len(coded.tokens.tokens) == -(-len(coded.wave) // 320)
    assert np.isfinite(coded.wave).all()
    assert all(np.isfinite(value) for value in coded.errors().values())
    assert coded.draw(None).width > 0
    (tmp_path / "a.npz").write_bytes(coded.written("npz"))
    assert np.array_equal(predictor(tmp_path / "a.npz").wave, coded.wave)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read as tokens"),
        (b"PK\x05\x06" + bytes(18), "cannot be read as tokens"),
        ({"tokens": np.zeros(0, int)}, "no row of tokens"),
        ({"tokens": np.zeros((2, 2), int)}, "no row of tokens"),
        ({"tokens": np.zeros(3)}, "no row of tokens"),
        ({"tokens": np.zeros(3, int), "pieces": np.array([[2, 640]])}, "no row of tokens"),
        ({"tokens": np.array([object()])}, "cannot be read as tokens"),
        ({"names": np.zeros(3)}, "cannot be read as tokens"),
        ({"tokens": np.array([1, 8192])}, "tokens from 1 to 8192 are not of this codec"),
        ({"tokens": np.array([-1, 1])}, "tokens from -1 to 1 are not of this codec"),
        ({"tokens": np.array([1]), "bits": np.array(11)}, "have 11 bits, those of this codec 13"),
        ({"tokens": np.array([1]), "codec": np.array("0badc0de")}, "a codec of other weights"),
    ],
)
def test_what_is_no_file_of_tokens_is_a_sentence(content, sentence, model, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(content) if isinstance(content, bytes) else np.savez(path, **content)
    with pytest.raises(UserError, match=sentence):
        focalnet.Predictor(model)(path)


def test_tokens_alone_are_enough(model, tmp_path):
    np.savez(tmp_path / "a.npz", tokens=np.arange(7))
    assert len(focalnet.Predictor(model)(tmp_path / "a.npz").wave) == 7 * 320


def test_long_sounds_are_coded_in_pieces(model, monkeypatch):
    wave = speech(2.03)
    monkeypatch.setattr("focalnet.tasks.coded.PIECE", 8000)
    sizes = [len(piece) for piece in pieces_of(model, wave)]
    assert sum(sizes) == len(wave)
    assert min(sizes) > 4000
    assert all(size % 320 == 0 for size in sizes[:-1])
    coded = code(model, wave)
    assert coded.tokens.pieces[:, 1].tolist() == sizes
    assert len(coded.wave) == len(wave)
    assert np.array_equal(speak(model, coded.tokens).wave, coded.wave)
    assert np.array_equal(code(model, wave[: sizes[0]]).tokens.tokens, coded.tokens.tokens[: coded.tokens.pieces[0, 0]])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["small", "whole", "causal"])
def test_an_hour_of_sound_is_coded(kind, model, tmp_path):
    codec = model
    if kind != "small":  # narrow ones, whose encoder has attention
        options = NEW.described(CONFIGS[kind], "config.json", {}).head_options
        codec = focalnet.create_model("focalcodec_50hz", **options).eval()
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", RATE, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(np.tile(speech(1.0), 60))
    coded = focalnet.Predictor(codec)(tmp_path / "hour.flac")
    assert len(coded.wave) == 3600 * coded.sample_rate
    assert coded.tokens.pieces[:, 1].sum() == 3600 * RATE
    assert np.isfinite(coded.wave).all()


def test_options_that_mean_nothing_to_a_codec_are_refused(tmp_path):
    task = get_task("codec")
    for options, sentence in (
        ({"num_classes": 3}, "--num-classes means nothing to a codec"),
        ({"freeze": 1, "weights": "x"}, "--freeze means nothing"),
        ({"seconds": 0.1}, "--seconds is 0.1"),
        ({"segment": 10}, "--segment is 10"),
        ({"decoder_lr": 0.0}, "--decoder-lr is 0.0"),
        ({"discriminator_share": 0.0}, "--discriminator-share is 0.0"),
    ):
        with pytest.raises(UserError, match=sentence):
            task(**options)


def test_freezing_and_compiling_are_for_networks_with_a_focalnet(sounds, tmp_path, capsys):
    for option, sentence in (
        (("--freeze", "1"), "--freeze means nothing to a codec; leave it out"),
        (("--compile",), "FocalCodec has no FocalNet inside, and so no backbone to take, to freeze or to compile"),
    ):
        status, _, err = run(capsys, "train", "--data", sounds, "--out", tmp_path / "run", *TINY, *option)
        assert status == 2
        assert sentence in err
        assert "Traceback" not in err


def test_what_is_made_is_recorded_as_what_it_is(monkeypatch):
    task = get_task("codec")()
    for there, wanted in ((True, "spoken"), (False, "formants")):
        monkeypatch.setattr("focalnet.tasks.codec.can_speak", lambda there=there: there)
        assert task.located().data == wanted
        assert replace(task, data="formants").located().data == "formants"
        assert replace(task, data="spoken").located(recorded=True).data == "spoken"


def test_the_discriminators_are_those_of_hifi_gan():
    with torch.device("meta"):
        whole = Discriminators()
    counts = [sum(p.numel() for p in part.parameters()) for part in (whole.periods, whole.scales)]
    assert sum(counts) == 70_724_591
    torch.manual_seed(0)
    small = Discriminators(1 / 64)
    for length in (12, 7040):
        judged = small(torch.randn(2, length))
        assert len(judged) == 8
        assert [len(one.features) for one in judged] == [6] * 5 + [8] * 3


def test_losses_of_the_game():
    torch.manual_seed(0)
    judges, real = Discriminators(1 / 64).eval(), torch.randn(2, 1600)
    decoded = (real + 0.1).requires_grad_()
    loss = judges.loss(real, decoded)["loss"]
    scores = [[one.scores for one in judges(wave)] for wave in (real, decoded.detach())]
    hinge = sum((1 - one).clamp(min=0).mean() + (1 + two).clamp(min=0).mean() for one, two in zip(*scores, strict=True))
    assert loss.item() == pytest.approx(hinge.item(), rel=1e-5)
    loss.backward()
    assert decoded.grad is None
    for parameter in judges.parameters():
        parameter.grad = None
    terms = decoder_loss(judges, real, decoded, RATE)
    wanted = terms["hinge"] + 54 * terms["matching"] + 45 * terms["mel"]
    assert terms["loss"].item() == pytest.approx(wanted.item())
    terms["loss"].backward()
    assert bool(decoded.grad.isfinite().all())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in judges.parameters())
    same = decoder_loss(judges, real, real.clone(), RATE)
    assert same["matching"].item() == same["mel"].item() == 0


def parts_of(stage):
    torch.manual_seed(0)
    task = get_task("codec")(model=MODEL, stage=stage, discriminator_share=1 / 64, seconds=0.5)
    return task, task.build_model(None)


def test_each_stage_moves_its_own_parts():
    waves = torch.from_numpy(np.stack([speech(0.5, pitch) for pitch in (100, 150)]))
    wanted = {
        "features": {"compressor", "decompressor"},
        "decoder": {"discriminators", "decoder"},
        "both": {"compressor", "decompressor", "discriminators", "decoder"},
    }
    for stage, names in wanted.items():
        task, network = parts_of(stage)
        assert {name.partition(".")[0] for name, p in network.named_parameters() if p.requires_grad} == names
        batch = task.shared(network, {"waves": waves, "places": torch.tensor([0.0, 0.99])})
        for part, held in task.parts(network).items():
            network.zero_grad()
            task.part_loss(part, network, batch)["loss"].backward()
            ours = {id(parameter) for parameter in held.module.parameters()}
            moved = [name for name, p in network.named_parameters() if p.grad is not None and id(p) not in ours]
            assert not moved, (stage, part)
            assert all(p.grad is not None and p.grad.isfinite().all() for p in held.module.parameters()), (stage, part)


def test_segments_lie_where_their_features_were_heard():
    task, network = parts_of("decoder")
    waves = torch.arange(3 * 8000.0).reshape(3, 8000)
    batch = {"waves": waves, "places": torch.tensor([0.0, 0.5, 0.9999]), "features": torch.arange(25.0).expand(3, 25)}
    batch["features"] = batch["features"][..., None].repeat(1, 1, 80)
    features, real = task._segments(network, batch)
    assert features.shape == (3, 22, 80)
    assert real.shape == (3, 7040)
    assert features[:, 0, 0].tolist() == [0, 2, 3]
    assert (real[:, 0] - waves[:, 0]).tolist() == [0, 640, 960]


def test_tokens_are_kept_in_few_bytes():
    tokens = Tokens(np.arange(100), np.array([[100, 32000]]), 13, "00000000")
    assert len(tokens.file()) < 1400


def test_read_tokens_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.npz"):
        read_tokens(tmp_path / "nothing.npz")
