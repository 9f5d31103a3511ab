"""The numba backend against the reference in float64, and where it steps aside."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.autograd import forward_ad

from focalnet import ops
from focalnet.modulation import FocalModulation
from focalnet.ops import reference

pytest.importorskip("numba")
from focalnet.ops import numba


def problem(batch, height, width, channels, windows, dtype=torch.float32) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Slices of one tensor, as `f` makes them, and the kernels."""
    generator = torch.Generator().manual_seed(height * width + channels)
    whole = torch.randn(batch, height, width, 2 * channels + len(windows) + 1, generator=generator).to(dtype)
    _, context, gates = whole.split((channels, channels, len(windows) + 1), dim=-1)
    kernels = [(torch.randn(channels, 1, k, k, generator=generator) / k).to(dtype) for k in windows]
    return context, gates, kernels


def error(context: Tensor, gates: Tensor, kernels: list[Tensor]) -> float:
    out = numba.focal_context(context, gates, kernels)
    assert out.dtype == context.dtype
    assert out.shape == context.shape
    exact = reference.focal_context(context.double(), gates.double(), [kernel.double() for kernel in kernels])
    return ((out.double() - exact).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 16), (2, 7, 7, 48), (1, 13, 17, 32), (2, 5, 24, 96), (1, 31, 6, 352)],
    ids=lambda shape: "x".join(map(str, shape)),
)
def test_values(shape, dtype, tolerance):
    for windows in ((3, 5, 7), (9, 11, 13)):
        assert error(*problem(*shape, windows, dtype)) < tolerance


@pytest.mark.parametrize("windows", [(1,), (15,), (3, 3), (5, 3, 7, 3)], ids=str)
def test_levels(windows):
    assert error(*problem(2, 9, 11, 32, windows)) < 1e-6


def test_large_and_undefined_values():
    context, gates, kernels = problem(1, 6, 9, 32, (3, 5))
    context = context * 1e4
    assert error(context, gates, kernels) < 1e-6
    context[0, 2, 3, 4] = torch.nan
    assert numba.focal_context(context, gates, kernels)[..., 4].isnan().all()  # through the mean
    assert numba.focal_context(context, gates, kernels)[..., 5].isfinite().all()


def test_other_strides():
    context, gates, kernels = problem(1, 6, 9, 32, (3, 5))
    expected = numba.focal_context(context, gates, kernels)
    for other in (context.contiguous(), context.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)):
        assert torch.equal(numba.focal_context(other, gates.contiguous(), kernels), expected)
    context, gates = context.transpose(1, 2), gates.transpose(1, 2)
    assert error(context, gates, kernels) < 1e-6


def test_float32_kernels_of_autocast():
    context, gates, kernels = problem(1, 6, 9, 32, (3, 5), torch.bfloat16)
    wide = [kernel.float() for kernel in kernels]
    assert torch.equal(numba.focal_context(context, gates, wide), numba.focal_context(context, gates, kernels))


def test_threads_change_no_bit():
    arguments = problem(2, 12, 13, 48, (3, 5))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(numba.focal_context(*arguments))
    finally:
        torch.set_num_threads(before)
    with ThreadPoolExecutor(3) as pool:  # and several calls at once
        results += pool.map(lambda _: numba.focal_context(*arguments), range(3))
    assert all(torch.equal(result, results[0]) for result in results)


def test_where_it_runs():
    context, gates, kernels = problem(1, 6, 8, 32, (3, 5))
    assert numba.can_run(context, gates, kernels)[0]
    assert numba.can_run(context.bfloat16(), gates.bfloat16(), kernels)[0]
    learning = [kernel.requires_grad_() for kernel in kernels]
    assert not numba.can_run(context, gates, learning)[0]
    with torch.no_grad():
        assert numba.can_run(context, gates, learning)[0]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert not numba.can_run(context, gates, kernels)[0]
        assert numba.can_run(context.bfloat16(), gates.bfloat16(), kernels)[0]


