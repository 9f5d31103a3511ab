"""What a training step keeps for the backward pass, in bytes, beside timm; and that the gradients do not change."""

import gc

import pytest
import torch
from torch import Tensor, nn

from focalnet.backbone import FocalNet, Recompute
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.modulation import FocalModulation
from focalnet.variants import FocalNetConfig, get_variant

TINY = FocalNetConfig(embed_dim=16, depths=(1, 2, 2, 1), focal_levels=(3,))
POLICIES: list[Recompute] = ["none", "context", "block"]


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes of the distinct storages that autograd keeps after one forward pass, parameters not counted."""
    kept: dict[int, Tensor] = {}
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in parameters:
            kept[address] = tensor  # holding it keeps its address from being used again
        return tensor

    gc.collect()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del y
    return total


@pytest.fixture(scope="module")
def tiny_lrf() -> tuple[FocalNetClassifier, int]:
    """Our T-LRF without stochastic depth, and what timm's keeps for one image of 64 pixels."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("focalnet_tiny_lrf").train()
    ours = FocalNetClassifier(get_variant("focalnet_tiny_lrf").replace(drop_path_rate=0.0)).train()
    return ours, saved_bytes(theirs, torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(("policy", "share"), [("none", 1.01), ("context", 0.70), ("block", 0.35)])
def test_saved_bytes_beside_timm(tiny_lrf, policy, share):
    ours, theirs = tiny_lrf
    ours.set_recompute(policy)
    ratio = saved_bytes(ours, torch.randn(1, 3, 64, 64)) / theirs
    print(f"{policy}: {ratio:.2f} of timm's {theirs / 2**20:.1f} MiB")
    assert ratio <= share
    assert policy != "none" or ratio > 0.95  # the figures above mean something only if the counter sees everything


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    torch.manual_seed(1)
    y = model(x)
    y = y if isinstance(y, tuple) else (y,)
    sum(part.square().mean() for part in y).backward()
    return [*[part.detach() for part in y], *[parameter.grad.clone() for parameter in model.parameters()]]


@pytest.mark.parametrize("policy", ["context", "block"])
@pytest.mark.parametrize("build", [FocalNet, FocalNetClassifier])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"drop_rate": 0.3, "drop_path_rate": 0.4},
        {"use_postln": True, "layerscale_value": 0.5, "normalize_modulator": True, "use_postln_in_modulation": True},
    ],
)
def test_the_gradients_are_identical(build, changes, policy):
    model = build(TINY.replace(**changes))
    x = torch.randn(2, 3, 45, 38)
    expected = step(model, x)
    model.set_recompute(policy)
    for a, b in zip(step(model, x), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("policy", POLICIES)
def test_evaluation_is_untouched(policy):
    model = FocalNetClassifier(TINY, num_classes=3, recompute=policy).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        y = model(x)
    assert not y.requires_grad
    model.set_recompute("none")
    assert torch.equal(y, model(x))


def test_parts_come_out_of_a_recomputing_layer():
    layer = FocalModulation(8, focal_level=2, focal_window=3, normalize_modulator=True)
    x = torch.randn(1, 4, 5, 8)
    _, expected = layer(x, return_parts=True)
    layer.recompute = True
    _, parts = layer(x, return_parts=True)
    for a, b in zip(parts, expected, strict=True):
        assert torch.equal(a, b)


def test_autocast():
    model = FocalNetClassifier(TINY, num_classes=3)
    x = torch.randn(2, 3, 32, 32)
    grads = []
    for policy in POLICIES:
        model.set_recompute(policy)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            model(x).float().square().mean().backward()
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
    for other in grads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(grads[0], other, strict=True))


def test_context_compiles_as_one_graph():
    torch.compiler.reset()
    model = FocalNetClassifier(TINY.replace(depths=(1, 1), focal_levels=(2,), focal_windows=(3,)), recompute="context")
    x = torch.randn(2, 3, 32, 32)
    expected = step(model, x)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for a, b in zip(step(compiled, x), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
