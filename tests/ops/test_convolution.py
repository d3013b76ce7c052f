import pytest
import torch
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.ops.convolution import convolve_patches


def bordered(height, width, border):
    """Return the pixels of a map and its border as the table of one patch, -1 beyond the map."""
    table = torch.arange(height * width, dtype=torch.int32).view(height, width)
    return functional.pad(table, (border,) * 4, value=-1)[None]


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize(
    ("size", "stride", "channels", "results"),
    [(3, 1, 3, 16), (3, 2, 16, 32), (5, 1, 7, 19), (1, 1, 4, 1), (7, 3, 2, 1), (3, 1, 1, 40)],
)
def test_it_is_the_convolution_of_a_map(size, stride, channels, results, backend, monkeypatch):
    monkeypatch.setenv("CVMH_SCAN_BACKEND", backend)
    maps = torch.randn(1, channels, 11, 11)
    conv = torch.nn.Conv2d(channels, results, size, stride, size // 2)
    with torch.no_grad():
        found = convolve_patches(
            maps[0].flatten(1).t().contiguous(),
            bordered(11, 11, size // 2),
            conv.weight,
            conv.bias,
            stride=stride,
        )
        wanted = conv.double()(maps.double())
    torch.testing.assert_close(found.permute(0, 3, 1, 2).double(), wanted, rtol=1e-5, atol=1e-5)


def test_pixels_may_lie_anywhere_and_be_seen_by_many_patches():
    x = torch.randn(30, 23)[:, 3:20]
    table = torch.randint(-1, 30, (5, 6, 6), dtype=torch.int32)
    weight = torch.randn(4, 17, 3, 3)
    rows = torch.cat([x, torch.zeros(1, 17)])
    wanted = functional.conv2d(rows[table.long()].permute(0, 3, 1, 2), weight)
    found = convolve_patches(x, table, weight).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_patch_does_not_change_the_bits_of_another():
    x, weight, bias = torch.randn(40, 5), torch.randn(20, 5, 3, 3), torch.randn(20)
    table = torch.randint(-1, 40, (7, 5, 5), dtype=torch.int32)
    together = convolve_patches(x, table, weight, bias)
    for number in range(7):
        alone = convolve_patches(x, table[number : number + 1], weight, bias)
        assert torch.equal(together[number : number + 1], alone)


def test_gradients_are_those_of_the_convolution():
    maps = torch.randn(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    wanted = functional.conv2d(maps, weight, bias, padding=1)
    rows = maps[0].flatten(1).t()
    found = convolve_patches(rows, bordered(6, 6, 1), weight, bias).permute(0, 3, 1, 2)
    factors = torch.randn_like(wanted)
    given = [maps, weight, bias]
    expected = torch.autograd.grad((wanted * factors).sum(), given)
    torch.testing.assert_close(torch.autograd.grad((found * factors).sum(), given), expected)


def test_no_patches_give_no_pixels():
    none = torch.zeros(0, 4, 4, dtype=torch.int32)
    assert convolve_patches(torch.zeros(3, 2), none, torch.zeros(5, 2, 3, 3)).shape == (0, 2, 2, 5)


@pytest.mark.parametrize(
    ("table", "weight", "stride"),
    [
        (torch.zeros(1, 4, 4), (5, 2, 3, 3), 1),
        (torch.zeros(1, 4, 5).int(), (5, 2, 3, 3), 1),
        (torch.zeros(1, 2, 2).int(), (5, 2, 3, 3), 1),
        (torch.zeros(1, 4, 4).int(), (5, 3, 3, 3), 1),
        (torch.zeros(1, 4, 4).int(), (5, 2, 3, 3), 0),
    ],
    ids=["table of floats", "no square", "smaller than the window", "channels", "stride"],
)
def test_shapes_that_do_not_fit_are_refused(table, weight, stride):
    with pytest.raises(ShapeError, match=r"weight \(D, C, k, k\) with k at most P"):
        convolve_patches(torch.zeros(9, 2), table, torch.zeros(weight), stride=stride)
