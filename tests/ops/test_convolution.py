import pytest
import torch
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.ops.convolution import convolve_patches


def bordered(height, width, border):
    """Return the pixels of a map and its border as the table of one patch, -1 beyond the map."""
    table = torch.arange(height * width, dtype=torch.int32).view(height, width)
    return functional.pad(table, (border,) * 4, value=-1)[None]


WHOLE = [
    (3, 1, 3, 16, 1),
    (3, 2, 16, 32, 1),
    (5, 1, 7, 19, 1),
    (1, 1, 4, 1, 1),
    (7, 3, 2, 1, 1),
    (3, 1, 1, 40, 1),
]
GROUPS = [
    (3, 1, 16, 16, 16),
    (5, 1, 19, 19, 19),
    (7, 1, 40, 40, 40),
    (3, 2, 5, 5, 5),
    (1, 1, 3, 3, 3),
    (3, 1, 6, 9, 3),
    (3, 1, 4, 8, 4),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize(("size", "stride", "channels", "results", "groups"), WHOLE + GROUPS)
def test_it_is_the_convolution_of_a_map(
    size, stride, channels, results, groups, backend, dtype, monkeypatch
):
    monkeypatch.setenv("CVMH_SCAN_BACKEND", backend)
    maps = torch.randn(1, channels, 11, 11, dtype=dtype)
    conv = torch.nn.Conv2d(channels, results, size, stride, size // 2, groups=groups).to(dtype)
    with torch.no_grad():
        found = convolve_patches(
            maps[0].flatten(1).t().contiguous(),
            bordered(11, 11, size // 2),
            conv.weight,
            conv.bias,
            stride=stride,
            groups=groups,
        )
        wanted = conv.double()(maps.double())
    torch.testing.assert_close(found.permute(0, 3, 1, 2).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 17])
def test_pixels_may_lie_anywhere_and_be_seen_by_many_patches(groups):
    x = torch.randn(30, 23)[:, 3:20]
    table = torch.randint(-1, 30, (5, 6, 6), dtype=torch.int32)
    weight = torch.randn(17, 17 // groups, 3, 3)
    rows = torch.cat([x, torch.zeros(1, 17)])
    wanted = functional.conv2d(rows[table.long()].permute(0, 3, 1, 2), weight, groups=groups)
    found = convolve_patches(x, table, weight, groups=groups).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 20])
def test_rows_may_be_parts_of_longer_ones(groups):
    wide, table = torch.randn(30, 57), torch.randint(-1, 30, (4, 5, 5), dtype=torch.int32)
    weight = torch.randn(20, 20 // groups, 3, 3)
    for part in (wide[:, 20:40], wide[:, :20], wide[::2].repeat(2, 1)[:, 1:21], wide.t()[:30, :20]):
        expected = convolve_patches(part.contiguous(), table, weight, groups=groups)
        assert torch.equal(convolve_patches(part, table, weight, groups=groups), expected)


@pytest.mark.parametrize("groups", [1, 20])
def test_a_patch_does_not_change_the_bits_of_another(groups):
    x, weight, bias = torch.randn(40, 20), torch.randn(20, 20 // groups, 3, 3), torch.randn(20)
    table = torch.randint(-1, 40, (7, 5, 5), dtype=torch.int32)
    together = convolve_patches(x, table, weight, bias, groups=groups)
    for number in range(7):
        alone = convolve_patches(x, table[number : number + 1], weight, bias, groups=groups)
        assert torch.equal(together[number : number + 1], alone)


@pytest.mark.parametrize("groups", [1, 4])
def test_gradients_are_those_of_the_convolution(groups):
    maps = torch.randn(1, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    wanted = functional.conv2d(maps, weight, bias, padding=1, groups=groups)
    rows = maps[0].flatten(1).t()
    found = convolve_patches(rows, bordered(6, 6, 1), weight, bias, groups=groups)
    found = found.permute(0, 3, 1, 2)
    factors = torch.randn_like(wanted)
    given = [maps, weight, bias]
    expected = torch.autograd.grad((wanted * factors).sum(), given)
    torch.testing.assert_close(torch.autograd.grad((found * factors).sum(), given), expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_no_patches_give_no_pixels(groups):
    none, weight = torch.zeros(0, 4, 4, dtype=torch.int32), torch.zeros(2, 2 // groups, 3, 3)
    for rows in (0, 3):
        found = convolve_patches(torch.zeros(rows, 2), none, weight, groups=groups)
        assert found.shape == (0, 2, 2, 2)


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
