import pytest
import torch
from torch import nn

from cvmh.train.ema import averaged


def test_the_average_is_the_sum_that_its_decay_says_and_reaches_back_further_as_steps_are_taken():
    network = nn.Linear(3, 2)
    average = averaged(network, 0.5)
    wanted = None
    for step in range(30):
        with torch.no_grad():
            network.weight.normal_()
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0
        wanted = network.weight * (1 - decay) + (decay * wanted if step else 0)
        average.update_parameters(network)
        torch.testing.assert_close(average.module.weight, wanted)
    # From step 8 on the limit holds: (1 + 8) / (10 + 8) = 0.5.
    assert decay == 0.5


def test_statistics_of_batch_norms_are_averaged_and_counters_copied():
    network = nn.BatchNorm1d(2)
    average = averaged(network, 0.999)
    means = []
    for shift in (0.0, 10.0):
        network(shift + torch.randn(8, 2))
        means.append(network.running_mean.clone())
        average.update_parameters(network)
    torch.testing.assert_close(average.module.running_mean, means[1].lerp(means[0], 2 / 11))
    assert average.module.num_batches_tracked == 2


def test_the_average_neither_learns_nor_shares_memory_with_the_network():
    network = nn.Linear(3, 2)
    average = averaged(network, 0.9)
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    with torch.no_grad():
        network.weight += 1
    assert not torch.equal(average.module.weight, network.weight)


def test_a_stored_average_goes_on_as_one_that_was_not_stored():
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    first = averaged(network, 0.99)
    for _ in range(3):
        first.update_parameters(network)
    second = averaged(nn.Linear(3, 2), 0.99)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        network.weight.normal_()
    for average in (first, second):
        average.update_parameters(network)
    assert torch.equal(first.module.weight, second.module.weight)
    assert first.n_averaged == second.n_averaged == pytest.approx(4)
