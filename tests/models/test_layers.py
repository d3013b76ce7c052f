import pytest
import torch

from cvmh.models.layers import StochasticDepth


@pytest.mark.parametrize("shape", [(2000, 3), (2000, 2, 3, 4)])
def test_stochastic_depth_drops_whole_images_and_keeps_the_mean(shape):
    torch.manual_seed(0)
    kept = StochasticDepth(0.25)(torch.ones(shape)).flatten(1)
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (kept == kept[:, :1]).all()
    # Four deviations of the mean of 2000 draws.
    assert kept[:, 0].mean().item() == pytest.approx(1, abs=4 * (0.25 / 0.75 / 2000) ** 0.5)


def test_stochastic_depth_rests_in_prediction_and_at_rate_0_and_may_drop_all():
    ones = torch.ones(5, 3)
    assert torch.equal(StochasticDepth(0.9).eval()(ones), ones)
    assert torch.equal(StochasticDepth(0.0)(ones), ones)
    assert not StochasticDepth(1.0)(ones).any()
