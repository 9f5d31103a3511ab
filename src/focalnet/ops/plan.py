"""How maps are cut into blocks for the kernels of `focal.cu`, and what is compiled for them."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from focalnet.ops import nvrtc

log = logging.getLogger(__name__)

DTYPES = (torch.float16, torch.bfloat16)
WORD = 8
"""Channels whose 16 bytes lie side by side and aligned."""
LEVELS = 4
TABLE = 34
"""Numbers of a row of taps with the zeros around it."""
KERNEL_LIMIT = 15
MOST_IMAGES = 8
"""That a block takes one after the other: it looks up its taps once."""


@dataclass(frozen=True)
class Maps:
    """What maps of one shape and their kernels are.

    Attributes:
        sizes: of the kernels.
        weights: type of the kernels.
    """

    sizes: tuple[int, ...]
    batch: int
    height: int
    width: int
    channels: int
    dtype: torch.dtype
    weights: torch.dtype
    device: torch.device

    @cached_property
    def refused(self) -> str | None:
        """Why the kernels do not take them, or None."""
        if _capability(self.device) < (8, 0):
            return "the card has no tensor cores for bfloat16"
        if not 0 < len(self.sizes) <= LEVELS or max(self.sizes) > KERNEL_LIMIT:
            return f"{len(self.sizes)} levels; it takes 1 to {LEVELS}, with kernels of at most {KERNEL_LIMIT}"
        if self.dtype not in DTYPES or self.weights not in (torch.float32, self.dtype):
            return f"maps of {self.dtype} and kernels of {self.weights}; it takes maps of {DTYPES}"
        if self.channels % WORD or 0 in (self.batch, self.height, self.width, self.channels):
            return f"{self.channels} channels are no multiple of {WORD}, or the map is empty"
        if self.forward is None:
            return f"a map of {self.height} x {self.width} does not fit into shared memory"
        try:
            _ = self.forward.program
        except RuntimeError as error:
            log.warning("the kernels for tensor cores do not compile here, others are taken: %s", error)
            return str(error)
        return None

    @cached_property
    def forward(self) -> "Plan | None":
        """How the function is computed, or None where it does not fit."""
        return self._fit(backward=False)

    @cached_property
    def backward(self) -> "Plan | None":
        """How the gradient is computed, or None where it does not fit."""
        return self._fit(backward=True)

    def _fit(self, *, backward: bool) -> "Plan | None":
        plans = (Plan(self, channels, backward) for channels in (8, 4))
        return next((plan for plan in plans if plan.shared <= _most_shared(self.device)), None)


@dataclass(frozen=True)
class Plan:
    """How maps are cut into blocks of `channels` channels, and what is compiled for them."""

    maps: Maps
    channels: int
    is_backward: bool

    @cached_property
    def tiles(self) -> tuple[int, int]:
        """Of 16 x 16 positions, down and across."""
        return -(-self.maps.height // 16), -(-self.maps.width // 16)

    @cached_property
    def warps(self) -> int:
        """Of a channel."""
        return 1 if self.tiles == (1, 1) else 16 // self.channels

    @cached_property
    def threads(self) -> int:
        return 32 * self.channels * self.warps

    @cached_property
    def blocks(self) -> int:
        """On a multiprocessor at a time: registers are cut so that these fit where shared memory lets them."""
        wanted = (512 if self.is_backward else 1024) // self.threads
        return max(1, min(wanted, _most_shared(self.maps.device) // self.shared))

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Groups of channels, chunks of images."""
        return self.maps.channels // self.channels, -(-self.maps.batch // self.images)

    @cached_property
    def images(self) -> int:
        """One after the other in a block: as many as leave no multiprocessor idle in the last round."""
        groups, batch = self.maps.channels // self.channels, self.maps.batch
        at_once = self.blocks * _multiprocessors(self.maps.device)

        def cost(images: int) -> float:
            return -(-groups * -(-batch // images) // at_once) * (images + 0.5)

        return min(range(1, min(MOST_IMAGES, batch) + 1), key=cost)

    @cached_property
    def taps(self) -> int:
        return sum(size**2 for size in self.maps.sizes) * self.maps.channels

    @cached_property
    def tail(self) -> int:
        """Rows behind the last plane that a tile, or the gradient of a kernel, reads and does not use."""
        return max(16 * self.tiles[0] - self.maps.height + max(self.maps.sizes) // 2, 16) + 1

    @cached_property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        levels, (_, columns) = len(self.maps.sizes), self.tiles
        buffers = levels + 2 if self.is_backward else max(levels, 2)
        rows = buffers * self.channels * (self.maps.height + max(self.maps.sizes) // 2) + self.tail
        gates = (levels + 1) * self.maps.height * 16 * columns if self.is_backward else 0
        taps = self.channels * sum(self.maps.sizes) * 2 * TABLE
        return 2 * (rows * (8 + 16 * columns) + gates + taps) + 4 * self.channels * (2 * self.warps + 1)

    @cached_property
    def program(self) -> nvrtc.Program:
        """Compiled for this device at the first call."""
        return _program(tuple(self.options()), self.is_backward, self.maps.device)

    def options(self) -> list[str]:
        """For the compiler."""
        sizes = [*self.maps.sizes, *[0] * (LEVELS - len(self.maps.sizes))]
        values = {
            "L": len(self.maps.sizes), **{f"K{level}": size for level, size in enumerate(sizes)},
            "MT": self.tiles[0], "WT": self.tiles[1], "CHANNELS": self.channels, "WPC": self.warps,
            "BLOCKS": self.blocks, "HALF": int(self.maps.dtype == torch.float16),
            "WEIGHTS_FLOAT": int(self.maps.weights == torch.float32), "TABLE": TABLE,
        }  # fmt: skip
        return [f"-D{name}={value}" for name, value in values.items()]


@functools.lru_cache(1024)
def _maps(*facts: Any) -> Maps:
    return Maps(*facts)


def maps(context: Tensor, kernels: Sequence[Tensor]) -> Maps:
    """The facts of these tensors; kept for the next ones of their shape."""
    sizes = tuple([kernel.shape[3] for kernel in kernels])
    return _maps(sizes, *context.shape, context.dtype, kernels[0].dtype if kernels else None, context.device)


@functools.cache
def _program(options: tuple[str, ...], backward: bool, device: torch.device) -> nvrtc.Program:
    code = nvrtc.compile_source(source(backward), options, _capability(device))
    with torch.cuda.device(device):
        return nvrtc.Program(code, ("backward", "reduce") if backward else ("forward",), _most_shared(device))


@functools.cache
def source(backward: bool) -> str:
    """The CUDA C++ of the function, or of its gradient."""
    names = ("gpu.cu", "focal.cu", "backward.cu" if backward else "forward.cu")
    return "".join((files("focalnet.ops") / name).read_text() for name in names)


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def _most_shared(device: torch.device) -> int:
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", 48 * 1024)
