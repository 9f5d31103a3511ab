"""Convolution along frames: windows as rows of a matrix give what PyTorch's convolution gives."""

import pytest
import torch
import torch.nn.functional as F

from focalnet.ops import convolve, frames


@pytest.mark.parametrize("count", [1, 4, frames.FEW])
@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "bias"),
    [(1, 1, 1, True), (7, 1, 1, False), (3, 2, 1, True), (16, 1, 4, True), (5, 3, 2, False), (6, 1, 8, True)],
)
def test_few_frames_and_many_are_convolved_alike(count, kernel, stride, groups, bias):
    torch.manual_seed(0)
    x = torch.randn(2, kernel + stride * (count - 1), 8, dtype=torch.float64)
    weight = torch.randn(24, 8 // groups, kernel, dtype=torch.float64)
    shift = torch.randn(24, dtype=torch.float64) if bias else None
    y = convolve(x, weight, shift, stride=stride, groups=groups)
    assert y.shape == (2, count, 24)
    torch.testing.assert_close(y, F.conv1d(x.mT, weight, shift, stride, groups=groups).mT, rtol=1e-12, atol=1e-12)


def test_what_is_learned_goes_through_the_convolution_of_pytorch():
    x, weight = torch.randn(1, 6, 4), torch.randn(4, 4, 3, requires_grad=True)
    assert "Convolution" in convolve(x, weight).grad_fn.next_functions[0][0].name()
    with torch.no_grad():
        torch.testing.assert_close(convolve(x, weight), F.conv1d(x.mT, weight).mT)
