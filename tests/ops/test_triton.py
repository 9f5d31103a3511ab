"""The Triton backend against the reference in float64: values and every gradient.

With a CUDA device the tests run on it. Without one, `test_on_the_interpreter` runs them in a process of its own,
where Triton interprets its kernels on tiny CPU tensors (the variable must be set before triton is imported).
"""

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from focalnet import ops
from focalnet.errors import UserError
from focalnet.modulation import FocalModulation
from focalnet.ops import reference

CUDA = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if CUDA else "cpu"

runs = pytest.mark.skipif(not CUDA and not INTERPRETED, reason="needs CUDA or Triton's interpreter")
on_gpu = pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
jit = pytest.importorskip("triton").jit
tl = pytest.importorskip("triton.language")
kernels_of_triton = pytest.importorskip("focalnet.ops.kernels")


@pytest.mark.skipif(CUDA or INTERPRETED, reason="the tests below run in this process")
@pytest.mark.parametrize("marks", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_on_the_interpreter(marks):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-x", "-p", "no:cacheprovider", "-m", marks]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


def problem(batch, sizes, channels, windows, dtype, seed=0) -> tuple[Tensor, list[Tensor], Tensor]:
    """The output of `f`, whose slices are read in place, the kernels, and a cotangent."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return (torch.randn(shape, generator=generator) * scale).to(DEVICE, dtype)

    whole = draw(batch, *sizes, 2 * channels + len(windows) + 1)
    kernels = [draw(channels, 1, *[k] * len(sizes), scale=1 / k) for k in windows]
    return whole, kernels, draw(batch, *sizes, channels)


def everything(function, whole, kernels, cotangent) -> list[Tensor]:
    """Output, gradient of the sliced tensor, gradient of every kernel."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (whole, *kernels)]
    channels = kernels[0].shape[0]
    _, context, gates = leaves[0].split((channels, channels, len(kernels) + 1), dim=-1)
    out = function(context, gates, leaves[1:])
    return [out.detach(), *torch.autograd.grad(out, leaves, cotangent)]


def error(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return ((got.double() - expected).norm() / expected.norm().clamp(min=1e-6)).item()


CUT = 2 if INTERPRETED else 1  # where hardware rounds to bfloat16, the interpreter cuts
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2 * CUT}


def check(batch, sizes, channels, windows, dtype, seed=0):
    from focalnet.ops import triton

    whole, kernels, cotangent = problem(batch, sizes, channels, windows, dtype, seed)
    ours = everything(triton.focal_context, whole, kernels, cotangent)
    doubles = [tensor.double() for tensor in (whole, *kernels, cotangent)]
    exact = everything(reference.focal_context, doubles[0], doubles[1:-1], doubles[-1])
    for got, expected in zip(ours, exact, strict=True):
        assert got.dtype == dtype
        assert error(got, expected) <= TOLERANCE[dtype]


@runs
@pytest.mark.parametrize(
    ("batch", "sizes", "channels", "windows", "dtype"),
    [
        (1, (1, 1), 8, (3,), torch.float32),
        (1, (2, 9), 7, (3, 5), torch.float32),
        (1, (5, 6), 16, (3,), torch.bfloat16),
        (1, (5, 6), 16, (3,), torch.float16),
        (1, (19,), 8, (3, 5), torch.float32),
        pytest.param(1, (4, 5), 8, (3, 5, 7), torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(1, (13, 17), 12, (3, 5, 7), torch.float32, marks=pytest.mark.slow),
        pytest.param(2, (3, 5), 40, (3, 5, 7, 9), torch.float32, marks=pytest.mark.slow),
        pytest.param(1, (2, 3), 8, (15,), torch.float32, marks=pytest.mark.slow),
    ],
)
def test_equals_the_reference(batch, sizes, channels, windows, dtype):
    check(batch, sizes, channels, windows, dtype)


@runs
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12 if INTERPRETED else 60))
def test_any_shape(seed):
    draw = random.Random(seed).randint
    windows = tuple(range(2 * draw(0, 2) + 1, 99, 2))[: draw(1, 3)]
    check(draw(1, 3), (draw(1, 9), draw(1, 20)), draw(1, 40), windows, torch.float32, seed)


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "sizes", "channels", "windows"),
    [
        (2, (63, 84), 96, (9, 11, 13)),
        (1, (200, 304), 96, (9, 11, 13)),
        (4, (56, 56), 128, (3, 5, 7)),
        (4, (7, 7), 352, (3, 5, 7, 9)),
        (1, (1, 1), 8, (3, 5, 7, 15)),
        (3, (13, 17), 100, (3, 5)),
        (3, (501,), 64, (3, 5, 7)),
    ],
)
def test_sizes_of_real_networks(batch, sizes, channels, windows, dtype):
    check(batch, sizes, channels, windows, dtype)


