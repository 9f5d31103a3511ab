"""Focal-UNet beside the official code, and at sizes that the official code cannot take."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import focalnet
from broken import CONTEXTS, swap_channels, use_context
from focalnet.errors import UserError
from focalnet.models.focal_unet.layouts import LAYOUTS
from focalnet.models.focal_unet.model import FocalUNet, dice_loss
from focalnet.variants import FocalNetConfig

FIXTURE = Path(__file__).parents[2] / "fixtures" / "focal_unet"
MADE = runpy.run_path(str(FIXTURE / "make.py"))
REFERENCE = np.load(FIXTURE / "reference.npz")
OFFICIAL = LAYOUTS[0]


def small(**changes) -> FocalUNet:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in MADE["SMALL"].items()}
    return FocalUNet(FocalNetConfig(**{**fields, **changes}), num_classes=9).eval()


@pytest.fixture(scope="module")
def drawn() -> FocalUNet:
    model = small()
    weights = {name: torch.empty(tensor.shape) for name, tensor in OFFICIAL.write(model.state_dict()).items()}
    model.load_state_dict(OFFICIAL.read(MADE["draw"](weights)))
    return model


def off(model: FocalUNet) -> float:
    """Greatest distance to the official logits, as a share of their spread.

    In float64, where it is 9.96e-6, as much as the official float32 rounded. In float32 ours would come on top, which
    the processor decides.
    """
    model.double()
    with torch.no_grad():
        logits = model(MADE["slices"]().double())[:, :, 3::16, 5::16]
    model.float()
    return float((logits - torch.from_numpy(REFERENCE["logits"])).abs().max()) / float(REFERENCE["spread"])


def test_the_official_logits_loss_and_gradients(drawn):
    assert off(drawn) <= 1e-5
    slices = MADE["slices"]().requires_grad_()
    losses = drawn.loss(slices, MADE["truth"]())
    torch.testing.assert_close(losses["loss"].item(), float(REFERENCE["loss"]), rtol=1e-5, atol=0)
    losses["loss"].backward()
    assert slices.grad is not None
    gradient = torch.nn.functional.avg_pool2d(slices.grad.abs(), 16)
    torch.testing.assert_close(gradient, torch.from_numpy(REFERENCE["gradient"]), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("broken", [*CONTEXTS, "swapped skips"])
def test_a_broken_network_has_other_logits(drawn, monkeypatch, broken):
    handles = []
    if broken in CONTEXTS:
        use_context(monkeypatch, broken)
    else:
        handles = [swap_channels(mix, mix.in_features // 2) for mix in drawn.concat_back_dim[1:]]
    difference = off(drawn)
    for handle in handles:
        handle.remove()
    assert difference <= 1e-5 if broken == "nothing" else difference >= 1e-3


def test_the_official_names(drawn):
    ours = set(OFFICIAL.write(drawn.state_dict()))
    assert set(REFERENCE["names"]) - ours == {"patch_expand.norm.weight", "patch_expand.norm.bias"}
    assert ours <= set(REFERENCE["names"])


def test_an_official_file_is_read_strictly(drawn, tmp_path):
    weights = OFFICIAL.write(drawn.state_dict())
    dead = {f"patch_expand.norm.{leaf}": torch.ones(8) for leaf in ("weight", "bias")}
    torch.save({**weights, **dead}, tmp_path / "epoch_126.pth")
    again = focalnet.create_model(weights=tmp_path / "epoch_126.pth")
    assert (again.spec.head, again.spec.num_classes) == ("focal_unet", 9)
    with torch.no_grad():
        x = torch.randn(1, 1, 32, 32)
        torch.testing.assert_close(again(x), drawn(x), rtol=0, atol=0)
    del weights["layers_up.2.upsample.norm.bias"]
    torch.save(weights, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"layers_up\.2\.upsample\.norm\.bias"):
        focalnet.create_model(weights=tmp_path / "short.pth")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("tiny_lrf", 44_254_060), ("tiny_srf", 34_709_724), ("small_lrf", 54_091_404)],
)
def test_the_official_sizes(name, parameters):
    with torch.device("meta"):
        model = focalnet.create_model(f"focal_unet_{name}")
    unread = 2 * 96
    assert sum(weight.numel() for weight in model.parameters()) == parameters - unread


@pytest.mark.parametrize(("height", "width"), [(224, 224), (65, 97), (30, 200), (1, 1)])
def test_any_size(height, width):
    model = small()
    with torch.no_grad():
        assert model(torch.randn(1, 1, height, width)).shape == (1, 9, height, width)
        images = torch.randn(1, 1, height, width).expand(-1, 3, -1, -1)
        torch.testing.assert_close(model(images), model(images[:, :1]), rtol=0, atol=0)


def test_two_stages_and_a_fifth_class():
    model = FocalUNet(FocalNetConfig(embed_dim=8, depths=(1, 1), focal_levels=(1,), patch_size=2), num_classes=5)
    losses = model.loss(torch.randn(2, 3, 18, 22), torch.randint(0, 5, (2, 18, 22)))
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_dice_loss_by_hand():
    logits = torch.tensor([[[[2.0, -1.0, 0.5]], [[0.0, 1.0, 0.5]]]])
    targets = torch.tensor([[[0, 1, 255]]])
    p = logits[0, :, 0, :2].softmax(0)
    each = [1 - (2 * p[k, k] + 1e-5) / (p[k].square().sum() + 1 + 1e-5) for k in (0, 1)]
    torch.testing.assert_close(dice_loss(logits, targets), sum(each) / 2)


def test_pixels_without_truth_teach_nothing():
    model, images = small(), torch.randn(1, 3, 32, 32, requires_grad=True)
    losses = model.loss(images, torch.full((1, 32, 32), 255))
    assert losses["loss_ce"] == 0
    assert torch.isfinite(losses["loss"])


def test_images_of_other_channels_are_refused():
    with pytest.raises(UserError, match=r"images of shape \(B, 3, H, W\), got \(1, 2, 32, 32\)"):
        small()(torch.zeros(1, 2, 32, 32))
