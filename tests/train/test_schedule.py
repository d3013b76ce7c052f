import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from cvmh.config import TrainSettings
from cvmh.train.schedule import learning_rate, momentum

NAMES = ("cosine", "poly", "one_cycle")


def settings_of(name="cosine", **changes):
    common = {"learning_rate": 1e-3, "final_learning_rate": 1e-5, "warmup": 0.2}
    return TrainSettings(schedule=name, **{**common, **changes})


def rates_of(settings, shares):
    return np.array([learning_rate(share, settings) for share in shares])


@pytest.mark.parametrize("name", ["cosine", "poly"])
def test_the_rate_climbs_in_a_line_to_its_peak_at_the_end_of_the_warm_up(name):
    rates = rates_of(settings_of(name), (0.05, 0.1, 0.15, 0.2))
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])


@pytest.mark.parametrize("name", NAMES)
def test_the_first_step_has_a_rate_above_zero(name):
    assert 0 < learning_rate(0, settings_of(name)) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_climbs_then_falls_at_every_step_and_ends_at_the_final_rate(name):
    rates = rates_of(settings_of(name), np.linspace(0.01, 1, 100))
    assert np.argmax(rates) == 19 and rates[19] == pytest.approx(1e-3)
    assert np.all(np.diff(rates[:20]) > 0) and np.all(np.diff(rates[19:]) < 0)
    assert rates[-1] == pytest.approx(1e-5)


def test_the_cosine_is_half_way_down_in_its_middle():
    assert learning_rate(0.6, settings_of()) == pytest.approx((1e-3 + 1e-5) / 2)


def test_poly_falls_with_the_power_0_9_of_what_is_left():
    rates = rates_of(settings_of("poly", final_learning_rate=0), (0.4, 0.8))
    assert rates == pytest.approx([1e-3 * 0.75**0.9, 1e-3 * 0.25**0.9])


def test_one_cycle_is_that_of_torch_in_rate_and_momentum():
    total, settings = 2001, settings_of("one_cycle", warmup=0.3)
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    theirs = OneCycleLR(
        optimiser, max_lr=1e-3, total_steps=total, pct_start=0.3, final_div_factor=1e-3 / 25 / 1e-5
    )
    for step in range(total):
        share, group = step / (total - 1), optimiser.param_groups[0]
        assert learning_rate(share, settings) == pytest.approx(group["lr"], abs=2e-6)
        assert momentum(share, settings) == pytest.approx(group["betas"][0], abs=2e-4)
        optimiser.step()
        if step < total - 1:
            theirs.step()


def test_only_one_cycle_moves_the_momentum():
    assert {momentum(share, settings_of("poly")) for share in (0, 0.1, 0.5, 1)} == {0.9}


def test_without_warm_up_the_rate_begins_at_its_peak():
    for name in NAMES:
        assert learning_rate(0, settings_of(name, warmup=0)) == 1e-3


@pytest.mark.parametrize(("beyond", "edge"), [(-0.5, 0), (1.5, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_a_share_outside_of_the_run_counts_as_its_nearer_end(name, beyond, edge):
    settings = settings_of(name)
    assert learning_rate(beyond, settings) == learning_rate(edge, settings)
