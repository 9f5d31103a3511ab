"""Causal levels against sums written out by hand, and a sequence in chunks against the whole one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from focalnet.errors import UserError
from focalnet.modulation import CausalFocalModulation, capture
from focalnet.ops import causal_focal_context

SIZES = (4, 7, 11)
"""An even kernel, an odd one, and the one in place of the mean."""


def naive(context: Tensor, gates: Tensor, kernels: list[Tensor], biases: list[Tensor]) -> Tensor:
    """Position by position; before the first one a level repeats its first value."""
    level, total = context, torch.zeros_like(context)
    for index, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        steps = []
        for t in range(context.shape[1]):
            y = bias.expand(context.shape[0], -1)
            for tap in range(kernel.shape[2]):
                y = y + kernel[:, 0, tap] * level[:, max(t - (kernel.shape[2] - 1 - tap), 0)]
            steps.append(y * (1 + torch.erf(y / math.sqrt(2))) / 2)
        level = torch.stack(steps, 1)
        total = total + gates[..., index : index + 1] * level
    return total


def problem(length: int, *, sizes=SIZES, channels=3, dtype=torch.float64):
    torch.manual_seed(length)
    kernels = [torch.randn(channels, 1, size, dtype=dtype) / 2 for size in sizes]
    biases = [torch.randn(channels, dtype=dtype) for _ in sizes]
    context = torch.randn(2, length, channels, dtype=dtype)
    return context, torch.randn(2, length, len(sizes), dtype=dtype), kernels, biases


@pytest.mark.parametrize("length", [1, 5, 23])
def test_values_and_gradients(length):
    context, gates, kernels, biases = problem(length)
    leaves = [tensor.requires_grad_() for tensor in (context, gates, *kernels, *biases)]
    ours, past = causal_focal_context(context, gates, kernels, biases)
    expected = naive(context, gates, kernels, biases)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert [tuple(tensor.shape) for tensor in past] == [(2, size - 1, 3) for size in SIZES]
    cotangent = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_low_precision(dtype, tolerance):
    context, gates, kernels, biases = problem(17)
    expected = naive(context, gates, kernels, biases)
    low = [[tensor.to(dtype) for tensor in tensors] for tensors in (kernels, biases)]
    got, past = causal_focal_context(context.to(dtype), gates.to(dtype), *low)
    assert {got.dtype, *(tensor.dtype for tensor in past)} == {dtype}
    assert (got.double() - expected).abs().max() <= tolerance * expected.abs().max()


def layer(**options) -> CausalFocalModulation:
    """FocalCodec-Stream, made small."""
    options = {
        "focal_level": 2,
        "focal_window": 4,
        "focal_factor": 3,
        "focal_bias": True,
        "global_window": 9,
        **options,
    }
    torch.manual_seed(0)
    module = CausalFocalModulation(6, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.double()


OPTIONS = [
    {},
    {"focal_bias": False, "normalize_modulator": True, "use_postln_in_modulation": True},
    {"focal_level": 0, "global_window": 1},
]


@settings(max_examples=25, deadline=None)
@given(chunks=st.lists(st.integers(1, 13), min_size=1, max_size=8), options=st.sampled_from(OPTIONS))
def test_chunks_are_the_whole(chunks, options):
    module = layer(**options)
    x = torch.randn(2, sum(chunks), 6, dtype=torch.float64)
    with torch.no_grad():
        past, parts = None, []
        for chunk in x.split(chunks, dim=1):
            y, past = module.stream(chunk, past)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), module(x), rtol=1e-11, atol=1e-11)


def test_the_layer_is_its_formula():
    module = layer(normalize_modulator=True)
    x = torch.randn(2, 15, 6, dtype=torch.float64)
    names = [name for name, _ in module.named_parameters() if name.startswith("focal_layers")]
    assert names == [f"focal_layers.{level}.0.{kind}" for level in range(3) for kind in ("weight", "bias")]
    assert [module.focal_layers[level][0].weight.shape[2] for level in range(3)] == [4, 7, 9]
    y, parts = module(x, return_parts=True)
    query, context, gates = (x @ module.f.weight.T + module.f.bias).split((6, 6, 3), dim=-1)
    convolutions = [sequential[0] for sequential in module.focal_layers]
    total = naive(context, gates, [c.weight for c in convolutions], [c.bias for c in convolutions]) / 3
    torch.testing.assert_close(parts.context, total)
    modulator = total @ module.h.weight[:, :, 0].T + module.h.bias
    torch.testing.assert_close(y, (query * modulator) @ module.proj.weight.T + module.proj.bias)
    with torch.no_grad(), capture(module) as captured:
        module(x)
    torch.testing.assert_close(captured[""].modulator, modulator)


def test_nothing_looks_ahead():
    module = layer()
    x = torch.randn(1, 20, 6, dtype=torch.float64)
    changed = x.clone()
    changed[:, 12:] += 1
    with torch.no_grad():
        difference = (module(x) - module(changed)).abs().amax((0, 2))
    assert not difference[:12].any()
    assert difference[12:].all()


def test_recomputation_gives_the_same_gradients():
    module = layer()
    x = torch.randn(2, 12, 6, dtype=torch.float64)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(module(x).square().sum(), list(module.parameters())))

    expected = gradients()
    module.recompute = True
    torch.testing.assert_close(gradients(), expected)


class Stream(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = layer()

    def forward(self, x, past):
        return self.layer.stream(x, past)


def test_a_stream_is_exported():
    """The first chunk and those that follow are two programs; each takes any batch and any length."""
    model = Stream().eval()
    x = torch.randn(3, 7, 6, dtype=torch.float64)
    past = tuple(tensor.detach() for tensor in model(x, None)[1])
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    sizes, past_sizes = {0: batch, 1: length}, tuple({0: batch} for _ in past)
    first = torch.export.export(model, (x, None), dynamic_shapes=(sizes, None))
    later = torch.export.export(model, (x, past), dynamic_shapes=(sizes, past_sizes))
    x = torch.randn(2, 17, 6, dtype=torch.float64)
    begin, past = first.module()(x[:, :5], None)
    end, _ = later.module()(x[:, 5:], past)
    torch.testing.assert_close(torch.cat([begin, end], 1), model.layer(x))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"context": torch.zeros(2, 5, 5, 3)}, "causal levels take sequences"),
        ({"gates": torch.zeros(2, 5, 4)}, r"gates has shape \(2, 5, 4\); 3 kernels .* need \(2, 5, 3\)"),
        (
            {"past": [torch.zeros(2, 2, 3)] * 3},
            r"past has the shapes .* needs \[\(2, 3, 3\), \(2, 6, 3\), \(2, 10, 3\)\]",
        ),
    ],
)
def test_shapes_that_do_not_fit(change, sentence):
    context, gates, kernels, biases = problem(5)
    arguments = {"context": context, "gates": gates, "kernels": kernels, "biases": biases, **change}
    with pytest.raises(UserError, match=sentence):
        causal_focal_context(**arguments)


def test_other_backends_decline(monkeypatch):
    monkeypatch.setenv("FOCALNET_BACKEND", "numba")
    with pytest.raises(UserError, match="FOCALNET_BACKEND=numba cannot run here: causal levels run in plain PyTorch"):
        causal_focal_context(*problem(5))


def test_bad_options():
    with pytest.raises(UserError, match="global_window=0"):
        CausalFocalModulation(4, focal_level=1, focal_window=3, global_window=0)
