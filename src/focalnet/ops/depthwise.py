"""Convolution of the focal levels: of a channels-last map, as wide as the map, depth-wise in the paper.

Two rules beside PyTorch's own, for x86 CPUs, where oneDNN does the work:

- Its channels-last kernel falls from about 100 to 40 GFLOP/s when it is 13 columns wide (11 and 15 are fine). A kernel
  of 13 columns, as detection uses at its third level, runs as 7 and 6 columns side by side: 1.6 to 2.2 times as fast
  on maps of 25 x 38 to 200 x 304. Only without gradients: the backward pass of the halves costs more than the forward
  pass gains.
- Its depth-wise weight gradient takes kernels of up to 3 columns. Wider ones go through the general convolution, which
  pads every channel to a block of 16 x 16. So the gradient is put together from strips of 3 columns: 2 to 5 times as
  fast in float32 for kernels of 5 to 13, and 10 times in bfloat16, where the strips are float32 all the same.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
SLOW_WIDTH = 13
SMALL = 512
"""Positions below which halves do not pay."""
STRIP = 3


def convolution(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve and pad with zeros to the size of `x`; for an even kernel the odd zero is on the right.

    Args:
        x: (B, C, *S), best in the strides of channels_last.
        kernel: (C, 1, *k), where every channel has its own, or (C, C, *k), where every channel sees all.
        bias: (C,) or None.

    Returns:
        (B, C, *S).
    """
    if bias is None and kernel.shape[1] == 1 and all(size % 2 for size in kernel.shape[2:]):
        return depthwise(x, kernel)
    padding = [side for size in reversed(kernel.shape[2:]) for side in ((size - 1) // 2, size // 2)]
    groups = x.shape[1] // kernel.shape[1]
    return CONVOLUTIONS[x.ndim - 3](F.pad(x, padding), kernel, bias, groups=groups)


def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve every channel with its own kernel and pad with zeros.

    Args:
        x: (B, C, *S), best in the strides of channels_last.
        kernel: (C, 1, *k) with odd k.

    Returns:
        (B, C, *S).
    """
    channels, padding = x.shape[1], [size // 2 for size in kernel.shape[2:]]
    convolve = CONVOLUTIONS[x.ndim - 3]
    if x.ndim == 4 and x.device.type == "cpu" and x.dtype != torch.float64 and not torch.compiler.is_compiling():
        rows, columns = kernel.shape[2:]
        learns = torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad)
        if learns and columns > STRIP and rows <= x.shape[2] and _is_x86():
            return _GradientInStrips.apply(x, kernel.to(x.dtype))
        if not learns and columns == SLOW_WIDTH and x.shape[2] * x.shape[3] >= SMALL:
            width, cut = x.shape[3], SLOW_WIDTH // 2 + 1
            left = convolve(x, kernel[..., :cut], padding=padding, groups=channels)[..., :width]
            return left + convolve(x, kernel[..., cut:], padding=padding, groups=channels)[..., cut : cut + width]
    return convolve(x, kernel, padding=padding, groups=channels)


def _is_x86() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


class _GradientInStrips(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=[size // 2 for size in kernel.shape[2:]], groups=x.shape[1])

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, kernel = ctx.saved_tensors
        grad_x = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_x = depthwise(grad, kernel.flip(2, 3))
        if ctx.needs_input_grad[1]:
            grad_kernel = _weight_gradient(x.float(), kernel, grad.float()).to(kernel.dtype)
        return grad_x, grad_kernel

    @staticmethod
    def jvp(ctx, x_tangent: Tensor, kernel_tangent: Tensor) -> Tensor:
        x, kernel = ctx.saved_tensors
        return _GradientInStrips.apply(x_tangent, kernel) + _GradientInStrips.apply(x, kernel_tangent)


def _weight_gradient(x: Tensor, kernel: Tensor, grad: Tensor) -> Tensor:
    (rows, columns), width = kernel.shape[2:], x.shape[3]
    x = F.pad(x, (columns // 2, columns // 2))
    padding: Any = (rows // 2, 0)
    strips = []
    for start in range(0, columns, STRIP):
        size = (*kernel.shape[:3], min(STRIP, columns - start))
        seen = x[..., start : start + width + size[3] - 1]
        strips.append(conv2d_weight(seen, size, grad, padding=padding, groups=x.shape[1]))
    return torch.cat(strips, dim=3)
