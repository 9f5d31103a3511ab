"""CUDA C++ compiled at run time: NVRTC and the driver by ctypes, both of which PyTorch brings along or needs itself.

    program = compile_source(source, ["-DK=3"])
    program.launch("name", grid=(4, 1), threads=256, shared=0, arguments=[tensor, 7])

A program is machine code of one compute capability; it is kept in the cache folder, so that a process compiles what no
process before it has compiled.
"""

import ctypes
import hashlib
import struct
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focalnet.inputs.folders import cache_folder

MOST_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
BUFFER, BUFFER_SIZE, END = 1, 2, 0  # CU_LAUNCH_PARAM_...


@torch.compiler.assume_constant_result
def missing() -> str | None:
    """Why nothing can be compiled and run here, or None."""
    return _missing()


@cache
def _missing() -> str | None:
    try:
        _compiler()
        _driver()
    except OSError as error:
        return str(error)
    return None


@cache
def _compiler() -> ctypes.CDLL:
    name = f"libnvrtc.so.{(torch.version.cuda or '0').split('.')[0]}"
    beside = sorted((Path(torch.__file__).parents[1] / "nvidia").glob(f"*/lib/{name}"))
    for candidate in (*map(str, beside), name):
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise OSError(f"the compiler library {name} is not found")


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def compile_source(source: str, options: Sequence[str], capability: tuple[int, int]) -> bytes:
    """Machine code for a compute capability, from the cache where it is there.

    Raises:
        RuntimeError: the source has an error; the compiler's words.
    """
    options = [*options, f"--gpu-architecture=sm_{capability[0]}{capability[1]}", "--std=c++17"]
    nvrtc = _compiler()
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    key = hashlib.sha256("\0".join([source, *options, f"{major.value}.{minor.value}"]).encode()).hexdigest()
    kept = cache_folder("kernels") / f"{key[:32]}.cubin"
    if kept.is_file():
        return kept.read_bytes()
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"focalnet.cu", 0, None, None)
    words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), words)
    if failed:
        raise RuntimeError(f"NVRTC: {_read(nvrtc, program, 'ProgramLog').decode(errors='replace')}")
    code = _read(nvrtc, program, "CUBIN")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    _keep(kept, code)
    return code


def _read(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    memory = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, memory)
    return memory.raw


def _keep(path: Path, code: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(code)
        temporary.replace(path)
    except OSError:
        return  # compiled again next time


class Program:
    """Machine code loaded on the current device.

    Args:
        code: from `compile_source`.
        names: of its kernels.
        shared: bytes of shared memory that a block may ask for.
    """

    def __init__(self, code: bytes, names: Sequence[str], shared: int) -> None:
        torch.cuda.current_stream().synchronize()  # the device's context exists
        self._module = ctypes.c_void_p()
        self._kernels: dict[str, ctypes.c_void_p] = {}
        _check(_driver().cuModuleLoadData(ctypes.byref(self._module), code))
        for name in names:
            kernel = self._kernels[name] = ctypes.c_void_p()
            _check(_driver().cuModuleGetFunction(ctypes.byref(kernel), self._module, name.encode()))
            _check(_driver().cuFuncSetAttribute(kernel, MOST_SHARED, shared))

    def launch(
        self, name: str, grid: tuple[int, int], threads: int, shared: int, arguments: Sequence[Tensor | int | None]
    ) -> None:
        """Launch a kernel on the current stream: tensors and None are pointers, numbers C's int."""
        values = [value.data_ptr() if isinstance(value, Tensor) else value or 0 for value in arguments]
        kinds = "".join("i" if isinstance(value, int) else "P" for value in arguments)
        packed = struct.pack(kinds, *values)
        memory, size = ctypes.create_string_buffer(packed, len(packed)), ctypes.c_size_t(len(packed))
        extra = (ctypes.c_void_p * 5)(BUFFER, ctypes.addressof(memory), BUFFER_SIZE, ctypes.addressof(size), END)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _check(_driver().cuLaunchKernel(self._kernels[name], *grid, 1, threads, 1, 1, shared, stream, None, extra))


def _check(code: Any) -> None:
    if code:
        words = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(words))
        raise RuntimeError(f"CUDA driver: {(words.value or b'error').decode()} ({code})")
