"""The layer against timm's and transformers', and everything that may be done to it."""

import copy
import logging
import warnings

import pytest
import torch
from torch import Tensor, nn

from focalnet.errors import UserError
from focalnet.modulation import FocalModulation, capture

OPTIONS = [
    {"focal_level": 2, "focal_window": 3},
    {"focal_level": 3, "focal_window": 3, "use_postln_in_modulation": True, "normalize_modulator": True},
    {"focal_level": 1, "focal_window": 5, "bias": False},
]


def layer(dim=12, **options) -> FocalModulation:
    options = {"focal_level": 2, "focal_window": 3, **options}
    torch.manual_seed(0)
    module = FocalModulation(dim, **options)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def timm_twin(module: FocalModulation, **options) -> tuple[nn.Module, dict[str, str]]:
    from timm.models.focalnet import FocalModulation as Timm

    twin = Timm(
        module.dim,
        focal_window=options["focal_window"],
        focal_level=options["focal_level"],
        bias=options.get("bias", True),
        use_post_norm=options.get("use_postln_in_modulation", False),
        normalize_modulator=options.get("normalize_modulator", False),
    )
    if options.get("use_postln_in_modulation"):
        twin.norm.eps = 1e-5  # timm's norms have 1e-6, the official ones PyTorch's 1e-5
    return twin, {name: name.replace("ln.", "norm.") for name, _ in module.named_parameters()}


def transformers_twin(module: FocalModulation, **options) -> tuple[nn.Module, dict[str, str]]:
    from transformers import FocalNetConfig
    from transformers.models.focalnet.modeling_focalnet import FocalNetModulation

    config = FocalNetConfig(
        focal_windows=[options["focal_window"]],
        focal_levels=[options["focal_level"]],
        use_post_layernorm_in_modulation=options.get("use_postln_in_modulation", False),
        normalize_modulator=options.get("normalize_modulator", False),
    )
    twin = FocalNetModulation(config, 0, module.dim, bias=options.get("bias", True))
    renames = {"f": "projection_in", "h": "projection_context", "proj": "projection_out", "ln": "layernorm"}
    names = [name for name, _ in module.named_parameters()]
    return twin, {
        name: ".".join([renames.get(name.split(".")[0], name.split(".")[0]), *name.split(".")[1:]]) for name in names
    }


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("twin_of", "channels_first"), [(timm_twin, True), (transformers_twin, False)])
def test_equals_other_libraries(twin_of, channels_first, options, dtype, rtol):
    ours = layer(**options)
    twin, names = twin_of(ours, **options)
    theirs = dict(twin.named_parameters())
    assert sorted(names.values()) == sorted(theirs)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            theirs[names[name]].copy_(parameter.reshape(theirs[names[name]].shape))
    ours, twin = ours.to(dtype), twin.to(dtype)
    theirs = dict(twin.named_parameters())
    x = torch.randn(2, 7, 10, 12).to(dtype)
    cotangent = torch.randn(2, 7, 10, 12).to(dtype)

    def run(module: nn.Module, permute: bool) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        y = module(leaf.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if permute else module(leaf)
        y.backward(cotangent)
        assert leaf.grad is not None
        return y.detach(), leaf.grad

    def close(a: Tensor, b: Tensor):
        a, b = a.double(), b.double().reshape(a.shape)
        assert (a - b).abs().max() <= rtol * b.abs().max().clamp(min=1e-3)

    for a, b in zip(run(ours, False), run(twin, channels_first), strict=True):
        close(a, b)
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        close(parameter.grad, theirs[names[name]].grad)


def test_return_parts():
    module = layer(normalize_modulator=True)
    x = torch.randn(2, 5, 6, 12)
    y, parts = module(x, return_parts=True)
    assert torch.equal(y, module(x))
    assert parts.gates.shape == (2, 5, 6, 3)
    assert parts.context.shape == parts.modulator.shape == (2, 5, 6, 12)
    query, _, gates = nn.functional.linear(x, module.f.weight, module.f.bias).split((12, 12, 3), dim=-1)
    torch.testing.assert_close(parts.gates, gates)
    torch.testing.assert_close(
        parts.modulator, nn.functional.linear(parts.context, module.h.weight[:, :, 0, 0], module.h.bias)
    )
    torch.testing.assert_close(y, nn.functional.linear(query * parts.modulator, module.proj.weight, module.proj.bias))
    plain = layer(normalize_modulator=False)
    torch.testing.assert_close(plain(x, return_parts=True)[1].context / 3, parts.context)


def test_forward_leaves_nothing_behind():
    module = layer()
    before = dict(vars(module))
    y = module(torch.randn(1, 4, 4, 12))
    assert vars(module) == before
    y.sum().backward()
    twin = copy.deepcopy(module)  # the official layer keeps a graph on itself and cannot be copied here
    assert torch.equal(twin.f.weight, module.f.weight)


def test_capture():
    model = nn.Sequential(layer(), layer(focal_level=1)).eval()
    x = torch.randn(1, 5, 5, 12)
    first, expected = model[0](x, return_parts=True)
    with torch.inference_mode(), capture(model) as parts:
        y = model(x)
    assert list(parts) == ["0", "1"]
    for got, wanted in zip(parts["0"], expected, strict=True):
        assert torch.equal(got, wanted)
    assert torch.equal(parts["1"].gates, model[1](first, return_parts=True)[1].gates)
    assert all("forward" not in vars(module) for module in model)
    assert torch.equal(y, model(x))
    assert len(parts) == 2


def test_capture_cleans_up_after_an_error():
    model = nn.Sequential(layer())
    with pytest.raises(RuntimeError), capture(model):
        model(torch.randn(1, 5, 5, 11))
    assert "forward" not in vars(model[0])


def test_capture_needs_a_modulation():
    with pytest.raises(UserError, match="Linear holds no FocalModulation"), capture(nn.Linear(1, 1)):
        pass


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"focal_window": -1}, r"\[-1, 1\]"),
        ({"focal_factor": -3}, r"give the kernels \[3, 0\]"),
        ({"focal_level": -1}, "focal_level=-1"),
        ({"spatial_dims": 4}, "spatial_dims=4"),
    ],
)
def test_bad_options(options, sentence):
    with pytest.raises(UserError, match=sentence):
        FocalModulation(8, **{"focal_level": 2, "focal_window": 3, **options})


