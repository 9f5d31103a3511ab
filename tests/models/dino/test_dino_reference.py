"""The same numbers as the official code, whose output `tests/fixtures/dino/make.py` has recorded."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from focalnet.models.dino.denoising import Noise
from focalnet.models.dino.model import Dino
from focalnet.variants import FocalNetConfig

FOLDER = Path(__file__).parents[2] / "fixtures" / "dino"
_specification = importlib.util.spec_from_file_location("dino_make", FOLDER / "make.py")
make = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(make)
REFERENCE = dict(np.load(FOLDER / "reference.npz"))


def expected(network: str, prefix: str) -> dict[str, torch.Tensor]:
    start = f"{network}/{prefix}/"
    return {key.removeprefix(start): torch.from_numpy(x) for key, x in REFERENCE.items() if key.startswith(start)}


def build(network: str, **options) -> Dino:
    head = {name: value for name, value in make.HEAD.items() if name != "num_classes"}
    head_options = Dino.Options(
        dn_number=make.DN_NUMBER, dn_box_noise=make.BOX_NOISE, **head, **make.NETWORKS[network]
    )  # fmt: skip
    model = Dino(FocalNetConfig(**make.TRUNK), num_classes=make.HEAD["num_classes"], options=head_options, **options)
    model.load_state_dict(make.draw(model.state_dict()))
    return model


def with_recorded_noise(model: Dino, network: str) -> Dino:
    noise = Noise(**expected(network, "noise"))

    def draw_noise(count: int, device: torch.device) -> Noise:
        assert count == len(noise.flip)
        return noise

    model.draw_noise = draw_noise
    return model


@pytest.mark.parametrize("network", list(make.NETWORKS))
def test_names_and_shapes_of_the_state_dict(network):
    ours = {f"{key} {tuple(x.shape)}" for key, x in build(network).state_dict().items()}
    assert ours == set(REFERENCE[f"{network}/keys"])


@pytest.mark.parametrize("network", list(make.NETWORKS))
def test_predictions_of_a_padded_batch(network):
    images, _ = make.batch()
    with torch.no_grad():
        outputs = build(network).eval()(images, sizes=make.SIZES)
    logits, boxes = (torch.from_numpy(REFERENCE[f"{network}/{key}"]) for key in ("pred_logits", "pred_boxes"))
    assert boxes.std(1).min() > 0.02  # else nothing would be compared
    assert logits.std(1).min() > 0.1
    assert (outputs.pred_logits - logits).abs().max() < 1e-4
    assert (outputs.pred_boxes - boxes).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("network", "recompute"), [("shared", "none"), ("shared", "context"), ("shared", "block"), ("separate", "none")]
)
def test_losses_and_gradients_with_the_recorded_noise(network, recompute):
    images, targets = make.batch()
    model = with_recorded_noise(build(network, recompute=recompute), network)
    losses = model.loss(images, targets, make.SIZES)
    wanted = expected(network, "losses")
    assert losses.keys() == wanted.keys()
    assert len(wanted) == 1 + 3 * (3 + 1 + 3)
    for name, value in wanted.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name
    losses["loss"].backward()
    norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    wanted = dict(zip(REFERENCE[f"{network}/gradient_names"].tolist(), REFERENCE[f"{network}/gradients"], strict=True))
    assert norms.keys() == wanted.keys()
    largest = max(wanted.values())
    for name, norm in wanted.items():
        assert norms[name] == pytest.approx(norm, rel=2e-3, abs=1e-5 * largest), name