def gelu_and_slope(source, out, slope, EXACT: tl.constexpr):  # noqa: N803
    at = tl.arange(0, 1024)
    c, s = kernels_of_triton._gelu_and_slope(tl.load(source + at), True, EXACT)
    tl.store(out + at, c)
    tl.store(slope + at, s)


@runs
@pytest.mark.parametrize(("exact", "off"), [(True, 1e-6), (False, 2e-6)])
def test_gelu_and_its_slope(exact, off):
    """Half precision takes a polynomial; its error is far below the rounding of what is stored."""
    a = torch.cat([torch.linspace(-6, 6, 1000), torch.linspace(-300, 300, 24)]).to(DEVICE)
    out, slope = torch.empty_like(a), torch.empty_like(a)
    jit(gelu_and_slope)[(1,)](a, out, slope, EXACT=exact)
    wide = a.double().requires_grad_()
    expected = torch.nn.functional.gelu(wide)
    (expected_slope,) = torch.autograd.grad(expected.sum(), wide)
    torch.testing.assert_close(out.double(), expected.detach(), rtol=1e-6, atol=off)
    torch.testing.assert_close(slope.double(), expected_slope, rtol=1e-6, atol=2 * off)


@runs
def test_dense_and_permuted_inputs():
    """Not only slices of one tensor: channels that do not lie side by side are copied, the rest is read in place."""
    from focalnet.ops import triton

    whole, kernels, _ = problem(1, (5, 6), 8, (3,), torch.float32)
    _, context, gates = whole.split((8, 8, 2), dim=-1)
    expected = reference.focal_context(context, gates, kernels)
    planes = context.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    turned = context.transpose(1, 2).contiguous().transpose(1, 2)
    for variant in (context.contiguous(), planes, turned):
        torch.testing.assert_close(triton.focal_context(variant, gates.contiguous(), kernels), expected)


@runs
def test_two_runs_give_the_same_bits():
    from focalnet.ops import triton

    arguments = problem(2, (5, 6), 8, (3,), torch.float32)
    first, second = (everything(triton.focal_context, *arguments) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@runs
def test_frozen_kernels_cost_no_gradient():
    from focalnet.ops import triton

    whole, kernels, cotangent = problem(1, (5, 6), 8, (3, 5), torch.float32)
    whole.requires_grad_()
    _, context, gates = whole.split((8, 8, 3), dim=-1)
    (ours,) = torch.autograd.grad(triton.focal_context(context, gates, kernels), whole, cotangent)
    (expected,) = torch.autograd.grad(reference.focal_context(context, gates, kernels), whole, cotangent)
    torch.testing.assert_close(ours, expected)


@runs
def test_there_is_no_second_derivative():
    from focalnet.ops import triton

    whole, kernels, cotangent = problem(1, (3, 3), 8, (3,), torch.float32)
    whole.requires_grad_()
    _, context, gates = whole.split((8, 8, 2), dim=-1)
    out = triton.focal_context(context, gates, kernels)
    (gradient,) = torch.autograd.grad(out, whole, cotangent, create_graph=True)
    with pytest.raises(NotImplementedError, match="FOCALNET_BACKEND=reference"):
        gradient.sum().backward()


@runs
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own
def test_the_operator_is_well_registered():
    from focalnet.ops import triton

    whole, kernels, _ = problem(1, (3, 4), 8, (3,), torch.float32)
    _, context, gates = whole.split((8, 8, 2), dim=-1)
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (context, gates, *kernels)]
    torch.library.opcheck(triton._forward, (leaves[0], leaves[1], leaves[2:]))


