"""The two rules for CPUs, halves of a wide kernel and a weight gradient in strips, against the plain convolution."""

import sys

import pytest
import torch
import torch.nn.functional as F

from focalnet.ops.depthwise import depthwise

module = sys.modules["focalnet.ops.depthwise"]


@pytest.mark.parametrize("kernel", [(13, 13), (1, 13), (13, 11), (15, 15), (3, 3)])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 40), (20, 31)])
@pytest.mark.parametrize("grad", [False, True])
def test_equals_the_convolution(kernel, sizes, grad, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 0)
    x = torch.randn(2, 6, *sizes, dtype=torch.float64).to(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, *kernel, dtype=torch.float64, requires_grad=grad)
    expected = F.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2), groups=6)
    torch.testing.assert_close(depthwise(x, weight), expected)


def test_halves_only_where_they_pay(monkeypatch):
    calls = []

    def convolve(x, kernel, **options):
        calls.append(kernel.shape[-1])
        return F.conv2d(x, kernel, **options)

    monkeypatch.setattr(module, "CONVOLUTIONS", (None, convolve, None))
    wide, narrow = torch.randn(4, 1, 13, 13), torch.randn(4, 1, 11, 11)
    large, small = torch.randn(1, 4, 25, 38), torch.randn(1, 4, 14, 14)
    depthwise(large, wide)
    depthwise(large, narrow)
    depthwise(small, wide)
    depthwise(large, wide.clone().requires_grad_())
    assert calls == [7, 6, 11, 13]  # with a gradient to come, it stays whole: the strips are another matter


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", [3, 5, 9])
@pytest.mark.parametrize("shape", [(2, 8, 7, 10), (1, 17, 1, 4)])
def test_gradients(shape, size, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    kernel = (torch.randn(shape[1], 1, size, size) / size).to(dtype).requires_grad_()
    grad = torch.randn(shape).to(dtype)
    exact = F.conv2d(x.double(), kernel.double(), padding=size // 2, groups=shape[1])
    made = depthwise(x, kernel)
    eps = torch.finfo(dtype).eps
    tolerance = {"rtol": 2 * eps, "atol": 4e-6 if dtype == torch.float32 else 4 * eps}
    torch.testing.assert_close(made, exact.to(dtype), **tolerance)
    expected = torch.autograd.grad(exact, (x, kernel), grad.double())
    for ours, theirs in zip(torch.autograd.grad(made, (x, kernel), grad), expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_strips_only_where_they_pay(monkeypatch):
    """Not for kernels of 3 columns, maps lower than the kernel, float64, or frozen kernels."""
    seen = []

    def conv2d_weight(x, size, grad, **options):
        seen.append((x.dtype, tuple(size[2:])))
        return torch.nn.grad.conv2d_weight(x, size, grad, **options)

    def run(height, rows, columns, dtype, learn=True):
        x = torch.randn(1, 4, height, 6, dtype=dtype, requires_grad=True)
        depthwise(x, torch.randn(4, 1, rows, columns, dtype=dtype, requires_grad=learn)).sum().backward()

    monkeypatch.setattr(module, "conv2d_weight", conv2d_weight)
    monkeypatch.setattr(module, "_is_x86", lambda: True)
    run(6, 3, 3, torch.bfloat16)
    run(6, 7, 7, torch.float32)
    run(6, 5, 5, torch.float64)
    run(6, 5, 5, torch.float32, learn=False)
    assert not seen
    run(6, 5, 5, torch.float32)
    run(9, 7, 7, torch.bfloat16)
    run(3, 3, 9, torch.float16)
    assert seen == [(torch.float32, size) for size in [(5, 3), (5, 2), (7, 3), (7, 3), (7, 1), *[(3, 3)] * 3]]
    monkeypatch.setattr(module, "_is_x86", lambda: False)
    run(6, 5, 5, torch.float32)
    assert len(seen) == 8


@pytest.mark.parametrize("size", [5, 7, 9, 11, 13])
@pytest.mark.parametrize("sizes", [(13, 13), (14, 3), (20, 31)])
def test_gradient_in_strips(size, sizes):
    """In float32, to its last digits; the map and the gradient need not be dense."""
    torch.manual_seed(0)
    x = torch.randn(2, *sizes, 9)[..., 2:8].movedim(-1, 1).requires_grad_()
    kernel = torch.randn(6, 1, size, size, requires_grad=True)
    grad = torch.randn(2, 6, *sizes)
    expected = torch.autograd.grad(
        F.conv2d(x.double(), kernel.double(), padding=size // 2, groups=6), (x, kernel), grad.double()
    )
    for ours, theirs in zip(torch.autograd.grad(depthwise(x, kernel), (x, kernel), grad), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def plain(x, kernel):
    return F.conv2d(x, kernel, padding=2, groups=4)


def test_gradients_per_sample():
    x, kernel = torch.randn(3, 4, 6, 6), torch.randn(4, 1, 5, 5)
    ours, theirs = (
        torch.func.vmap(
            torch.func.grad(lambda k, x, convolve=convolve: convolve(x[None], k).square().sum()), in_dims=(None, 0)
        )(kernel, x)
        for convolve in (depthwise, plain)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own forward mode
def test_forward_mode():
    x, kernel = torch.randn(3, 4, 6, 6), torch.randn(4, 1, 5, 5, requires_grad=True)
    tangents = (torch.randn_like(x), torch.randn_like(kernel))
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(*pair) for pair in zip((x, kernel), tangents, strict=True)]
        ours, theirs = (torch.autograd.forward_ad.unpack_dual(f(*duals)).tangent for f in (depthwise, plain))
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_kernel_in_float32_under_autocast():
    """Autocast leaves the parameters in float32, and so must their gradients be."""
    x = torch.randn(1, 4, 6, 6, dtype=torch.bfloat16, requires_grad=True)
    kernel = torch.randn(4, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise(x, kernel)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert kernel.grad is not None
    assert kernel.grad.dtype == torch.float32
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


def test_only_the_gradients_that_are_asked_for():
    x = torch.randn(1, 4, 6, 6, dtype=torch.bfloat16)
    kernel = torch.randn(4, 1, 5, 5, dtype=torch.bfloat16, requires_grad=True)
    depthwise(x, kernel).sum().backward()
    assert x.grad is None
    assert kernel.grad is not None
    assert not depthwise(x, kernel.detach()).requires_grad


def test_second_derivative():
    x = torch.randn(1, 2, 4, 5, dtype=torch.bfloat16, requires_grad=True)
    kernel = torch.randn(2, 1, 5, 5, dtype=torch.bfloat16, requires_grad=True)
    (gradient,) = torch.autograd.grad(depthwise(x, kernel).square().sum(), kernel, create_graph=True)
    exact_x, exact_kernel = (tensor.detach().double().requires_grad_() for tensor in (x, kernel))
    exact = F.conv2d(exact_x, exact_kernel, padding=2, groups=2).square().sum()
    (exact_gradient,) = torch.autograd.grad(exact, exact_kernel, create_graph=True)
    ours = torch.autograd.grad(gradient.float().square().sum(), x)[0].double()
    theirs = torch.autograd.grad(exact_gradient.square().sum(), exact_x)[0]
    assert (ours - theirs).norm() <= 0.05 * theirs.norm()


def test_exports_as_a_plain_convolution():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = torch.nn.Parameter(torch.randn(4, 1, 5, 5, dtype=torch.bfloat16))

        def forward(self, x):
            return depthwise(x, self.kernel)

    program = torch.export.export(Net(), (torch.randn(1, 4, 6, 6, dtype=torch.bfloat16),))
    assert any("conv2d" in str(node.target) for node in program.graph.nodes)
