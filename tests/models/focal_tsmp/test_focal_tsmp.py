"""Focal-TSMP beside the official code."""

import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import focalnet
from broken import CONTEXTS, use_context
from focalnet.errors import UserError
from focalnet.models.focal_tsmp.layouts import LAYOUTS
from focalnet.models.focal_tsmp.model import FocalTsmp

FIXTURE = Path(__file__).parents[2] / "fixtures" / "focal_tsmp"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
REFERENCE = np.load(FIXTURE / "reference.npz")
OFFICIAL = LAYOUTS[0]


@pytest.fixture(scope="module")
def drawn() -> FocalTsmp:
    model = focalnet.create_model("focal_tsmp", embed_dim=MADE["WIDTHS"][0], in_channels=MADE["FIELDS"]).eval()
    model.load_state_dict(OFFICIAL.read(MADE["draw"](OFFICIAL.write(model.state_dict()))))
    return model


@pytest.mark.parametrize("size", MADE["SIZES"])
def test_the_official_maps_and_gradients(drawn, size):
    fields = MADE["fields"](*size).requires_grad_()
    outputs = drawn(fields)
    (outputs.temperature.sum() + outputs.vegetation.square().sum()).backward()
    for name, found in outputs._asdict().items():
        expected = torch.from_numpy(REFERENCE[f"{size[0]}.{name}"])
        assert found.shape == expected.shape == (2, *size)
        assert (found - expected).abs().max() <= 1e-5 * expected.std()
    assert fields.grad is not None
    gradient = torch.from_numpy(REFERENCE[f"{size[0]}.gradient"])
    torch.testing.assert_close(fields.grad.abs().mean((2, 3)), gradient, rtol=1e-4, atol=0)


@pytest.mark.parametrize("broken", [*CONTEXTS, "swapped skips"])
def test_a_broken_network_has_other_maps(drawn, monkeypatch, broken):
    handles = []
    if broken in CONTEXTS:
        use_context(monkeypatch, broken)
    else:
        skips = drawn.backbone.config.channels[-2::-1]
        for stage, channels in zip(list(drawn.decoder["layers"])[1:], skips, strict=True):
            roll = partial(torch.roll, shifts=-channels, dims=1)
            handles.append(stage.register_forward_pre_hook(lambda _, inputs, roll=roll: (roll(inputs[0]),)))
    size = MADE["SIZES"][0]
    with torch.no_grad():
        found = drawn(MADE["fields"](*size)).temperature
    for handle in handles:
        handle.remove()
    expected = torch.from_numpy(REFERENCE[f"{size[0]}.temperature"])
    difference = (found - expected).abs().max() / expected.std()
    assert difference <= 1e-5 if broken == "nothing" else difference >= 1e-3


def test_the_official_names(drawn):
    assert set(OFFICIAL.write(drawn.state_dict())) == set(REFERENCE["names"])


def test_an_official_file_is_read_strictly(drawn, tmp_path):
    weights = OFFICIAL.write(drawn.state_dict())
    torch.save({"model_state_dict": weights, "epoch": 3}, tmp_path / "best.pth")
    again = focalnet.create_model(weights=tmp_path / "best.pth")
    fields = torch.randn(1, MADE["FIELDS"], 16, 18)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(again(fields), drawn(fields), strict=True))
    del weights["encoder.layers.1.downsample.proj.bias"]
    torch.save({"model_state_dict": weights}, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"layers\.0\.downsample\.proj\.bias"):
        focalnet.create_model(weights=tmp_path / "short.pth")


def test_the_published_size():
    model = focalnet.create_model("focal_tsmp", device="meta")
    assert sum(weight.numel() for weight in model.parameters()) == 12_312_242
    assert sum(weight.numel() for weight in model.focalnet.parameters()) == 5_158_104


def test_unknown_cells_teach_nothing(drawn):
    fields, targets = MADE["fields"](32, 44), torch.randn(2, 2, 32, 44)
    targets[:, 0] = float("nan")
    losses = drawn.loss(fields, targets)
    assert losses["loss_temperature"] == 0
    expected = (drawn(fields).vegetation - targets[:, 1]).abs().mean()
    torch.testing.assert_close(losses["loss"], expected)
