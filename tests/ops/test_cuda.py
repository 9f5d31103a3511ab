"""The kernels for tensor cores: what they compute, on a GPU and here, where `emulator.h` plays the GPU.

The C++ of the kernels is the same; every thread of a block runs as a fiber, and products of matrices, transposed loads
and shuffles are written out. What only a compiler can tell, spills and registers, NVRTC tells without a GPU.
"""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from focalnet import ops
from focalnet.modulation import FocalModulation
from focalnet.ops import cuda, nvrtc, plan, reference

HERE = Path(__file__).parent
SOURCES = Path(cuda.__file__).parent
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
HOPPER = {"_capability": (9, 0), "_most_shared": 232448, "_multiprocessors": 132}
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3}
runs = pytest.mark.skipif(not CUDA and shutil.which("g++") is None, reason="neither a GPU nor a compiler for C++")


class Emulated:
    """A program as `nvrtc.Program`, for the CPU."""

    def __init__(self, folder, options):
        library = folder / "emulated.so"
        command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", *options, f"-I{SOURCES}", f"-I{HERE}"]
        subprocess.run([*command, str(HERE / "emulated.cpp"), "-o", str(library)], check=True)
        self.library = ctypes.CDLL(str(library))

    def launch(self, name, grid, threads, shared, arguments):
        assert shared <= HOPPER["_most_shared"]
        values = [
            ctypes.c_int(value) if isinstance(value, int) else ctypes.c_void_p(0 if value is None else value.data_ptr())
            for value in arguments
        ]
        getattr(self.library, f"launch_{name}")(*grid, *values)


@pytest.fixture(scope="module")
def programs():
    return {}


@pytest.fixture(autouse=True)
def hopper(monkeypatch, tmp_path_factory, programs):
    """A Hopper card, where there is none."""
    if CUDA:
        return

    def program(options, backward, device):
        key = (*options, "-DBACKWARD") if backward else options
        if key not in programs:
            programs[key] = Emulated(tmp_path_factory.mktemp("emulated"), key)
        return programs[key]

    for name, value in HOPPER.items():
        monkeypatch.setattr(plan, name, lambda device, value=value: value)
    monkeypatch.setattr(plan, "_program", program)
    monkeypatch.setattr(nvrtc, "_missing", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)


def problem(batch, height, width, channels, sizes, dtype, weights=None, spare=True):
    torch.manual_seed(0)
    row = 2 * channels + len(sizes) + 1
    whole = torch.randn(batch, height, width, row + (-row % 8 if spare else 0), device=DEVICE).to(dtype)
    kernels = [torch.randn(channels, 1, size, size, device=DEVICE) / size for size in sizes]
    cotangent = torch.randn(batch, height, width, channels, device=DEVICE).to(dtype)
    return whole, [kernel.to(weights or dtype) for kernel in kernels], cotangent


