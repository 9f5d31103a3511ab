"""`fuse` inside timm, transformers and the official layer: same state dict, values and gradients, and back."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from focalnet.errors import UserError
from focalnet.models.classifier.model import FocalNetClassifier
from focalnet.ops.fuse import fuse, unfuse
from focalnet.variants import FocalNetConfig


def timm_model(**options) -> nn.Module:
    from timm.models.focalnet import FocalNet

    return FocalNet(embed_dim=8, depths=(1, 1), focal_levels=(2, 3), focal_windows=(3, 5), num_classes=5, **options)


def transformers_config(**options):
    from transformers import FocalNetConfig

    sizes = {"image_size": 32, "embed_dim": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    return FocalNetConfig(**sizes, focal_levels=[2, 3], focal_windows=[3, 5], num_labels=5, **options)


def transformers_model(kind: str, **options) -> nn.Module:
    import transformers

    return getattr(transformers, kind)(transformers_config(**options))


class FocalModulation(nn.Module):
    """The parts of the official layer, with a forward pass written for this test; it keeps gates and modulator."""

    def __init__(self, dim=8, levels=2, use_postln_in_modulation=True, normalize_modulator=True):
        super().__init__()
        self.dim, self.focal_level, self.normalize_modulator = dim, levels, normalize_modulator
        self.f = nn.Linear(dim, 2 * dim + levels + 1)
        self.h = nn.Conv2d(dim, dim, 1)
        self.act = nn.GELU()
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(0.0)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim, bias=False), nn.GELU())
            for k in range(3, 3 + 2 * levels, 2)
        )
        if use_postln_in_modulation:
            self.ln = nn.LayerNorm(dim)

    def forward(self, x):
        query, level, gates = self.f(x).permute(0, 3, 1, 2).split((self.dim, self.dim, self.focal_level + 1), 1)
        total = 0
        for index, layer in enumerate(self.focal_layers):
            level = layer(level)
            total = total + level * gates[:, index : index + 1]
        total = total + self.act(level.mean((2, 3), keepdim=True)) * gates[:, -1:]
        total = total / (self.focal_level + 1) if self.normalize_modulator else total
        self.gates, self.modulator = gates, self.h(total)
        y = (query * self.modulator).permute(0, 2, 3, 1)
        return self.proj_drop(self.proj(self.ln(y) if hasattr(self, "ln") else y))


PICTURES = (2, 3, 32, 32)
MODELS = {
    "timm": (timm_model, PICTURES),
    "timm with every option": (
        lambda: timm_model(use_post_norm_in_modulation=True, normalize_modulator=True, layerscale_value=0.1), PICTURES,
    ),
    "transformers classifier": (lambda: transformers_model("FocalNetForImageClassification"), PICTURES),
    "transformers with every option": (
        lambda: transformers_model(
            "FocalNetForImageClassification", use_post_layernorm_in_modulation=True, normalize_modulator=True
        ),
        PICTURES,
    ),
    "transformers backbone": (lambda: transformers_model("FocalNetBackbone"), PICTURES),
    "transformers masked images": (
        lambda: transformers_model("FocalNetForMaskedImageModeling", encoder_stride=8, use_conv_embed=False), PICTURES,
    ),
    "official layer": (lambda: nn.Sequential(FocalModulation(), FocalModulation(levels=3)), (2, 5, 6, 8)),
}  # fmt: skip


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    y = model(x)
    if isinstance(y, Tensor):
        return [y]
    names = [name for name in ("logits", "feature_maps", "reconstruction") if y.get(name) is not None]
    values = [value for name in names for value in (y[name] if isinstance(y[name], tuple) else (y[name],))]
    assert values
    return values


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    torch.manual_seed(1)  # stochastic depth
    values = outputs(model, x)
    sum((value * torch.linspace(-1, 1, value.numel()).reshape(value.shape)).sum() for value in values).backward()
    grads = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    return [*[value.detach() for value in values], *grads]


@pytest.fixture(params=MODELS)
def case(request) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    build, shape = MODELS[request.param]
    model = build().train()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model, torch.randn(shape)


def test_same_numbers_same_state(case):
    model, x = case
    state = {name: value.clone() for name, value in model.state_dict().items()}
    identity = [id(parameter) for parameter in model.parameters()]
    expected = step(model, x)
    assert fuse(model) is model
    assert list(model.state_dict()) == list(state)
    assert [id(parameter) for parameter in model.parameters()] == identity
    for got, wanted in zip(step(model, x), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item() + 1e-6)
    assert any("forward" in vars(module) for module in model.modules())
    assert unfuse(fuse(model)) is model
    assert not any("forward" in vars(module) for module in model.modules())
    for got, wanted in zip(step(model, x), expected, strict=True):
        assert torch.equal(got, wanted)


def test_training_goes_on(case):
    model, x = case
    twin = fuse(copy.deepcopy(model))
    for network in (model, twin):
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
        for seed in range(2):
            torch.manual_seed(seed)
            optimiser.zero_grad()
            sum(value.square().mean() for value in outputs(network, x)).backward()
            optimiser.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_it_really_runs_on_the_operator(case, monkeypatch):
    model, x = case
    calls = []

    def spy(context, gates, kernels):
        calls.append(len(kernels))
        return torch.zeros_like(context)

    monkeypatch.setattr("focalnet.ops.fuse.focal_context", spy)
    outputs(fuse(model), x)
    assert calls == [2, 3]


def test_copies_are_fused_and_independent():
    model = fuse(timm_model()).eval()
    x = torch.randn(PICTURES)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x))
        layer = twin.layers[0].blocks[0].modulation
        assert vars(layer)["forward"].args[0] is layer


def test_the_official_layer_keeps_nothing():
    layer = fuse(FocalModulation())
    layer(torch.randn(1, 4, 4, 8))
    assert not hasattr(layer, "gates")


def test_compiles_as_one_graph():
    torch.compiler.reset()
    model = fuse(timm_model()).eval()
    x = torch.randn(PICTURES)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_nothing_to_fuse():
    with pytest.raises(UserError, match="Linear holds no focal modulation"):
        fuse(nn.Linear(1, 1))
    ours = FocalNetClassifier(FocalNetConfig(embed_dim=8, depths=(1,), focal_levels=(1,)))
    with pytest.raises(UserError, match="run on the fast operator as they are"):
        fuse(ours)


def change_gelu(layer):
    layer.act = nn.GELU(approximate="tanh")


def change_activation(layer):
    layer.focal_layers[1][1] = nn.ReLU()


def change_bias(layer):
    layer.focal_layers[0][0] = nn.Conv2d(8, 8, 3, padding=1, groups=8)


def change_dilation(layer):
    layer.focal_layers[0][0] = nn.Conv2d(8, 8, 3, padding=1, dilation=2, groups=8, bias=False)


def change_linear(layer):
    layer.f = nn.Sequential(layer.f)


def change_hook(layer):
    layer.h.register_forward_hook(lambda *_: None)


def change_forward(layer):
    layer.forward = lambda x: x


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_gelu, "the exact GELU"),
        (change_activation, r"ReLU\(\)"),
        (change_bias, r"focal_layers\.0\.0 is not a plain depth-wise"),
        (change_dilation, r"focal_layers\.0\.0 does not keep the size"),
        (change_linear, "f is a Sequential and not a Linear"),
        (change_hook, "forward hooks"),
        (change_forward, "forward is already replaced"),
    ],
)
def test_it_refuses_what_it_cannot_fuse(change, reason):
    model = nn.Sequential(FocalModulation(), FocalModulation())
    change(model[1])
    with pytest.raises(UserError, match=rf"cannot fuse 1: .*{reason}"):
        fuse(model)
    assert "forward" not in vars(model[0])
