"""The sound classifier beside SpeechBrain's recipe, its masks and what they sound like."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import focalnet
from broken import CONTEXTS, use_context
from focalnet.errors import UserError
from focalnet.inputs.audio import Audio
from focalnet.models.sound.layouts import LAYOUTS
from focalnet.models.sound.model import SoundFocalNet, _convolved
from focalnet.modulation import strongest
from focalnet.variants import FocalNetConfig

FIXTURE = Path(__file__).parents[2] / "fixtures" / "sound"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
REFERENCE = np.load(FIXTURE / "reference.npz")


def official(model: SoundFocalNet) -> tuple[dict, dict]:
    """Drawn weights in the two files of the recipe."""
    weights = LAYOUTS[0].write(model.state_dict())
    parts = []
    for prefix in ("embedding_model.", "classifier."):
        part = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
        parts.append(MADE["draw"](part))
    return parts[0], parts[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """As published."""
    folder = tmp_path_factory.mktemp("esc50")
    config = FocalNetConfig(embed_dim=16, depths=(1, 1, 2, 1), focal_levels=(2,))
    embedding, classifier = official(SoundFocalNet(config, num_classes=MADE["CLASSES"]))
    torch.save(embedding, folder / "embedding_model.ckpt")
    torch.save(classifier, folder / "classifier.ckpt")
    return folder


@pytest.fixture(scope="module")
def drawn(folder) -> SoundFocalNet:
    return focalnet.create_model(weights=folder)


def test_the_published_names(drawn):
    embedding, classifier = official(drawn)
    assert set(embedding) == set(REFERENCE["backbone_names"])
    assert set(classifier) == set(REFERENCE["head_names"])


@pytest.mark.parametrize("antialias", [True, False])
def test_the_cosines_and_masks_of_the_recipe(drawn, antialias):
    drawn.spec = drawn.spec.replace(preprocessing=dataclasses.replace(drawn.spec.preprocessing, antialias=antialias))
    sounds = MADE["sounds"]()
    expected = torch.from_numpy(REFERENCE[f"cosines.{antialias}"])
    with torch.no_grad():
        cosines = drawn(sounds)
    assert (cosines - expected).abs().max() <= 1e-5 * expected.std()
    mask = drawn.interpret(sounds)
    wanted = np.unpackbits(REFERENCE[f"mask.{antialias}"], count=mask.numel()).reshape(mask.shape)
    assert (mask.numpy() == wanted.astype(bool)).mean() >= 0.999
    assert abs(mask.float().mean() - 0.1) <= 1e-3


@pytest.mark.parametrize("broken", CONTEXTS)
def test_a_broken_context_has_other_cosines(drawn, monkeypatch, broken):
    use_context(monkeypatch, broken)
    expected = torch.from_numpy(REFERENCE[f"cosines.{drawn.spec.preprocessing.antialias}"])
    with torch.no_grad():
        difference = (drawn(MADE["sounds"]()) - expected).abs().max() / expected.std()
    assert difference <= 1e-5 if broken == "nothing" else difference >= 1e-3


def test_the_spectrogram_of_the_recipe(drawn):
    spectrogram = drawn.spectrogram(MADE["sounds"]())
    assert spectrogram.shape == (3, 48123 // 186 + 1, 513)
    expected = torch.from_numpy(REFERENCE["spectrogram"])
    torch.testing.assert_close(spectrogram[:, ::16, ::16], expected, rtol=0, atol=1e-4)


def test_the_published_size():
    with torch.device("meta"):
        model = focalnet.create_model("focalnet_base_srf", head="sound")
    assert sum(weight.numel() for weight in model.parameters()) == 87_331_592
    assert sum(weight.numel() for weight in model.head.parameters()) == 208_448
    assert model.spec.num_classes == 50


def test_everything_kept_is_the_whole_sound(drawn):
    sounds = MADE["sounds"]()
    again = drawn.play(sounds, torch.ones(3, 259, 513, dtype=torch.bool))
    assert again.shape == (3, 258 * 186)
    whole = sounds / sounds.amax(1, keepdim=True)
    torch.testing.assert_close(again, whole[:, : again.shape[1]], rtol=0, atol=1e-5)
    part = drawn.play(sounds, drawn.interpret(sounds))
    assert 0 < part.square().sum() < again.square().sum()


@pytest.mark.parametrize("wave", [torch.zeros(1, 4000), -torch.rand(1, 4000), torch.ones(1, 1), torch.zeros(2, 80000)])
def test_silence_and_other_odd_clips_have_finite_answers(drawn, wave):
    with torch.no_grad():
        assert torch.isfinite(drawn(wave)).all()
        assert torch.isfinite(drawn.play(wave, drawn.interpret(wave))).all() if wave.shape[1] > 186 else True


def test_loudness_counts_for_nothing(drawn):
    sounds = MADE["sounds"]()
    with torch.no_grad():
        torch.testing.assert_close(drawn(0.01 * sounds), drawn(sounds), rtol=0, atol=1e-6)


def test_a_batch_of_one_cannot_be_learned_from():
    model = focalnet.create_model("minifocal_32", head="sound", num_classes=3)
    with pytest.raises(UserError, match="use a batch size >= 2"):
        model.loss(torch.randn(1, 4000), torch.tensor([1]))
    losses = model.loss(torch.randn(2, 4000), torch.tensor([1, 0]))
    losses["loss"].backward()
    learned = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert all(model.get_parameter(name).grad is not None for name in learned)


def test_images_are_refused(drawn):
    with pytest.raises(UserError, match=r"waveforms of shape \(B, T\), got \(1, 3, 32, 32\)"):
        drawn(torch.zeros(1, 3, 32, 32))


def test_saved_and_read_again(drawn, tmp_path):
    focalnet.save_pretrained(drawn, tmp_path / "model")
    again = focalnet.create_model(weights=tmp_path / "model")
    assert again.spec == drawn.spec
    assert isinstance(again.spec.preprocessing, Audio)
    with torch.no_grad():
        torch.testing.assert_close(again(MADE["sounds"]()), drawn(MADE["sounds"]()), rtol=0, atol=0)


def test_a_folder_without_one_of_the_files_is_refused(folder, tmp_path):
    (tmp_path / "embedding_model.ckpt").write_bytes((folder / "embedding_model.ckpt").read_bytes())
    with pytest.raises(UserError, match="holds no"):
        focalnet.create_model(weights=tmp_path)


def test_the_strongest_positions_of_an_image():
    modulator = torch.zeros(1, 4, 4, 3)
    modulator[0, 1, 2] = 5.0
    kept = strongest(modulator, (8, 8), 4 / 64)
    assert kept[0, 2:4, 4:6].all()
    assert kept.sum() == 4
    with pytest.raises(UserError, match="share=0"):
        strongest(modulator, (8, 8), 0)


def test_images_are_not_explained_by_it(drawn):
    with pytest.raises(UserError, match="drawn over images, and this network takes audio; see `capture`"):
        focalnet.explain.explain(drawn, Image.new("RGB", (32, 32)))


def test_interpreting_leaves_every_module_in_its_mode(drawn):
    drawn.train()
    drawn.backbone.layers[0].eval()
    drawn.interpret(MADE["sounds"]())
    assert drawn.head.training
    assert not drawn.backbone.layers[0].training
    drawn.eval()


@pytest.mark.parametrize("audio", [Audio(), Audio(n_fft=63, win_length=40, hop_length=17)])
def test_exported_files_hear_the_same_by_a_convolution(audio):
    waves = torch.rand(2, 1000, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    whole, parts = audio.spectrum(waves), _convolved(audio, waves)
    torch.testing.assert_close(torch.complex(*parts), whole)


def test_an_exported_file_tells_the_answer_without_what_it_listened_to():
    model = focalnet.create_model(
        "sound_minifocal_128", num_classes=2, embed_dim=8, depths=(1,), focal_levels=1, focal_windows=3
    ).eval()
    model.exported, model.precision = "a record", "fp32"
    found = focalnet.Predictor(model)(np.sin(np.arange(4000, dtype=np.float32)))
    assert found.mask is None
    assert found.files() == {}
    assert found.draw(None).size[0] > 100
