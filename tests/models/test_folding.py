import copy

import pytest
import torch
from torch import nn

from cvmh.models.folding import fold_norms
from cvmh.models.layers import PointwiseConv
from cvmh.models.pruning import CellGrid
from cvmh.models.zoo import create_model


def with_statistics(network):
    """Give batch norms the weights and statistics of something trained."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.3, 3)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.eval()


def count_norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("name", "has_rest"),
    [("cvmh_unet_nano", False), ("cvmh_unet", False), ("smp:unet:cvmh-plainmamba_l1", True)],
)
@torch.inference_mode()
def test_values_stay_the_same(name, has_rest):
    # In float32 random statistics now and then make much of roundings.
    network = with_statistics(create_model(name, bands=3, num_classes=4)).double()
    before = copy.deepcopy(network.state_dict())
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    wanted = network(image)
    folded = fold_norms(network)
    assert count_norms(folded) < count_norms(network)
    assert bool(count_norms(folded)) == has_rest
    torch.testing.assert_close(folded(image), wanted, rtol=1e-8, atol=1e-8)
    # The network itself is as it was.
    assert torch.equal(network(image), wanted)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@torch.inference_mode()
def test_values_of_kept_cells_stay_the_same():
    network = with_statistics(create_model("cvmh_unet_nano", bands=3, num_classes=4)).double()
    grid = CellGrid(torch.rand(2, 3, 4) < 0.5)
    image = torch.randn(2, 3, 96, 128, dtype=torch.float64)
    wanted = network(image, grid)
    torch.testing.assert_close(fold_norms(network)(image, grid), wanted, rtol=1e-8, atol=1e-8)


def test_what_is_not_folded_is_shared():
    conv, linear = PointwiseConv(3, 5), nn.Linear(5, 2)
    network = nn.Sequential(nn.Sequential(conv, nn.BatchNorm2d(5)), nn.Flatten(2), linear).eval()
    folded = fold_norms(network)
    assert folded[2].weight is linear.weight
    assert folded[0][0].weight is not conv.weight
    assert type(folded[0][0]) is PointwiseConv


class Doubling(nn.Sequential):
    def forward(self, x):
        return super().forward(2 * x)


class Halving(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) / 2


class NormAndClamp(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).clamp(min=0)


def hooked(conv):
    conv.register_forward_hook(lambda module, given, output: 3 * output)
    return conv


def conv(kind=nn.Conv2d):
    return kind(4, 4, 3, padding=1)


RELU = nn.ReLU()
ROWS = {
    "apart": nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(4)),
    "no statistics": nn.Sequential(conv(), nn.BatchNorm2d(4, track_running_stats=False)),
    "a layer that comes again": nn.Sequential(conv(), RELU, conv(), RELU, nn.BatchNorm2d(4)),
    "another row": Doubling(conv(), nn.BatchNorm2d(4)),
    "another convolution": nn.Sequential(conv(Halving), nn.BatchNorm2d(4)),
    "another norm": nn.Sequential(conv(), NormAndClamp(4)),
    "a hook": nn.Sequential(hooked(conv()), nn.BatchNorm2d(4)),
    "parametrised": nn.Sequential(nn.utils.parametrizations.weight_norm(conv()), nn.BatchNorm2d(4)),
}


@pytest.mark.parametrize("name", ROWS)
@torch.inference_mode()
def test_rows_that_are_not_plain_are_left_alone(name):
    row = with_statistics(ROWS[name])
    assert fold_norms(row) is row
    beside = nn.Sequential(row, nn.Sequential(conv(), with_statistics(nn.BatchNorm2d(4)))).eval()
    x, folded = torch.randn(2, 4, 5, 6), fold_norms(beside)
    assert folded is not beside
    torch.testing.assert_close(folded(x), beside(x), rtol=1e-4, atol=1e-4)


def test_a_norm_in_training_is_left_alone():
    network = nn.Sequential(conv(), nn.BatchNorm2d(4))
    assert fold_norms(network) is network
    assert fold_norms(network.eval()) is not network
    network[1].train()
    assert fold_norms(network) is network
