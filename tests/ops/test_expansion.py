import pytest
import torch
from torch import nn

from cvmh.errors import ShapeError
from cvmh.ops.expansion import expand_pixels


def expand_by_loops(x, norm, factor, beside):
    """Place pixel by pixel, in float64."""
    batch, height, width, _ = x.shape
    maps = torch.zeros(batch, factor * height, factor * width, len(norm.weight)).double()
    for row in range(factor * height):
        for column in range(factor * width):
            pixels = x[:, row // factor, column // factor].unflatten(-1, (factor**2, -1))
            number = row % factor * factor + column % factor
            maps[:, row, column] = norm.double()(pixels[:, number].double())
    return maps if beside is None else torch.cat([maps, beside.double()], dim=-1)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize(
    ("channels", "factor", "beside"),
    [(16, 2, 16), (32, 2, None), (5, 2, 3), (40, 4, 17), (1, 3, None), (24, 1, 8)],
)
@torch.no_grad()
def test_each_pixel_is_normed_and_put_in_place(channels, factor, beside, backend, monkeypatch):
    monkeypatch.setenv("CVMH_SCAN_BACKEND", backend)
    norm = nn.LayerNorm(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 * torch.randn(2, 3, 5, factor**2 * channels) + 7
    other = None if beside is None else torch.randn(2, 3 * factor, 5 * factor, beside)
    found = expand_pixels(x, norm.weight, norm.bias, factor=factor, beside_BHWE=other)
    wanted = expand_by_loops(x, norm, factor, other)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_equal_channels_are_normed_to_the_bias():
    bias = torch.randn(20)
    found = expand_pixels(torch.full((1, 2, 2, 80), 3.0), torch.ones(20), bias, factor=2)
    torch.testing.assert_close(found, bias.expand(1, 4, 4, 20))


def test_maps_may_lie_in_any_order_of_memory():
    x, beside = torch.randn(2, 12, 3, 4), torch.randn(2, 5, 6, 8)
    given = x.permute(0, 2, 3, 1), torch.ones(3), torch.zeros(3)
    other = beside.permute(0, 2, 3, 1)
    found = expand_pixels(*given, factor=2, beside_BHWE=other)
    wanted = expand_pixels(
        given[0].contiguous(), *given[1:], factor=2, beside_BHWE=other.contiguous()
    )
    assert torch.equal(found, wanted)


def test_gradients_are_those_of_the_definition():
    x = torch.randn(1, 2, 3, 12, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    beside = torch.randn(1, 4, 6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w, b, m: expand_pixels(x, w, b, factor=2, beside_BHWE=m),
        (x, weight, bias, beside),
    )


@pytest.mark.parametrize(
    ("channels", "beside"), [(3, (1, 4, 4, 2)), (2, (1, 4, 5, 2)), (2, (2, 4, 4, 2))]
)
def test_shapes_that_do_not_fit_are_refused(channels, beside):
    weight = torch.ones(channels)
    with pytest.raises(ShapeError, match=r"x must be \(B, H, W, 4 C\)"):
        expand_pixels(
            torch.zeros(1, 2, 2, 8), weight, weight, factor=2, beside_BHWE=torch.zeros(beside)
        )
