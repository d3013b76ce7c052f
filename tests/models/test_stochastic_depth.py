from functools import partial

import pytest
import torch

from cvmh.models.cvss import CVSSBlock
from cvmh.models.feed_forward import FeedForward
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.pruning import CellGrid, MaskedGrid
from cvmh.models.pruning.tokens import NumberedGrid
from cvmh.models.ss2d import SS2D
from cvmh.models.stochastic_depth import StochasticDepth


@pytest.mark.parametrize("shape", [(2000, 1, 1, 3), (2000, 2, 3, 4)])
def test_stochastic_depth_drops_whole_images_and_keeps_the_mean(shape):
    torch.manual_seed(0)
    kept = StochasticDepth(0.25)(torch.ones(shape)).flatten(1)
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (kept == kept[:, :1]).all()
    # Four deviations of the mean of 2000 draws.
    assert kept[:, 0].mean().item() == pytest.approx(1, abs=4 * (0.25 / 0.75 / 2000) ** 0.5)


def test_stochastic_depth_rests_in_prediction_and_at_rate_0_and_may_drop_all():
    ones = torch.ones(5, 2, 2, 3)
    assert torch.equal(StochasticDepth(0.9).eval()(ones), ones)
    assert torch.equal(StochasticDepth(0.0)(ones), ones)
    assert not StochasticDepth(1.0)(ones).any()


def test_stochastic_depth_is_drawn_once_for_all_cells_of_a_tile():
    torch.manual_seed(1)
    drop, active = StochasticDepth(0.5), torch.rand(40, 3, 2) < 0.6
    numbers = torch.rand(40, 6).argsort(1)[:, :4].sort(1).values
    maps = torch.rand(40, 6, 4, 3) + 1
    for alignment in ("gap", "none"):
        for grid in (
            CellGrid(active, alignment=alignment),
            NumberedGrid(numbers, rows=3, columns=2, alignment=alignment),
        ):
            torch.manual_seed(0)
            found = grid.put(drop(grid.take(maps), grid), torch.zeros_like(maps))
            torch.manual_seed(0)
            masked = MaskedGrid(grid.active_BGG)
            assert torch.equal(found, masked.put(drop(maps, masked)))


@pytest.mark.parametrize("make", [CVSSBlock, MixerBlock, partial(MixerBlock, ffn=FeedForward)])
def test_blocks_in_training_drop_the_same_images_on_cells_and_on_masked_maps(make):
    torch.manual_seed(0)
    block = make(8, drop_path=0.5, mixer=partial(SS2D, d_state=2)).double()
    active, maps = torch.rand(8, 3, 2) < 0.6, torch.randn(8, 6, 4, 8, dtype=torch.float64)
    found = []
    for grid in (MaskedGrid(active), CellGrid(active)):
        torch.manual_seed(1)
        found.append(grid.put(block(grid.take(maps), grid), maps))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