def everything(function, whole, kernels, cotangent):
    """The output and the gradients by the tensor that holds context and gates, and by the kernels."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (whole, *kernels)]
    channels, levels = kernels[0].shape[0], len(kernels) + 1
    context, gates = leaves[0][..., channels : 2 * channels], leaves[0][..., 2 * channels : 2 * channels + levels]
    out = function(context, gates, leaves[1:])
    return [out.detach(), *torch.autograd.grad(out, leaves, cotangent)]


def error(got, expected):
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


F16, B16, F32 = torch.float16, torch.bfloat16, torch.float32
slow = pytest.mark.slow


@runs
@pytest.mark.parametrize(
    ("batch", "height", "width", "channels", "sizes", "dtype", "weights"),
    [
        (2, 14, 13, 8, (3, 5, 7), B16, F32),
        pytest.param(1, 9, 18, 8, (3, 5), F16, F16, marks=slow),
        pytest.param(3, 7, 7, 16, (3, 5), F16, F32, marks=slow),
        pytest.param(1, 28, 28, 8, (3, 5, 7), B16, B16, marks=slow),
        pytest.param(1, 13, 17, 8, (3, 5, 7, 9), B16, B16, marks=slow),
        pytest.param(2, 16, 16, 8, (1,), F16, F16, marks=slow),
        pytest.param(1, 5, 32, 8, (9, 11, 13, 15), B16, B16, marks=slow),
        pytest.param(1, 56, 56, 8, (3, 5, 7), B16, B16, marks=slow),
        pytest.param(1, 40, 33, 8, (3, 5, 7), F16, F16, marks=slow),
        pytest.param(2, 1, 1, 8, (3, 5), B16, F32, marks=slow),
        pytest.param(20, 7, 5, 8, (3,), B16, B16, marks=slow),
    ],
)
def test_equals_the_reference(batch, height, width, channels, sizes, dtype, weights):
    whole, kernels, cotangent = problem(batch, height, width, channels, sizes, dtype, weights)
    ours = everything(cuda.focal_context, whole, kernels, cotangent)
    again = everything(cuda.focal_context, whole, kernels, cotangent)
    assert all(torch.equal(*pair) for pair in zip(ours, again, strict=True))
    rounded = [kernel.to(dtype).double() for kernel in kernels]
    exact = everything(reference.focal_context, whole.double(), rounded, cotangent.double())
    for got, expected, leaf in zip(ours, exact, (cotangent, whole, *kernels), strict=True):
        assert got.dtype == leaf.dtype
        assert error(got, expected) <= TOLERANCE[dtype]


@runs
@slow
@pytest.mark.parametrize(("channels", "warps"), [(4, 2), (16, 1)])
def test_other_cuts_give_the_same_numbers(channels, warps):
    whole, kernels, cotangent = problem(2, 14, 13, 16, (3, 5, 7), B16)
    expected = everything(cuda.focal_context, whole, kernels, cotangent)
    known = plan.maps(cotangent, kernels)
    before = {name: known.__dict__.pop(name) for name in ("forward", "backward")}
    for name in before:
        cut = known.__dict__[name] = plan.Plan(known, channels, name == "backward")
        cut.__dict__["warps"] = warps
    found = everything(cuda.focal_context, whole, kernels, cotangent)
    known.__dict__.update(before)
    for ours, wanted in zip(found, expected, strict=True):
        assert error(ours, wanted) <= 1e-4


@runs
def test_inputs_that_lie_otherwise():
    """Rows of 16 bytes are read in place; others are copied, and the numbers are the same."""
    whole, kernels, _ = problem(2, 14, 13, 8, (3, 5, 7), B16, F32)
    context, gates = whole[..., 8:16], whole[..., 16:20]
    expected = cuda.focal_context(context, gates, kernels)
    narrow = torch.cat([whole[..., :1], context], dim=-1)[..., 1:]  # begins between two words
    planes = context.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for variant in (context.contiguous(), narrow, planes):
        assert torch.equal(cuda.focal_context(variant, gates.contiguous(), kernels), expected)


@runs
@pytest.mark.slow
def test_compiles_as_one_graph_and_trains(monkeypatch):
    monkeypatch.setattr(ops, "BACKENDS", [ops.Backend("cuda", cuda.can_run, cuda.focal_context)])
    torch.compiler.reset()
    torch.manual_seed(0)
    layer = FocalModulation(8, focal_level=3, focal_window=3).to(DEVICE, B16)
    x = torch.randn(2, 14, 13, 8, device=DEVICE, dtype=B16)
    compiled = torch.compile(layer, backend="inductor" if CUDA else "aot_eager", fullgraph=True)

    def gradients(module):
        layer.zero_grad()
        module(x).float().square().sum().backward()
        return [parameter.grad.clone() for parameter in layer.parameters()]

    for ours, expected in zip(gradients(compiled), gradients(layer), strict=True):
        assert error(ours, expected) <= 1e-2


@runs
@pytest.mark.parametrize("has_triton", [False, pytest.param(True, marks=pytest.mark.skipif(not CUDA, reason="no GPU"))])
def test_maps_that_do_not_fit(has_triton, monkeypatch):
    """A compiled graph asks for them all the same, and a map may fit forward alone."""
    monkeypatch.setattr(cuda, "HAS_TRITON", has_triton)
    monkeypatch.setattr(plan, "_most_shared", lambda device: 1024)
    plan._maps.cache_clear()
    whole, kernels, cotangent = problem(1, 6, 5, 8, (3,), B16)
    ours = everything(cuda.focal_context, whole, kernels, cotangent)
    expected = everything(reference.focal_context, whole, kernels, cotangent)
    plan._maps.cache_clear()
    assert all(error(*pair) <= 1e-2 for pair in zip(ours, expected, strict=True))


@pytest.mark.parametrize(
    ("size", "channels", "sizes", "dtype", "reason"),
    [
        ((14,), 8, (3,), B16, "only images"),
        ((14, 14), 12, (3,), B16, "no multiple of 8"),
        ((14, 14), 8, (3,), F32, "maps of torch.float32"),
        ((14, 14), 8, (17,), B16, "at most 15"),
        ((14, 14), 8, (), B16, "0 levels"),
        ((200, 304), 8, (3, 5), B16, "does not fit"),
        ((14, 0), 8, (3, 5), B16, "is empty"),
    ],
)
def test_what_it_leaves_to_others(size, channels, sizes, dtype, reason):
    context = torch.zeros(1, *size, channels, dtype=dtype, device=DEVICE)
    gates = torch.zeros(1, *size, len(sizes) + 1, dtype=dtype, device=DEVICE)
    kernels = [torch.zeros(channels, 1, *[kernel] * len(size), dtype=dtype, device=DEVICE) for kernel in sizes]
    can_run, why = cuda.can_run(context, gates, kernels)
    assert not can_run
    assert reason in why


def test_the_cpu_and_transforms_are_refused():
    context, gates = torch.zeros(1, 4, 4, 8, dtype=B16), torch.zeros(1, 4, 4, 2, dtype=B16)
    kernels = [torch.zeros(8, 1, 3, 3, dtype=B16)]
    assert "on cpu" in ops._cuda_can_run(context, gates, kernels)[1]
    seen = []
    torch.func.vmap(lambda x: seen.append(cuda.can_run(x, gates, kernels)) or x)(context[None])
    assert not seen[0][0]


def test_a_card_that_the_compiler_does_not_know(monkeypatch, caplog):
    def program(options, backward, device):
        raise RuntimeError("NVRTC: invalid value for --gpu-architecture")

    monkeypatch.setattr(plan, "_program", program)
    plan._maps.cache_clear()
    context, gates = torch.zeros(1, 4, 4, 8, dtype=B16), torch.zeros(1, 4, 4, 2, dtype=B16)
    assert "invalid value" in cuda.can_run(context, gates, [torch.zeros(8, 1, 3, 3, dtype=B16)])[1]
    plan._maps.cache_clear()
    assert len(caplog.records) == 1


def facts(height, width, channels, batch=128):
    return plan.Maps((3, 5, 7), batch, height, width, channels, B16, B16, torch.device(DEVICE))


def test_the_cuts_of_the_maps_of_an_image_of_224_pixels():
    """The fastest of 34 that were measured on an H100 (`benchmarks/results/gpu.jsonl`)."""
    found = {}
    for side, channels in ((56, 128), (28, 256), (14, 512), (7, 1024)):
        maps = facts(side, side, channels)
        found[side] = [(cut.channels, cut.warps, cut.blocks, cut.images) for cut in (maps.forward, maps.backward)]
    assert found == {
        56: [(8, 2, 1, 8), (4, 4, 1, 8)],
        28: [(8, 2, 2, 8), (8, 2, 1, 8)],
        14: [(8, 1, 4, 8), (8, 1, 2, 8)],
        7: [(8, 1, 4, 8), (8, 1, 2, 8)],
    }
    assert facts(14, 14, 512, batch=1).forward.images == 1
    assert facts(64, 64, 128).forward is not None
    assert facts(64, 64, 128).backward is None


@pytest.mark.slow
@pytest.mark.parametrize(("side", "channels"), [(56, 128), (28, 256), (14, 512)])
def test_no_kernel_spills_on_hopper(side, channels, tmp_path, monkeypatch):
    tool = next(Path(pytest.importorskip("triton").__file__).parent.rglob("cuobjdump"), None)
    try:
        nvrtc._compiler()
    except OSError as missing:
        pytest.skip(str(missing))
    if tool is None:
        pytest.skip("no cuobjdump")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for cut in (facts(side, side, channels).forward, facts(side, side, channels).backward):
        (tmp_path / "code").write_bytes(nvrtc.compile_source(plan.source(cut.is_backward), cut.options(), (9, 0)))
        words = subprocess.run([tool, "-res-usage", tmp_path / "code"], capture_output=True, text=True, check=True)
        used = dict(re.findall(r"Function (\w+):\s+REG:\d+ STACK:(\d+)", words.stdout))
        assert used
        assert all(int(stack) <= 64 for stack in used.values()), used
