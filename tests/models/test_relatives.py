"""What works on every network works on those of sounds, films and maps too, or says why not: one table."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import focalnet
from focalnet.errors import UserError


@dataclass(frozen=True)
class Relative:
    """A network, what it takes, and what differs.

    Attributes:
        name, options: of the network.
        shape: of its inputs.
        modulations: layers of focal modulation.
        last: (B, ..., C) of the modulator of the last one.
        unexplained: why `explain` refuses; None where it draws.
        no_numba: why the numba backend refuses; None where it runs.
        steady: options that leave out what is drawn anew in every pass.
    """

    name: str
    shape: tuple[int, ...]
    modulations: int
    last: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    unexplained: str | None = None
    no_numba: str | None = None
    steady: dict[str, Any] = field(default_factory=lambda: {"drop_path_rate": 0.0})


RELATIVES = {
    "sound": Relative(
        "sound_minifocal_32", (2, 4000), 4, (2, 4, 4, 128), {"num_classes": 3}, unexplained="this network takes audio"
    ),
    "video": Relative(
        "video_focalnet_minifocal_32", (2, 4, 3, 32, 32), 4, (2, 4, 4, 4, 128), {"num_classes": 3},
        unexplained="this network takes video", no_numba="a kernel is dense",
    ),
    "focal_unet": Relative("focal_unet_minifocal_64", (2, 1, 32, 32), 13, (2, 16, 16, 48), {"num_classes": 3}),
    "focal_tsmp": Relative("focal_tsmp", (1, 71, 24, 26), 12, (1, 24, 26, 48), {"embed_dim": 16},
                           unexplained="the network takes 71"),
    "focalcodec": Relative("focalcodec_small", (2, 4000), 4, (2, 13, 96), unexplained="holds no FocalNet",
                           no_numba="the convolutions have a bias", steady={}),
}  # fmt: skip


@pytest.fixture(params=RELATIVES)
def relative(request):
    return RELATIVES[request.param]


def build(relative: Relative, **more: Any) -> Any:
    torch.manual_seed(0)
    model = focalnet.create_model(relative.name, **relative.options, **more).eval()
    model.spec = model.spec.replace(preprocessing=replace(model.spec.preprocessing, input_size=32))
    return model


def tensors(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def run(model: Any, relative: Relative) -> list[Tensor]:
    inputs = torch.randn(relative.shape, generator=torch.Generator().manual_seed(1))
    return tensors(model(inputs))


def test_capture_sees_every_modulation_and_changes_nothing(relative):
    model = build(relative)
    with torch.no_grad():
        before = run(model, relative)
        with focalnet.capture(model) as parts:
            during = run(model, relative)
    assert all(torch.equal(a, b) for a, b in zip(before, during, strict=True))
    assert len(parts) == relative.modulations
    assert next(reversed(parts.values())).modulator.shape == relative.last


def test_explain_draws_or_says_why_not(relative, tmp_path):
    model, image = build(relative), Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 20).convert("RGB")
    if relative.unexplained:
        with pytest.raises(UserError, match=relative.unexplained):
            focalnet.explain.explain(model, image)
    else:
        focalnet.explain.explain(model, image).save(tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.size[0] > 500


def test_there_is_nothing_to_fuse(relative):
    with pytest.raises(UserError, match="focalnet's own models run on the fast operator as they are"):
        focalnet.fuse(build(relative))


@pytest.mark.parametrize("how", ["context", "block"])
def test_recomputation_changes_no_gradient(relative, how):
    found = []
    for recompute in ("none", how):
        model = build(relative, recompute=recompute, **relative.steady)
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.Dropout):
                module.eval()
        torch.stack([output.float().square().sum() for output in run(model, relative)]).sum().backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        scale = float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_backends_agree_or_say_why_not(relative, monkeypatch, backend):
    if backend == "numba":
        pytest.importorskip("numba")
    model = build(relative)
    with torch.no_grad():
        usual = run(model, relative)
        monkeypatch.setenv("FOCALNET_BACKEND", backend)
        if backend == "numba" and relative.no_numba:
            with pytest.raises(UserError, match=relative.no_numba):
                run(model, relative)
            return
        forced = run(model, relative)
    for a, b in zip(usual, forced, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.float().std()
