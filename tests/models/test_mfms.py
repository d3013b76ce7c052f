"""The multi-frequency gate and its parts."""

import pytest
import torch

from cvmh.models.mfms import (
    AdaptiveConv1d,
    MFMSBlock,
    MultiFrequencyBranch,
    MultiScaleBranch,
    eca_kernel_size,
    pool_under_bases,
)
from cvmh.ops.dct import dct_basis


@pytest.mark.parametrize(("channels", "size"), [(96, 3), (192, 5), (384, 5), (768, 5)])
def test_eca_kernel_grows_with_the_channels(channels, size):
    assert eca_kernel_size(channels) == size
    assert AdaptiveConv1d(channels).kernel_size == (size,)


@pytest.mark.parametrize(
    "branch",
    [MultiFrequencyBranch(16, num_frequencies=8), MultiScaleBranch(16)],
    ids=["mfms", "aff"],
)
def test_output_lies_between_the_two_inputs(branch):
    torch.manual_seed(0)
    block = MFMSBlock(16, branch)
    f, g = torch.randn(2, 16, 12, 9), torch.randn(2, 16, 12, 9)
    fused = block(f, g)
    assert (fused >= torch.minimum(f, g) - 1e-6).all()
    assert (fused <= torch.maximum(f, g) + 1e-6).all()


def test_output_is_the_mean_where_the_gate_is_a_half():
    class Zero(torch.nn.Module):
        def forward(self, x, grid):
            return torch.zeros(2, 16)

    block = MFMSBlock(16, Zero())
    block.local_branch = torch.nn.Sequential(torch.nn.Hardtanh(0, 1e-30))
    f, g = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(block(f, g), (f + g) / 2)


def test_poolings_equal_the_definition():
    x = torch.randn(2, 5, 7, 11)
    basis = dct_basis(((0, 0), (2, 1), (1, 3)), 7, 11)
    products = x[:, None] * basis[None, :, None]
    mean, high, low = pool_under_bases(x, basis)
    torch.testing.assert_close(mean, products.mean((3, 4)).mean(1))
    torch.testing.assert_close(high, products.amax((3, 4)).mean(1))
    torch.testing.assert_close(low, products.amin((3, 4)).mean(1))


def test_the_lowest_frequency_pools_to_the_global_average():
    x = torch.randn(2, 5, 8, 8)
    basis = dct_basis(((0, 0),), 8, 8)
    mean, _, _ = pool_under_bases(x, basis)
    torch.testing.assert_close(mean, x.mean((2, 3)) * basis[0, 0, 0])


def test_gradient_of_the_poolings_is_that_of_the_definition():
    x = torch.randn(1, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    basis = dct_basis(((0, 0), (1, 2)), 5, 6).double()
    assert torch.autograd.gradcheck(lambda v: pool_under_bases(v, basis), (x,))
