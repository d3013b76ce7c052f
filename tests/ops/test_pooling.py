import pytest
import torch

from cvmh.errors import ShapeError
from cvmh.ops.dct import dct_basis
from cvmh.ops.pooling import pool_under_weights


def pool_by_loops(x, weight, is_kept):
    """Pool tile by tile, channel by channel and weight by weight, in float64."""
    x, weight = x.double(), weight.double().expand(len(x), -1, -1)
    pooled = torch.zeros(3, len(x), x.shape[2], dtype=torch.float64)
    for tile in range(len(x)):
        kept = is_kept[tile]
        for channel in range(x.shape[2] if kept.any() else 0):
            found = [x[tile, kept, channel] * one[kept] for one in weight[tile].unbind(1)]
            for row, pool in enumerate((torch.mean, torch.amax, torch.amin)):
                pooled[row, tile, channel] = sum(map(pool, found)) / len(found)
    return pooled


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("is_pruned", [False, True])
@pytest.mark.parametrize(
    ("tiles", "tokens", "channels", "weights", "weight_tiles"),
    [
        (1, 1, 1, 1, 1),
        (2, 300, 16, 16, 1),
        (2, 300, 16, 16, 2),
        (3, 77, 19, 2, 1),
        (3, 513, 40, 5, 3),
    ],
)
def test_poolings_equal_the_definition(
    tiles, tokens, channels, weights, weight_tiles, is_pruned, backend, monkeypatch
):
    monkeypatch.setenv("CVMH_SCAN_BACKEND", backend)
    x = torch.randn(tiles, tokens, channels) - 1
    weight = torch.randn(weight_tiles, tokens, weights)
    is_kept = torch.rand(tiles, tokens) < (0.4 if is_pruned else 2)
    if is_pruned:
        is_kept[-1] = False
    wanted = pool_by_loops(x, weight, is_kept)
    found = pool_under_weights(x, weight, is_kept if is_pruned else None)
    torch.testing.assert_close(torch.stack(found).double(), wanted, rtol=1e-5, atol=1e-6)


def test_what_is_not_kept_may_be_anything():
    x, weight = torch.randn(1, 40, 20), torch.randn(1, 40, 3)
    is_kept = torch.arange(40)[None] < 30
    wanted = pool_under_weights(x[:, :30], weight[:, :30])
    x[:, 30:] = torch.nan
    found = pool_under_weights(x, weight, is_kept)
    torch.testing.assert_close(torch.stack(found), torch.stack(wanted))


def test_values_that_are_not_finite_show_in_the_mean():
    x, weight = torch.randn(1, 40, 20), torch.rand(1, 40, 3) + 1
    x[0, 7, 3], x[0, 9, 18] = torch.nan, torch.inf
    mean, _, _ = pool_under_weights(x, weight)
    assert (~mean.isfinite()).nonzero().tolist() == [[0, 3], [0, 18]]


def test_a_tile_does_not_change_the_bits_of_another():
    x, weight = torch.randn(4, 200, 48), torch.randn(1, 200, 16)
    together = torch.stack(pool_under_weights(x, weight))
    for tile in range(4):
        alone = torch.stack(pool_under_weights(x[tile : tile + 1].clone(), weight))
        assert torch.equal(together[:, tile : tile + 1], alone)


def test_rows_may_lie_apart():
    x, weight = torch.randn(2, 20, 60).transpose(1, 2), torch.randn(1, 16, 60).transpose(1, 2)
    found = pool_under_weights(x, weight)
    wanted = pool_under_weights(x.contiguous(), weight.contiguous())
    torch.testing.assert_close(torch.stack(found), torch.stack(wanted))


def test_the_lowest_frequency_pools_to_the_global_average():
    x = torch.randn(2, 64, 5)
    basis = dct_basis(((0, 0),), 8, 8)
    mean, _, _ = pool_under_weights(x, basis.flatten(1).t()[None])
    torch.testing.assert_close(mean, x.mean(1) * basis[0, 0, 0])


@pytest.mark.parametrize("is_pruned", [False, True])
def test_gradient_of_the_poolings_is_that_of_the_definition(is_pruned):
    x = torch.randn(2, 30, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 30, 2, dtype=torch.float64, requires_grad=True)
    is_kept = torch.rand(2, 30) < 0.5 if is_pruned else None
    assert torch.autograd.gradcheck(lambda *given: pool_under_weights(*given, is_kept), (x, weight))


@pytest.mark.parametrize(
    ("weight", "is_kept"),
    [((1, 4, 2), None), ((3, 5, 2), None), ((1, 5, 0), None), ((1, 5, 2), (2, 4))],
)
def test_shapes_that_do_not_fit_are_refused(weight, is_kept):
    kept = None if is_kept is None else torch.ones(is_kept, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"weight \(B or 1, L, K\)"):
        pool_under_weights(torch.zeros(2, 5, 3), torch.zeros(weight), kept)
