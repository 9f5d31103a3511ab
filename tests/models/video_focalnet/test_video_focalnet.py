"""Video-FocalNet beside the official code, and as a member of the house."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import focalnet
from broken import CONTEXTS, use_context
from focalnet.errors import UserError
from focalnet.models.video_focalnet.model import VideoFocalNet, VideoFocalNetOptions
from focalnet.models.video_focalnet.modulation import SpatioTemporalFocalModulation
from focalnet.variants import FocalNetConfig

FIXTURE = Path(__file__).parents[2] / "fixtures" / "video_focalnet"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
REFERENCE = np.load(FIXTURE / "reference.npz")
TINY = FocalNetConfig(embed_dim=8, depths=(1, 1), focal_levels=(2,), patch_size=2)


def ours(name: str) -> VideoFocalNet:
    options = {**MADE["SMALL"], **MADE["NETWORKS"][name]}
    options.pop("num_frames", None)
    classes, tubelet = options.pop("num_classes"), options.pop("tubelet_size", 1)
    value = options.pop("layerscale_value", None) if options.pop("use_layerscale", False) else None
    config = FocalNetConfig(**{"focal_levels": (2,), "layerscale_value": value, **options})
    model = VideoFocalNet(config, num_classes=classes, options=VideoFocalNetOptions(tubelet_size=tubelet)).eval()
    model.load_state_dict(MADE["draw"](model.state_dict()))
    return model


@pytest.mark.parametrize("name", MADE["NETWORKS"])
def test_the_official_logits_and_gradients(name):
    model, films = ours(name), MADE["film"](name).requires_grad_()
    assert set(model.state_dict()) == set(REFERENCE[f"{name}.names"])
    logits = model(films)
    (logits * torch.arange(1, 12)).sum().backward()
    expected = torch.from_numpy(REFERENCE[f"{name}.logits"])
    assert (logits - expected).abs().max() <= 1e-5 * expected.std()
    assert films.grad is not None
    gradient = torch.from_numpy(REFERENCE[f"{name}.gradient"])
    torch.testing.assert_close(films.grad.flatten(2).norm(dim=2), gradient, rtol=1e-4, atol=0)


@pytest.mark.parametrize("broken", [*CONTEXTS, "reversed film", "no factor along time"])
def test_a_broken_network_has_other_logits(monkeypatch, broken):
    model, films = ours("plain"), MADE["film"]("plain")
    if broken in CONTEXTS:
        use_context(monkeypatch, broken)
    elif broken == "reversed film":
        films = films.flip(1)
    else:
        for name, weight in model.named_parameters():
            if ".h_temporal." in name:
                torch.nn.init.constant_(weight, float(name.endswith("bias")))
    expected = torch.from_numpy(REFERENCE["plain.logits"])
    with torch.no_grad():
        difference = (model(films) - expected).abs().max() / expected.std()
    assert difference <= 1e-5 if broken == "nothing" else difference >= 1e-3


@pytest.mark.parametrize("name", MADE["NETWORKS"])
def test_capture_shows_both_factors(name):
    model, films = ours(name), MADE["film"](name)
    with torch.no_grad(), focalnet.capture(model) as parts:
        model(films)
    first = parts["layers.0.blocks.0.modulation"]
    assert first.temporal is not None
    frames = films.shape[1] // model.tubelet_size
    shape = (films.shape[0], frames, *first.gates.shape[2:4], model.config.embed_dim)
    assert first.modulator.shape == first.temporal.modulator.shape == shape
    for part, key in ((first, "modulator"), (first.temporal, "temporal_modulator")):
        expected = torch.from_numpy(REFERENCE[f"{name}.{key}"])
        torch.testing.assert_close(part.modulator[0, 0, ..., 0], expected, rtol=0, atol=1e-5)
    if name == "plain":
        levels = torch.from_numpy(REFERENCE["plain.temporal_gates"]).unflatten(0, (2, 16, 24))  # B H W, level, T
        torch.testing.assert_close(first.temporal.gates, levels.permute(0, 4, 1, 2, 3), rtol=0, atol=1e-5)
        gates = torch.from_numpy(REFERENCE["plain.gates"]).unflatten(0, (2, 8)).movedim(2, -1)
        torch.testing.assert_close(first.gates, gates, rtol=0, atol=1e-5)


def test_a_film_played_backwards_is_another_film():
    model, films = ours("plain"), MADE["film"]("plain")
    with torch.no_grad():
        assert (model(films) - model(films.flip(1))).abs().max() > 1e-2


@pytest.mark.parametrize(("name", "parameters"), [("tiny", 49_553_272), ("small", 88_735_168), ("base", 157_389_216)])
def test_the_published_sizes(name, parameters):
    with torch.device("meta"):
        model = focalnet.create_model(f"video_focalnet_{name}")
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert model.spec.num_classes == 400
    assert model.spec.variant == f"focalnet_{name}_srf"


def test_a_modulator_of_one_along_time_leaves_the_network_for_images():
    images = focalnet.create_model("minifocal_32", num_classes=3).eval()
    model = focalnet.create_model("video_focalnet_minifocal_32", num_classes=3).eval()
    weights = {**model.state_dict(), **images.state_dict()}
    for name in weights:
        if "h_temporal" in name:
            weights[name] = torch.full_like(weights[name], float(name.endswith("bias")))
    model.load_state_dict(weights)
    films = torch.randn(2, 3, 3, 32, 40)
    with torch.no_grad():
        each = images(films.flatten(0, 1)).unflatten(0, (2, 3)).mean(1)
        torch.testing.assert_close(model(films), each, rtol=0, atol=1e-6)


def test_an_official_file_is_read_strictly(tmp_path):
    model = focalnet.create_model("video_focalnet_tiny", num_classes=7, tubelet_size=2, device="meta")
    weights = {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}
    torch.save({"model": weights, "epoch": 3}, tmp_path / "official.pth")
    for name in (None, "video_focalnet_tiny"):
        again = focalnet.create_model(name, weights=tmp_path / "official.pth")
        assert (again.spec.head, again.spec.variant) == ("video_focalnet", "focalnet_tiny_srf")
        assert (again.spec.num_classes, again.spec.head_options["tubelet_size"]) == (7, 2)
    del weights["layers.1.blocks.0.modulation.h_temporal.bias"]
    torch.save({"model": weights}, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"1 missing \(layers.1.blocks.0.modulation.h_temporal.bias\)"):
        focalnet.create_model(weights=tmp_path / "short.pth")


@pytest.mark.parametrize("tubelet_size", [1, 2])
def test_weights_of_images_are_a_start(tmp_path, caplog, tubelet_size):
    images = focalnet.create_model("minifocal_32", num_classes=5)
    torch.save({"model": images.state_dict()}, tmp_path / "images.pth")
    with caplog.at_level("INFO"):
        model = focalnet.create_model(
            "video_focalnet_minifocal_32", weights=tmp_path / "images.pth", num_classes=3, tubelet_size=tubelet_size
        )
    assert "new and random" in caplog.text
    torch.testing.assert_close(model.layers[1].state_dict()["blocks.1.modulation.f.weight"],
                               images.layers[1].state_dict()["blocks.1.modulation.f.weight"])  # fmt: skip
    stem = images.patch_embed.proj.weight
    if tubelet_size == 2:
        assert "stem: spread over 2 frames" in caplog.text
        torch.testing.assert_close(model.patch_embed.proj.weight.sum(2), stem)
    else:
        torch.testing.assert_close(model.patch_embed.proj.weight, stem)


@pytest.mark.parametrize("recompute", ["context", "block"])
def test_recomputation_changes_no_gradient(recompute):
    films, found = torch.randn(1, 2, 3, 8, 8), []
    model = VideoFocalNet(TINY, num_classes=2)
    for how in ("none", recompute):
        model.set_recompute(how)
        model.zero_grad()
        model(films).square().sum().backward()
        found.append([weight.grad.clone() for weight in model.parameters()])
    for before, after in zip(*found, strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def test_stochastic_depth_leaves_out_frames():
    torch.manual_seed(0)
    layer = VideoFocalNet(TINY.replace(drop_path_rate=0.5), num_classes=2).layers[1].blocks[0]
    x = torch.randn(4, 8, 2, 2, 16)
    changed = (layer(x) != x).flatten(2).any(2)
    assert 0 < changed.sum() < 32
    assert any(0 < film.sum() < 8 for film in changed)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1, 3, 32, 32), r"films of shape \(B, T, 3, H, W\)"),
        ((1, 3, 4, 32, 32), r"films of shape \(B, T, 3, H, W\)"),
        ((1, 3, 3, 32, 32), "3 frames are no multiple of the 2"),
        ((1, 0, 3, 32, 32), "0 frames"),
        ((1, 2, 3, 2, 32), "films of 2x32 pixels are too small: this model needs 4"),
    ],
)
def test_other_shapes_are_refused(shape, says):
    model = VideoFocalNet(TINY, num_classes=2, options=VideoFocalNetOptions(tubelet_size=2))
    with pytest.raises(UserError, match=says):
        model(torch.zeros(shape))


def test_the_layer_takes_the_arguments_of_the_paper():
    layer = SpatioTemporalFocalModulation(8, focal_level=2, focal_window=3, use_postln_in_modulation=True)
    y, parts = layer(torch.randn(2, 5, 6, 7, 8), return_parts=True)
    assert y.shape == (2, 5, 6, 7, 8)
    assert parts.gates.shape == parts.temporal.gates.shape == (2, 5, 6, 7, 3)
