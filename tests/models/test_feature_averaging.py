"""Weighted averaging of features against its sums, its starts, and its gradients."""

import pytest
import torch
from torch import nn

from cvmh.models.feature_averaging import AveragedLayers

NUM_LAYERS = 3


def linears(seed):
    torch.manual_seed(seed)
    return [nn.Linear(4, 4, dtype=torch.float64) for _ in range(NUM_LAYERS)]


def layers(start="tokens"):
    return AveragedLayers(linears(0), linears(1), start=start).double()


@pytest.mark.parametrize("num_layers", [1, 2, 5])
def test_there_are_as_many_scalars_as_the_paper_counts(num_layers):
    mixers = [nn.Identity()] * num_layers
    network = AveragedLayers(mixers, mixers)
    expected = num_layers * (2 * num_layers + 3)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_each_mixer_reads_the_weighted_sums_of_the_equations():
    network, x = layers(), torch.randn(2, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
        token, channel = {0: x}, {0: x}
        for k in range(1, NUM_LAYERS + 1):
            alpha, beta = network.alpha[k - 1], network.beta[k - 1]
            theta, gamma = network.theta[k - 1], network.gamma[k - 1]
            total = torch.zeros_like(x)
            for i in range(k):
                total = total + alpha[i] * token[i] + beta[i] * channel[i]
            token[k] = network.token_mixers[k - 1](total)
            total = torch.zeros_like(x)
            for i in range(k + 1):
                total = total + theta[i] * token[i]
            for i in range(k):
                total = total + gamma[i] * channel[i]
            channel[k] = network.channel_mixers[k - 1](total)
        torch.testing.assert_close(network(x), channel[NUM_LAYERS], rtol=1e-12, atol=1e-12)


def test_it_starts_as_a_plain_chain_of_token_mixers():
    x = torch.randn(2, 4, dtype=torch.float64)
    network = AveragedLayers(linears(0), [nn.Identity()] * NUM_LAYERS).double()
    torch.testing.assert_close(network(x), nn.Sequential(*linears(0))(x))


def test_it_can_start_as_a_chain_in_which_the_mixers_take_turns():
    x = torch.randn(2, 4, dtype=torch.float64)
    turns = [mixer for pair in zip(linears(0), linears(1), strict=True) for mixer in pair]
    torch.testing.assert_close(layers("alternating")(x), nn.Sequential(*turns)(x))


@pytest.mark.parametrize("start", ["tokens", "alternating"])
def test_all_coefficients_learn_from_the_first_step_on(start):
    network = layers(start)
    network(torch.randn(2, 4, dtype=torch.float64)).square().sum().backward()
    rows = [*network.alpha, *network.beta, *network.theta, *network.gamma]
    # gamma and theta of the layers before the last one act through channel mixers alone.
    last = [network.alpha[-1], network.beta[-1], network.theta[-1], network.gamma[-1]]
    assert all(row.grad is not None for row in rows)
    assert all((row.grad != 0).all() for row in last)


def test_gradients_are_right():
    network, x = layers(), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    parameters = list(network.parameters())
    for parameter in parameters:
        nn.init.normal_(parameter)
    assert torch.autograd.gradcheck(lambda x, *_: network(x), (x, *parameters))
