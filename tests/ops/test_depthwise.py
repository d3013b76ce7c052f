import pytest
import torch
from torch.nn import functional

from cvmh.errors import ShapeError
from cvmh.ops.depthwise import depthwise_rows


def windows(height, width, size):
    """Return the pixels in the window around each pixel, -1 beyond the map."""
    table = []
    for row in range(height):
        for column in range(width):
            around = []
            for down in range(-(size // 2), size // 2 + 1):
                for right in range(-(size // 2), size // 2 + 1):
                    i, j = row + down, column + right
                    inside = 0 <= i < height and 0 <= j < width
                    around.append(i * width + j if inside else -1)
            table.append(around)
    return torch.tensor(table, dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 16, 19, 40])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_it_is_the_depthwise_convolution_of_a_map(size, channels, dtype):
    maps = torch.randn(1, channels, 5, 9, dtype=dtype)
    conv = torch.nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels).to(dtype)
    rows = maps[0].flatten(1).t().contiguous()
    weight = conv.weight.view(channels, -1).t()
    with torch.no_grad():
        y = depthwise_rows(rows, windows(5, 9, size), weight, conv.bias)
        wanted = conv(maps)[0].flatten(1).t()
    torch.testing.assert_close(y, wanted)


def test_gradients_are_those_of_the_convolution():
    maps = torch.randn(1, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    wanted = functional.conv2d(maps, weight, padding=1, groups=3)
    y = depthwise_rows(maps[0].flatten(1).t(), windows(4, 6, 3), weight.view(3, 9).t())
    factors = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * factors).sum(), [maps, weight])
    found = torch.autograd.grad((y.t().view(1, 3, 4, 6) * factors).sum(), [maps, weight])
    torch.testing.assert_close(found, expected)


def test_rows_may_be_more_or_fewer_than_they_were():
    x = torch.randn(4, 20)
    table = torch.tensor([[0, 3], [-1, 2], [-1, -1], [1, 1], [3, 0]], dtype=torch.int32)
    weight, bias = torch.randn(2, 20), torch.randn(20)
    rows = torch.cat([x, torch.zeros(1, 20)])
    wanted = bias + weight[0] * rows[table[:, 0].long()] + weight[1] * rows[table[:, 1].long()]
    torch.testing.assert_close(depthwise_rows(x, table, weight, bias), wanted)


def test_rows_may_be_parts_of_longer_ones():
    wide, table = torch.randn(30, 57), torch.randint(-1, 30, (40, 9), dtype=torch.int32)
    weight = torch.randn(9, 20)
    for part in (wide[:, 20:40], wide[:, :20], wide[::2].repeat(2, 1)[:, 1:21], wide.t()[:30, :20]):
        expected = depthwise_rows(part.contiguous(), table, weight)
        assert torch.equal(depthwise_rows(part, table, weight), expected)


def test_no_rows_give_no_rows():
    empty = torch.zeros(0, 9, dtype=torch.int32)
    assert depthwise_rows(torch.zeros(0, 4), empty, torch.zeros(9, 4)).shape == (0, 4)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"neighbours int32 \(T', J\)"):
        depthwise_rows(torch.zeros(4, 3), torch.zeros(4, 9).long(), torch.zeros(9, 3))
    with pytest.raises(ShapeError, match=r"weight \(J, D\)"):
        depthwise_rows(torch.zeros(4, 3), torch.zeros(4, 9).int(), torch.zeros(3, 9))