@pytest.mark.parametrize(
    ("context", "kernel"),
    [
        (torch.zeros(1, 6, 8, 32, dtype=torch.float64), (32, 1, 3, 3)),
        (torch.zeros(1, 6, 8, 32, device="meta"), (32, 1, 3, 3)),
        (torch.zeros(1, 6, 8, 20), (20, 1, 3, 3)),
        (torch.zeros(0, 6, 8, 32), (32, 1, 3, 3)),
        (torch.zeros(1, 6, 8, 32), (32, 1, 3, 5)),
        (torch.zeros(1, 6, 8, 32), (32, 1, 17, 17)),
        (torch.zeros(1, 6, 32), (32, 1, 3)),
        (torch.zeros(1, 6, 8, 32), None),
    ],
    ids=["float64", "meta", "channels", "empty", "not square", "too wide", "1-D", "no level"],
)
def test_where_it_steps_aside(context, kernel):
    kernels = [] if kernel is None else [torch.zeros(kernel)]
    can_run, why = numba.can_run(context, context[..., : len(kernels) + 1], kernels)
    assert not can_run
    assert why


@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch's own, when it loads forward derivatives
@torch.no_grad()
def test_transforms_take_plain_pytorch():
    context, gates, kernels = problem(2, 6, 8, 32, (3,))

    def chosen(x: Tensor) -> Tensor:
        assert not numba.can_run(x, gates, kernels)[0]
        return x

    torch.func.vmap(lambda x: chosen(x[None]))(context)
    torch.func.jvp(chosen, (context,), (context,))
    with forward_ad.dual_level():
        chosen(forward_ad.make_dual(context, context))


def test_compiles():
    arguments = problem(1, 6, 8, 32, (3,))

    def call(*tensors):
        assert numba.can_run(*tensors)[0]
        return numba.focal_context(*tensors)

    compiled = torch.compile(call, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(*arguments), numba.focal_context(*arguments))


def test_few_channels_on_many_threads():
    arguments = problem(1, 6, 8, 32, (3,))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(64)
        assert not numba.can_run(*arguments)[0]
    finally:
        torch.set_num_threads(before)


def test_operator_is_sound():
    arguments = problem(1, 6, 8, 32, (3,))
    torch.library.opcheck(numba._forward, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.slow
def test_after_a_fork():
    code = (
        "import os, torch; from focalnet.ops import numba; torch.set_num_threads(2)\n"
        "x, gates, kernel = torch.ones(1, 4, 4, 32), torch.ones(1, 4, 4, 2), torch.ones(32, 1, 3, 3)\n"
        "call = lambda: numba.focal_context(x, gates, [kernel])\n"
        "a = call(); child = os.fork()\n"
        "if child == 0: os._exit(0 if torch.equal(call(), a) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=dict(os.environ), check=True, timeout=120)


class Kept(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = FocalModulation(32, focal_level=2, focal_window=3)

    def forward(self, x, keep):
        return self.layer(x[keep])


def test_export_does_not_tie_the_sizes(monkeypatch):
    """A map beyond `NUMBA_WORK` runs in a program that was exported from a small one; so does a batch from data."""
    monkeypatch.delenv("FOCALNET_BACKEND", raising=False)
    monkeypatch.setattr(ops, "NUMBA_WORK", 10**6)
    model = Kept().eval()
    keep = torch.tensor([True, False, True])
    sizes = dict.fromkeys((0, 1, 2), torch.export.Dim.DYNAMIC)
    program = torch.export.export(model, (torch.randn(3, 5, 6, 32), keep), dynamic_shapes=(sizes, {0: sizes[0]}))
    layer = torch.export.export(model.layer, (torch.randn(2, 5, 6, 32),), dynamic_shapes=(sizes,))
    assert "focal_context" not in f"{program.graph}{layer.graph}"
    x = torch.randn(4, 30, 20, 32)
    assert x.numel() * (9 + 25) > ops.NUMBA_WORK
    with torch.no_grad():
        torch.testing.assert_close(layer.module()(x), model.layer(x), rtol=1e-4, atol=1e-5)
        for keep in (torch.tensor([False, True, True, True]), torch.tensor([True, False, False, False])):
            torch.testing.assert_close(program.module()(x, keep), model(x, keep), rtol=1e-4, atol=1e-5)


def test_compiling_does_not_tie_the_sizes(monkeypatch):
    monkeypatch.delenv("FOCALNET_BACKEND", raising=False)
    monkeypatch.setattr(ops, "NUMBA_WORK", 10**6)
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(ops.focal_context, backend=counter, fullgraph=True)
    with torch.no_grad():
        for sizes in [(2, 5, 6), (3, 30, 20)]:
            arguments = problem(*sizes, 32, (3, 5))
            for tensor in arguments[:2]:
                torch._dynamo.mark_dynamic(tensor, (0, 1, 2))
            torch.testing.assert_close(compiled(*arguments), reference.focal_context(*arguments), rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1
