"""Gradients of the blocks that networks are made of, on maps that are not square."""

from functools import partial

import pytest
import torch
from torch.func import functional_call

from cvmh.models.attention import Attention
from cvmh.models.cvss import CVSSBlock
from cvmh.models.feed_forward import FeedForward
from cvmh.models.group_layer import GroupLayer
from cvmh.models.mfms import MFMSBlock, MultiFrequencyBranch
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.nc_ssd import NCSSD
from cvmh.models.ss2d import SS2D

NEAR = partial(FeedForward, ratio=2.0, sees_neighbours=True)
BLOCKS = {
    "vss": partial(MixerBlock, mixer=partial(SS2D, d_state=2)),
    "cvss": partial(CVSSBlock, mixer=partial(SS2D, d_state=1)),
    "vssd": partial(
        MixerBlock,
        mixer=partial(NCSSD, num_heads=2, d_state=3),
        ffn=FeedForward,
        has_positions=True,
    ),
    "vssd of the last stage": partial(
        MixerBlock, mixer=partial(Attention, num_heads=2), ffn=FeedForward, has_positions=True
    ),
    "groupmamba": partial(MixerBlock, mixer=GroupLayer, ffn=NEAR, has_mixer_norm=False),
}


def is_right(block, *maps):
    names, parameters = zip(*block.named_parameters(), strict=True)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.2 * torch.randn_like(parameter))

    def run(*tensors):
        values = dict(zip(names, tensors[len(maps) :], strict=True))
        return functional_call(block, values, tensors[: len(maps)])

    return torch.autograd.gradcheck(run, (*maps, *parameters), fast_mode=True, atol=1e-6)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("size", [(2, 5), (4, 3)], ids=str)
def test_gradients_of_a_block_are_right_on_a_map_that_is_not_square(name, size):
    torch.manual_seed(0)
    block = BLOCKS[name](16).double().eval()
    assert is_right(block, torch.randn(1, *size, 16, dtype=torch.float64, requires_grad=True))


def test_gradients_of_the_fusion_are_right_on_maps_that_are_not_square():
    torch.manual_seed(0)
    block = MFMSBlock(16, MultiFrequencyBranch(16, num_frequencies=4)).double().eval()
    maps = torch.randn(2, 1, 16, 3, 5, dtype=torch.float64).unbind()
    assert is_right(block, *(one.clone().requires_grad_() for one in maps))