@pytest.mark.parametrize(("spatial_dims", "sizes"), [(1, (11,)), (3, (3, 4, 5))])
def test_sequences_and_volumes(spatial_dims, sizes):
    module = layer(spatial_dims=spatial_dims).double()
    x = torch.randn(2, *sizes, 12, dtype=torch.float64)
    y = module(x)
    assert y.shape == x.shape
    # An image whose other axes have one position is a sequence: only the centre of the 2-D kernels acts.
    if spatial_dims == 1:
        flat = layer(spatial_dims=2).double()
        state = {k: v for k, v in module.state_dict().items() if not k.startswith("focal_layers")}
        state["h.weight"] = state["h.weight"][..., None]
        for name, kernel in module.state_dict().items():
            if name.startswith("focal_layers"):
                size = kernel.shape[-1]
                state[name] = torch.zeros(12, 1, size, size, dtype=torch.float64)
                state[name][:, :, size // 2] = kernel
        flat.load_state_dict(state)
        torch.testing.assert_close(flat(x[:, None])[:, 0], y)


def test_builds_on_the_meta_device():
    with torch.device("meta"):
        module = FocalModulation(12, focal_level=2, focal_window=3, use_postln_in_modulation=True)
        assert module(torch.empty(2, 5, 7, 12)).shape == (2, 5, 7, 12)
    assert all(parameter.is_meta for parameter in module.parameters())


def test_autocast():
    module = layer()
    x = torch.randn(2, 6, 6, 12)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
        y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16
    assert module.f.weight.grad is not None
    assert module.f.weight.grad.dtype == torch.float32
    expected = module(x)
    assert (y.float() - expected).abs().max() <= 3e-2 * expected.abs().max()


def test_memory_format_does_not_matter():
    module = layer()
    x = torch.randn(2, 12, 5, 6)
    expected = module(x.permute(0, 2, 3, 1).contiguous())
    torch.testing.assert_close(module(x.permute(0, 2, 3, 1)), expected)
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)), expected)
    torch.testing.assert_close(
        module.to(memory_format=torch.channels_last)(x.permute(0, 2, 3, 1).contiguous()), expected
    )


BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("log_level", [logging.WARNING, logging.DEBUG])
def test_compiles_as_one_graph(backend, log_level, caplog):
    torch.compiler.reset()
    module = layer(normalize_modulator=True, use_postln_in_modulation=True)
    x = torch.randn(2, 6, 7, 12, requires_grad=True)
    with caplog.at_level(log_level, "focalnet.ops"):
        compiled = torch.compile(module, backend=backend, fullgraph=True)
        y, expected = compiled(x), module(x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        leaves = [x, *module.parameters()]
        cotangent = torch.randn_like(y)
        ours = torch.autograd.grad(y, leaves, cotangent)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, leaves, cotangent), rtol=1e-4, atol=1e-4)


def test_exports_with_dynamic_sizes():
    module = layer().eval()
    batch, height, width = torch.export.dims("batch", "height", "width")
    program = torch.export.export(
        module, (torch.randn(2, 6, 7, 12),), dynamic_shapes=({0: batch, 1: height, 2: width},)
    )
    for sizes in [(1, 5, 9), (3, 2, 2)]:
        x = torch.randn(*sizes, 12)
        torch.testing.assert_close(program.module()(x), module(x))


def test_dropout_follows_the_projection():
    module = layer(proj_drop=0.5)
    x = torch.randn(4, 8, 8, 12)
    dropped, kept = module(x), module.eval()(x)
    zero = dropped == 0
    assert 0.4 < zero.float().mean() < 0.6
    torch.testing.assert_close(dropped[~zero], 2 * kept[~zero])


@pytest.mark.parametrize(
    ("options", "spatial_dims"),
    [
        ({"focal_window": 14, "focal_level": 2, "focal_factor": 4, "focal_bias": True}, 1),
        ({"focal_window": 3, "focal_level": 2, "focal_factor": 1, "focal_bias": True}, 2),
        ({"focal_window": 2, "focal_level": 1}, 3),
    ],
)
def test_the_options_of_relatives(options, spatial_dims):
    """Even kernels as `padding="same"` of PyTorch, and biases, against the formula in modules of PyTorch."""
    module = layer(**options, spatial_dims=spatial_dims).double()
    x = torch.randn(2, *(5, 6, 4)[:spatial_dims], 12, dtype=torch.float64, requires_grad=True)
    query, level, gates = module.f(x).split((12, 12, options["focal_level"] + 1), dim=-1)
    total = 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")
        for index, (convolution,) in enumerate(module.focal_layers):
            assert (convolution.bias is not None) == options.get("focal_bias", False)
            level = nn.functional.gelu(convolution(level.movedim(-1, 1)).movedim(1, -1))
            total = total + gates[..., index : index + 1] * level
    axes = tuple(range(1, spatial_dims + 1))
    total = total + gates[..., -1:] * nn.functional.gelu(level.mean(axes, keepdim=True))
    expected = module.proj(query * module.h(total.movedim(-1, 1)).movedim(1, -1))
    y = module(x)
    torch.testing.assert_close(y, expected)
    leaves = [x, *module.parameters()]
    cotangent = torch.randn_like(y)
    torch.testing.assert_close(
        torch.autograd.grad(y, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent)
    )
