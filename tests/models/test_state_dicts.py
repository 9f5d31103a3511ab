"""`weights=` and `load_weights` take what is in memory: a state dict of any layout, wrapped or not."""

import pytest
import torch

import focalnet
from focalnet.errors import UserError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return focalnet.create_model("minifocal_32", classes=["ant", "bee"]).eval()


@pytest.mark.parametrize("layout", ["official", "timm", "transformers"])
@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"state_dict": weights, "epoch": 3}])
def test_every_layout(model, layout, wrap):
    weights = wrap(focalnet.convert_state_dict(model.state_dict(), to=layout))
    other = focalnet.create_model("minifocal_32", num_classes=2).eval()
    assert focalnet.load_weights(other, weights) is other
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(other(images), model(images), rtol=0, atol=0)


def test_compiled_models_and_other_heads(model):
    weights = {f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    other = focalnet.create_model("minifocal_32", weights=weights, classes=["ant", "bee"])
    assert not other.training
    torch.testing.assert_close(other.head.weight, model.head.weight, rtol=0, atol=0)
    weights["_orig_mod.head.weight"] = torch.ones(7, 128)
    weights["_orig_mod.head.bias"] = torch.ones(7)
    backbone = focalnet.create_backbone("minifocal_32", weights=weights)
    torch.testing.assert_close(backbone.patch_embed.proj.weight, model.patch_embed.proj.weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"a": 3}, "the state dict holds no weights: found a;"),
        ({}, "the state dict holds no weights"),
        ({"patch_embed.proj.weight": torch.full((32, 3, 2, 2), float("nan"))}, "the state dict is of no use"),
    ],
)
def test_what_is_none_is_refused(model, weights, sentence):
    with pytest.raises(UserError) as error:
        focalnet.load_weights(model, weights)
    assert sentence in str(error.value)
