"""Depth-wise convolution of a channels-last map, as wide as the map.

Two rules beside PyTorch's own, for CPUs, where oneDNN does the work:

- Its channels-last kernel falls from about 100 to 40 GFLOP/s when it is 13 columns wide (11 and 15 are fine). A kernel
  of 13 columns, as detection uses at its third level, runs as 7 and 6 columns side by side: 1.6 to 2.2 times as fast
  on maps of 25 x 38 to 200 x 304. Only without gradients: the backward pass of the halves costs more than the forward
  pass gains.
- Its quick weight gradient is for 3 x 3 kernels. Larger ones take the general convolution, which pads every channel to
  a block of 16 x 16 and is three to six times slower in half precision than in float32: with kernels of 5 and 7 that
  gradient was half of a bfloat16 training step. So half-precision maps get it in float32, rounded at the end.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
SLOW_WIDTH = 13
SMALL = 512
"""Positions below which halves do not pay."""


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
    if x.ndim == 4 and x.device.type == "cpu" and not torch.compiler.is_compiling():
        learns = torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad)
        if learns and max(padding) > 1 and x.dtype in (torch.bfloat16, torch.float16):
            return _WeightGradientInFloat32.apply(x, kernel.to(x.dtype))
        if not learns and kernel.shape[-1] == SLOW_WIDTH and x.shape[-1] * x.shape[-2] >= SMALL:
            width, cut = x.shape[-1], SLOW_WIDTH // 2 + 1
            left = convolve(x, kernel[..., :cut], padding=padding, groups=channels)[..., :width]
            return left + convolve(x, kernel[..., cut:], padding=padding, groups=channels)[..., cut : cut + width]
    return convolve(x, kernel, padding=padding, groups=channels)


class _WeightGradientInFloat32(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=[size // 2 for size in kernel.shape[2:]], groups=x.shape[1])

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, kernel = ctx.saved_tensors
        options = {"padding": [size // 2 for size in kernel.shape[2:]], "groups": x.shape[1]}
        grad_x = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_x = conv2d_input(x.shape, kernel, grad, **options)
        if ctx.needs_input_grad[1]:
            grad_kernel = conv2d_weight(x.float(), kernel.shape, grad.float(), **options).to(kernel.dtype)
        return grad_x, grad_kernel
