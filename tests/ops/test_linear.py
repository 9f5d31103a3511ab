"""Slices of a product whose rows are padded, as on CUDA devices, against those of the plain product."""

import sys

import pytest
import torch

from focalnet.ops import linear, linear_slices

module = sys.modules["focalnet.ops.linear"]


@pytest.mark.parametrize("bias", [False, True])
def test_padded_rows_change_no_number(bias, monkeypatch):
    def everything():
        leaves = [torch.randn(2, 3, 5, 4), torch.randn(11, 4), torch.randn(11)]
        leaves = [leaf.requires_grad_() for leaf in leaves[: 2 + bias]]
        slices = linear_slices(leaves[0], leaves[1], leaves[2] if bias else None, (4, 4, 3))
        return [*slices, *torch.autograd.grad(sum(part.square().sum() for part in slices), leaves)]

    torch.manual_seed(0)
    plain = everything()
    monkeypatch.setattr(module, "_spare", lambda x, weight: -weight.shape[0] % module.ROW)
    torch.manual_seed(0)
    padded = everything()
    for one, other in zip(plain, padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert [plain[0].stride(2), padded[0].stride(2)] == [11, 16]


def test_nothing_is_padded_on_cpus():
    x, weight = torch.randn(1, 2, 2, 4), torch.randn(9, 4)
    query, context, gates = linear_slices(x, weight, None, (4, 4, 1))
    assert torch.equal(torch.cat([query, context, gates], dim=-1), linear(x, weight))
    assert query.stride(2) == 9
