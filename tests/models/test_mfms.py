"""The multi-frequency gate and its parts."""

import pytest
import torch

from cvmh.models.mfms import (
    AdaptiveConv1d,
    MFMSBlock,
    MultiFrequencyBranch,
    MultiScaleBranch,
    eca_kernel_size,
)


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
