"""The operator against sums written out by hand, and the switch between backends."""

import itertools
import logging
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from focalnet import ops
from focalnet.errors import UserError
from focalnet.ops import focal_context, linear, reference

LINEAR = sys.modules["focalnet.ops.linear"]  # the package attribute of that name is the function


def naive(context: Tensor, gates: Tensor, kernels: list[Tensor], biases: list[Tensor] | None = None) -> Tensor:
    """The equations with one shifted copy of the padded map per kernel tap; of a dense kernel, per pair of channels."""

    def gelu(x: Tensor) -> Tensor:
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2

    sizes = context.shape[1:-1]
    level, total = context, torch.zeros_like(context)
    for index, kernel in enumerate(kernels):
        window = kernel.shape[2:]
        padding = [side for k in reversed(window) for side in ((k - 1) // 2, k // 2)]
        padded = F.pad(level, [0, 0, *padding])
        level = torch.zeros_like(context)
        for tap in itertools.product(*(range(k) for k in window)):
            region = (slice(None), *(slice(t, t + n) for t, n in zip(tap, sizes, strict=True)))
            weight = kernel[(slice(None), slice(None), *tap)]
            seen = padded[region]
            level = level + (seen * weight[:, 0] if weight.shape[1] == 1 else seen @ weight.T)
        level = gelu(level if biases is None else level + biases[index])
        total = total + gates[..., index : index + 1] * level
    pooled = gelu(level.sum(tuple(range(1, 1 + len(sizes))), keepdim=True) / math.prod(sizes))
    return total + gates[..., -1:] * pooled


def problem(sizes, levels, *, channels=5, batch=2, window=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, dtype=dtype, generator=generator)

    kernels = [draw(channels, 1, *[window + 2 * level] * len(sizes)) / 3 for level in range(levels)]
    return draw(batch, *sizes, channels), draw(batch, *sizes, levels + 1), kernels


@pytest.mark.parametrize("levels", range(5))
@pytest.mark.parametrize("sizes", [(1, 1), (7, 7), (13, 17)])
def test_pictures(sizes, levels):
    arguments = problem(sizes, levels)
    torch.testing.assert_close(reference.focal_context(*arguments), naive(*arguments), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [(1,), (19,), (3, 4, 5), (1, 1, 1)])
@pytest.mark.parametrize("levels", [0, 2])
def test_sequences_and_volumes(sizes, levels):
    arguments = problem(sizes, levels)
    torch.testing.assert_close(reference.focal_context(*arguments), naive(*arguments), rtol=1e-12, atol=1e-12)


def test_a_kernel_may_have_unequal_sides():
    context, gates, _ = problem((6, 7), 1)
    kernels = [torch.randn(5, 1, 1, 5, dtype=torch.float64)]
    torch.testing.assert_close(reference.focal_context(context, gates, kernels), naive(context, gates, kernels))


@pytest.mark.parametrize("sizes", [(5,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_every_gradient(sizes, levels):
    context, gates, kernels = problem(sizes, levels, channels=2)
    leaves = [tensor.requires_grad_() for tensor in (context, gates, *kernels)]
    assert torch.autograd.gradcheck(lambda c, g, *k: focal_context(c, g, k), leaves)


@pytest.mark.parametrize("sizes", [(1, 1), (13, 17)])
def test_gradients_equal_the_naive_ones(sizes):
    context, gates, kernels = problem(sizes, 3)
    leaves = [tensor.requires_grad_() for tensor in (context, gates, *kernels)]
    cotangent = torch.randn_like(context)
    ours = torch.autograd.grad(focal_context(context, gates, kernels), leaves, cotangent)
    expected = torch.autograd.grad(naive(context, gates, kernels), leaves, cotangent)
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_low_precision(dtype, tolerance):
    context, gates, kernels = problem((9, 11), 3)
    expected = naive(context, gates, kernels)
    got = focal_context(context.to(dtype), gates.to(dtype), [kernel.to(dtype) for kernel in kernels])
    assert got.dtype == dtype
    assert (got.double() - expected).abs().max() <= tolerance * expected.abs().max()


def test_strided_slices_are_read_as_they_are():
    whole = torch.randn(2, 5, 6, 2 * 4 + 3, dtype=torch.float64)
    _, context, gates = whole.split((4, 4, 3), dim=-1)
    kernels = [torch.randn(4, 1, k, k, dtype=torch.float64) for k in (3, 5)]
    torch.testing.assert_close(focal_context(context, gates, kernels), naive(context, gates, kernels))


@pytest.mark.parametrize(
    ("context", "gates", "kernels", "sentence"),
    [
        ((2, 4), (2, 1), [], "context has 2 axes"),
        ((2, 3, 3, 3, 3, 4), (2, 3, 3, 3, 3, 1), [], "context has 6 axes"),
        ((2, 3, 3, 4), (2, 3, 3, 3), [(4, 1, 3, 3)], r"gates has shape .* need \(2, 3, 3, 2\)"),
        ((2, 3, 3, 4), (2, 3, 2, 2), [(4, 1, 3, 3)], "gates has shape"),
        ((2, 3, 3, 4), (2, 3, 3, 2), [(4, 1, 3)], "kernel 0 has shape"),
        ((2, 3, 3, 4), (2, 3, 3, 2), [(5, 1, 3, 3)], "kernel 0 has shape"),
        ((2, 3, 3, 4), (2, 3, 3, 3), [(4, 1, 3, 3), (4, 2, 5, 5)], r"kernel 1 has shape .* a dense one \(4, 4, k, k\)"),
    ],
)
def test_shapes_that_do_not_fit(context, gates, kernels, sentence):
    with pytest.raises(UserError, match=sentence):
        focal_context(torch.zeros(context), torch.zeros(gates), [torch.zeros(kernel) for kernel in kernels])


def test_the_choice_of_backend_is_logged(caplog, monkeypatch):
    monkeypatch.delenv("FOCALNET_BACKEND", raising=False)
    with caplog.at_level(logging.DEBUG, "focalnet.ops"):
        focal_context(*problem((3, 3), 1))
    assert "focal_context backend reference: chosen (plain PyTorch runs everywhere)" in caplog.messages


def test_the_environment_forces_a_backend(monkeypatch):
    def run(context, gates, kernels):
        return context + 1

    backends = [
        ops.Backend("never", lambda *_: (False, "it is a test"), run),
        ops.Backend("plus", lambda *_: (True, "yes"), run),
    ]
    monkeypatch.setattr(ops, "BACKENDS", [*backends, *ops.BACKENDS])
    context, gates, kernels = problem((3, 3), 1)
    monkeypatch.delenv("FOCALNET_BACKEND", raising=False)
    assert torch.equal(focal_context(context, gates, kernels), context + 1)
    monkeypatch.setenv("FOCALNET_BACKEND", "reference")
    assert torch.equal(focal_context(context, gates, kernels), reference.focal_context(context, gates, kernels))
    monkeypatch.setenv("FOCALNET_BACKEND", "never")
    with pytest.raises(UserError, match="FOCALNET_BACKEND=never cannot run here: it is a test"):
        focal_context(context, gates, kernels)
    monkeypatch.setenv("FOCALNET_BACKEND", "referense")
    with pytest.raises(UserError, match="did you mean 'reference'"):
        focal_context(context, gates, kernels)


@pytest.mark.parametrize("convolution", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_linear_by_both_routes(convolution, bias, monkeypatch):
    monkeypatch.setattr(LINEAR, "_convolution_is_faster", lambda: convolution)
    for sizes in [(5, 7), (6,), (2, 3, 4), (1, 1)]:
        x = torch.randn(3, *sizes, 4, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
        leaves = [x, weight] + ([torch.randn(6, dtype=torch.float64, requires_grad=True)] if bias else [])
        ours, expected = linear(*leaves), F.linear(*leaves)
        torch.testing.assert_close(ours, expected)
        cotangent = torch.randn_like(expected)
        torch.testing.assert_close(
            torch.autograd.grad(ours, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent)
        )


def test_linear_of_a_dense_map_is_dense(monkeypatch):
    for convolution in (True, False):
        monkeypatch.setattr(LINEAR, "_convolution_is_faster", lambda convolution=convolution: convolution)
        assert linear(torch.randn(2, 5, 6, 8), torch.randn(4, 8)).is_contiguous()


def relative(sizes, windows, *, dense=False, biased=True, channels=4, dtype=torch.float64):
    """What relatives have: kernels of any size, dense or with a bias."""
    generator = torch.Generator().manual_seed(len(sizes))

    def draw(*shape):
        return torch.randn(shape, dtype=dtype, generator=generator)

    wide = channels if dense else 1
    kernels = [draw(channels, wide, *[window] * len(sizes)) / 3 for window in windows]
    biases = [draw(channels) for _ in windows] if biased else None
    return draw(2, *sizes, channels), draw(2, *sizes, len(windows) + 1), kernels, biases


RELATIVES = [
    pytest.param((9,), (7, 9), {}, id="FocalCodec"),
    pytest.param((5,), (14, 18), {}, id="FocalCodec, even kernels wider than the sequence"),
    pytest.param((7,), (3, 5), {"dense": True, "biased": False}, id="the time axis of Video-FocalNets"),
    pytest.param((5, 7), (3, 4), {}, id="factor 1"),
    pytest.param((6, 5), (4, 3, 2), {"biased": False}, id="even kernels on an image, a factor below 0"),
    pytest.param((3, 4, 5), (2, 3), {"dense": True}, id="dense on a volume"),
]


@pytest.mark.parametrize(("sizes", "windows", "options"), RELATIVES)
def test_relatives(sizes, windows, options, monkeypatch):
    monkeypatch.delenv("FOCALNET_BACKEND", raising=False)
    arguments = relative(sizes, windows, **options)
    context, gates, kernels, biases = arguments
    leaves = [tensor.requires_grad_() for tensor in (context, gates, *kernels, *(biases or []))]
    ours, expected = focal_context(*arguments), naive(*arguments)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize(("sizes", "windows", "options"), RELATIVES)
def test_relatives_in_low_precision(sizes, windows, options, dtype, tolerance):
    context, gates, kernels, biases = relative(sizes, windows, **options)
    expected = naive(context, gates, kernels, biases)
    low = None if biases is None else [bias.to(dtype) for bias in biases]
    got = focal_context(context.to(dtype), gates.to(dtype), [kernel.to(dtype) for kernel in kernels], low)
    assert got.dtype == dtype
    assert (got.double() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(
    ("windows", "options", "reason"),
    [
        ((3, 5), {}, "the convolutions have a bias"),
        ((3, 4), {"biased": False}, "a kernel is even"),
        ((3,), {"biased": False, "dense": True}, "a kernel is dense"),
    ],
)
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_fast_backends_decline_what_they_lack(backend, windows, options, reason, monkeypatch):
    arguments = relative((6, 8), windows, channels=32, dtype=torch.float32, **options)
    monkeypatch.setattr(ops, "HAS_NUMBA", True)
    monkeypatch.setattr(ops, "HAS_TRITON", True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("FOCALNET_BACKEND", backend)
    with pytest.raises(UserError, match=f"{backend} cannot run here: {reason}, which plain PyTorch alone serves"):
        focal_context(*arguments)


def test_biases_that_do_not_fit():
    context, gates, kernels, _ = relative((6,), (3, 5))
    with pytest.raises(UserError, match=r"biases have the shapes \[\(4,\)\]; 2 kernels .* as many of \(4,\)"):
        focal_context(context, gates, kernels, [torch.zeros(4)])
