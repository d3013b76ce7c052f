import numpy as np
import pytest

from cvmh.config import TrainSettings
from cvmh.train.schedule import learning_rate

SETTINGS = TrainSettings(learning_rate=1e-3, final_learning_rate=1e-5, warmup=0.2)


def test_the_rate_climbs_in_a_line_to_its_peak_at_the_end_of_the_warm_up():
    rates = [learning_rate(share, SETTINGS) for share in (0.05, 0.1, 0.15, 0.2)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])


def test_the_first_step_has_a_rate_above_zero():
    assert 0 < learning_rate(0, SETTINGS) < 1e-4


def test_the_rate_falls_at_every_step_after_its_peak_and_ends_at_the_final_rate():
    rates = [learning_rate(share, SETTINGS) for share in np.linspace(0.2, 1, 101)]
    assert np.all(np.diff(rates) < 0)
    assert rates[50] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[-1] == pytest.approx(1e-5)


def test_without_warm_up_the_rate_begins_at_its_peak():
    assert learning_rate(0, TrainSettings(learning_rate=2e-3, warmup=0)) == 2e-3


@pytest.mark.parametrize(("beyond", "edge"), [(-0.5, 0), (1.5, 1)])
def test_a_share_outside_of_the_run_counts_as_its_nearer_end(beyond, edge):
    assert learning_rate(beyond, SETTINGS) == learning_rate(edge, SETTINGS)