@runs
@pytest.mark.slow
@pytest.mark.parametrize("spatial_dims", [1, 2])
def test_compiles_as_one_graph_and_trains(spatial_dims, monkeypatch):
    monkeypatch.setenv("FOCALNET_BACKEND", "triton")
    torch.compiler.reset()
    torch.manual_seed(0)
    layer = FocalModulation(8, focal_level=1, focal_window=3, spatial_dims=spatial_dims).to(DEVICE)
    x = torch.randn(1, *[3, 5][:spatial_dims], 8, device=DEVICE)
    compiled = torch.compile(layer, backend="inductor" if CUDA else "aot_eager", fullgraph=True)

    def gradients(module):
        layer.zero_grad()
        module(x).square().sum().backward()
        return [parameter.grad.clone() for parameter in layer.parameters()]

    ours = gradients(compiled)
    monkeypatch.setenv("FOCALNET_BACKEND", "reference")
    torch.testing.assert_close(ours, gradients(layer), rtol=1e-3, atol=1e-4)


@runs
def test_autocast(monkeypatch):
    monkeypatch.setenv("FOCALNET_BACKEND", "triton")
    layer = FocalModulation(8, focal_level=1, focal_window=3).to(DEVICE)
    x = torch.randn(1, 5, 6, 8, device=DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert layer.focal_layers[0][0].weight.grad.dtype == torch.float32
    monkeypatch.setenv("FOCALNET_BACKEND", "reference")
    assert error(y, layer(x).double()) <= 3e-2


@runs
def test_export_keeps_the_reference(monkeypatch):
    monkeypatch.delenv("FOCALNET_BACKEND", raising=False)
    layer = FocalModulation(8, focal_level=1, focal_window=3).to(DEVICE).eval()
    program = torch.export.export(layer, (torch.randn(1, 5, 6, 8, device=DEVICE),))
    assert "focalnet" not in str(program.graph)


@on_gpu
@pytest.mark.gpu
def test_cuda_graph():
    from focalnet.ops import triton

    whole, kernels, _ = problem(1, (14, 14), 64, (3, 5, 7), torch.bfloat16)
    _, context, gates = whole.split((64, 64, 4), dim=-1)
    expected = triton.focal_context(context, gates, kernels)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = triton.focal_context(context, gates, kernels)
    graph.replay()
    assert torch.equal(out, expected)


# machine code for sm_90, which needs no GPU


compiles = pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
INSTRUCTIONS = {"level 3x3 forward": 40, "level 5x5 forward": 70, "level 7x7 forward mean": 110}
"""The most that one number of a map may cost; today's kernels need 33, 60 and 106."""
MORE_INSTRUCTIONS = {
    "level 3x3 forward slope": 48, "level 5x5 forward slope": 76, "level 7x7 forward slope mean": 124,
    "level 7x7 backward slope": 106, "level 5x5 backward slope": 66, "level 3x3 plain": 28,
    "weights_backward 7x7": 120, "weights_backward 5x5": 74, "weights_backward 3x3": 28,
}  # fmt: skip


def focal_context_benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "focal_context.py"
    specification = importlib.util.spec_from_file_location("benchmark_focal_context", path)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@compiles
def test_instructions_of_the_forward_pass():
    found = dict(focal_context_benchmark().compiled(512, 14, torch.bfloat16, only="level"))
    for name, most in INSTRUCTIONS.items():
        facts = found[name]
        assert facts["per output"] <= most, (name, facts)
        assert facts["stack"] == 0, (name, facts)
        assert facts["loads of 16 bytes"] == facts["loads"], (name, facts)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("windows", [(3, 5, 7), (9, 11, 13)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_no_kernel_spills(dtype, windows):
    for backward in (False, True):
        for name, facts in focal_context_benchmark().compiled(128, 56, dtype, windows=windows, backward=backward):
            assert facts["stack"] <= 32, (name, facts)
            if name.startswith("level") and "backward" not in name:  # there the gates are single numbers
                assert facts["loads of 16 bytes"] == facts["loads"], (name, facts)
            if dtype == torch.bfloat16:
                assert facts.get("per output", 0) <= MORE_INSTRUCTIONS.get(name, 400), (name, facts)


@compiles
def test_maps_of_other_sizes_compile_nothing():
    """Detection trains on maps of many sizes, with odd and even strides and numbers of positions."""
    module = focal_context_benchmark()

    def kinds(size):
        found = module.launches(96, size, (3, 5), torch.bfloat16, backward=True)
        return {f"{function} {module.specialize(function, arguments)} {warps}" for function, arguments, warps in found}

    first = kinds((40, 56))
    assert all(kinds(size) <= first for size in ((25, 38), (50, 76), (64, 64), (33, 17)))


@pytest.mark.parametrize(
    ("context", "gates", "kernels", "dtype", "reason"),
    [
        ((1, 3, 3, 3, 4), (1, 3, 3, 3, 2), [(4, 1, 3, 3, 3)], torch.float32, "volumes"),
        ((1, 3, 3, 4), (1, 3, 3, 1), [], torch.float32, "no level"),
        ((1, 3, 3, 4), (1, 3, 3, 2), [(4, 1, 3, 3)], torch.float64, "both must be one of"),
        ((1, 3, 3, 4), (1, 3, 3, 2), [(4, 1, 17, 17)], torch.float32, "wider than 15"),
    ],
)
def test_what_it_leaves_to_the_reference(context, gates, kernels, dtype, reason):
    from focalnet.ops import triton

    tensors = (torch.zeros(context, dtype=dtype), torch.zeros(gates, dtype=dtype))
    can_run, why = triton.can_run(*tensors, [torch.zeros(kernel, dtype=dtype) for kernel in kernels])
    assert not can_run
    assert reason in why


@runs
def test_where_it_runs_unasked(monkeypatch):
    """On large maps from which nothing is learned."""
    monkeypatch.delenv("FOCALNET_BACKEND", raising=False)
    whole, kernels, _ = problem(1, (3, 3), 8, (3,), torch.float32)
    for work, learns, wanted in ((1, False, True), (1, True, False), (10**9, False, False)):
        monkeypatch.setattr(ops, "TRITON_WORK", work)
        _, context, gates = whole.requires_grad_(learns).split((8, 8, 2), dim=-1)
        backend = next(backend for backend in ops.BACKENDS if backend.name == "triton")
        assert backend.can_run(context, gates, kernels)[0] == wanted


@pytest.mark.skipif(INTERPRETED, reason="there it can")
def test_the_cpu_is_refused(monkeypatch):
    monkeypatch.setenv("FOCALNET_BACKEND", "triton")
    with pytest.raises(UserError, match=r"FOCALNET_BACKEND=triton cannot run here: .* on cpu"):
        ops.focal_context(torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 2, 2), [torch.zeros(4, 1, 3, 3)])


# tuning


@runs
def test_tuned_settings_give_the_same_numbers_and_are_kept(tmp_path, monkeypatch):
    from focalnet.ops import triton as host
    from focalnet.ops import tuning

    tried = []

    def measure(run):
        run()  # every candidate is launched; the third is the fastest
        tried.append(len(tried) % len(host.CANDIDATES))
        return abs(tried[-1] - 2) + 1.0

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning, "measure", measure)
    monkeypatch.setattr(host, "CANDIDATES", host.CANDIDATES[:3])
    tuning._known.cache_clear()
    whole, kernels, cotangent = problem(1, (2, 3), 8, (3,), torch.float32)
    plain = everything(host.focal_context, whole, kernels, cotangent)
    assert not tried
    monkeypatch.setenv("FOCALNET_TUNE", "1")
    tuned = everything(host.focal_context, whole, kernels, cotangent)
    for one, other in zip(plain, tuned, strict=True):
        torch.testing.assert_close(one, other)
    kept = json.loads((tmp_path / "focalnet" / "tuned.json").read_text())
    assert set(kept.values()) == {2}
    assert len(tried) == 3 * len(kept)
    everything(host.focal_context, whole, kernels, cotangent)
    assert len(tried) == 3 * len(kept)  # nothing is measured twice
    tuning._known.cache_clear()
    everything(host.focal_context, whole, kernels, cotangent)  # not even by the next process
    assert len(tried) == 3 * len(kept)


@runs
def test_a_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
    from focalnet.ops import tuning

    (tmp_path / "focalnet").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning, "measure", lambda run: run())
    tuning._known.cache_clear()
    assert tuning.choose("some kind", [0.3, 0.1, 0.2], None, lambda candidate: candidate) == 0.1
    tuning._known.cache_clear()
