"""Kept cells alone give what the masked network gives, and both what the dense one gives."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cvmh import create_model
from cvmh.errors import ShapeError
from cvmh.models.cvss import CVSSBlock
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.pruning import WHOLE, CellGrid, MaskedGrid
from cvmh.models.ss2d import SS2D

TINY = {
    "widths": (8, 8, 12, 12),
    "encoder_depths": (2, 1, 1, 1),
    "decoder_depths": (1, 1, 1, 2),
    "d_state": 2,
    "num_frequencies": 3,
    "drop_path": 0.0,
    "init_std": None,
}
NETWORKS = {
    "paper": {},
    "convolutional ends": {"stem_widths": (4, 8)},
    "vss": {"block": "vss", "scan": "ss2d", "fusion": "add"},
    "aff": {"fusion": "aff", "line_order": "figure"},
}


def network(name, dtype=torch.float64, **settings):
    made = create_model("cvmh_unet", bands=3, num_classes=4, **TINY, **NETWORKS[name], **settings)
    made = made.to(dtype).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            # As if trained: zeros at pruned tokens must not stay zeros.
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_()
    return made


def masks(case):
    """Return which of 3 x 2 cells of two tiles are kept."""
    kept = torch.zeros(2, 3, 2, dtype=torch.bool)
    if case == "random":
        kept[0] = torch.tensor([[1, 0], [0, 1], [1, 1]])
        kept[1] = torch.tensor([[0, 1], [0, 0], [0, 1]])
    elif case == "one":
        kept[0, 1, 1] = kept[1, 2, 0] = True
    elif case == "one and none":
        kept[1, 0, 1] = True
    elif case == "all":
        kept[:] = True
    return kept


def results(made, image, grid):
    """Return the logits, and the gradients of a sum of their squares."""
    image = image.clone().requires_grad_()
    logits = made(image, grid)
    wanted = [image, *made.parameters()]
    found = torch.autograd.grad(logits.square().sum(), wanted, allow_unused=True)
    pairs = zip(wanted, found, strict=True)
    return logits.detach(), [torch.zeros_like(w) if g is None else g for w, g in pairs]


def deviation(found, wanted):
    """Return the length of a difference in units of that of what was wanted."""
    pairs = [(f.flatten(), w.flatten()) for f, w in zip(found, wanted, strict=True)]
    left, right = (torch.cat(values) for values in zip(*pairs, strict=True))
    return float((left - right).detach().norm() / right.detach().norm().clamp(min=1e-30))


@pytest.mark.parametrize("case", ["random", "one", "one and none", "none", "all"])
@pytest.mark.parametrize("name", NETWORKS)
def test_cells_give_the_values_and_gradients_of_the_masked_network(name, case):
    made = network(name)
    # No multiples of 32.
    image = torch.randn(2, 3, 90, 45, dtype=torch.float64)
    logits, gradients = results(made, image, MaskedGrid(masks(case)))
    found, others = results(made, image, CellGrid(masks(case)))
    assert deviation([found], [logits]) < 1e-12
    assert deviation(others, gradients) < 1e-11


def test_in_float32_they_are_as_near_as_sums_in_another_order():
    made = network("convolutional ends", torch.float32)
    image = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        logits, found = (made(image, kind(masks("random"))) for kind in (MaskedGrid, CellGrid))
    assert deviation([found], [logits]) < 1e-5


def test_networks_of_16_bit_give_the_same_but_for_rounding():
    made = network("convolutional ends", torch.bfloat16)
    image = torch.randn(2, 3, 96, 64).bfloat16()
    with torch.no_grad():
        logits, found = (made(image, kind(masks("random"))) for kind in (MaskedGrid, CellGrid))
    assert found.isfinite().all()
    assert deviation([found.float()], [logits.float()]) < 0.02


@pytest.mark.parametrize("kind", [MaskedGrid, CellGrid])
@pytest.mark.parametrize("name", NETWORKS)
def test_with_all_cells_kept_it_is_the_dense_network(name, kind):
    made = network(name)
    image = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        dense, kept = made(image), made(image, kind(masks("all")))
    assert deviation([kept], [dense]) < 1e-12


@pytest.mark.parametrize("kind", [MaskedGrid, CellGrid])
def test_what_is_pruned_is_looked_at_nowhere(kind):
    made = network("paper")
    image = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    pruned = ~masks("random").repeat_interleave(32, 1).repeat_interleave(32, 2)
    other = image.masked_fill(pruned[:, None], 1e3)
    first, second = (made(value, kind(masks("random"))) for value in (image, other))
    assert torch.equal(first, second)
    assert not first.detach().masked_select(pruned[:, None]).any()


def test_a_tile_gets_nothing_from_the_others_of_its_batch():
    made = network("convolutional ends")
    image = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    both = made(image, CellGrid(masks("random")))
    padded = made(image, CellGrid(masks("random"), size=6))
    assert deviation([padded], [both]) < 1e-12
    for index in range(2):
        alone = made(image[index : index + 1], CellGrid(masks("random")[index : index + 1]))
        assert deviation([alone[0]], [both[index]]) < 1e-12


@pytest.mark.parametrize("kind", [MaskedGrid, CellGrid])
def test_batch_norms_in_training_see_kept_tokens_only(kind):
    norm = nn.BatchNorm2d(5).double()
    grid = kind(masks("random"))
    maps = torch.randn(2, 5, 6, 4, dtype=torch.float64)
    tokens = maps.permute(0, 2, 3, 1)
    kept = masks("random").repeat_interleave(2, 1).repeat_interleave(2, 2)
    reference = copy.deepcopy(norm)
    wanted = reference(tokens[kept].t()[None, :, :, None])[0, :, :, 0].t()
    inner = grid.take(tokens).permute(0, 3, 1, 2)
    found = grid.put(grid.normalise(norm, inner).permute(0, 2, 3, 1))
    torch.testing.assert_close(found[kept], wanted)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("kind", [MaskedGrid, CellGrid])
def test_means_are_those_of_kept_tokens(kind):
    grid = kind(masks("one and none"))
    tokens = torch.randn(2, 12, 8, 3) - 5
    found = grid.mean(grid.take(tokens).permute(0, 3, 1, 2))
    wanted = tokens[1, :4, 4:].flatten(0, 1).mean(0)
    torch.testing.assert_close(found, torch.stack([torch.zeros(3), wanted]))


@pytest.mark.parametrize("kind", [MaskedGrid, CellGrid])
@pytest.mark.parametrize("mask", ["random", "one and none", "all"])
def test_kept_tokens_are_told_beside_their_rows(mask, kind):
    kept = masks(mask).repeat_interleave(4, 1).repeat_interleave(4, 2)
    tokens = torch.arange(1, 2 * 12 * 8 + 1).view(2, 12, 8, 1)
    grid = kind(masks(mask))
    inner = grid.take(tokens)
    rows, is_kept = grid.flatten(inner)[..., 0], grid.kept_tokens(inner)
    for tile in range(2):
        found = rows[tile] if is_kept is None else rows[tile][is_kept[tile]]
        assert sorted(found.tolist()) == tokens[tile][kept[tile]].flatten().tolist()


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (5, 1), (7, 1), (3, 2)])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("side", [2, 4, 8])
@pytest.mark.parametrize("is_predicting", [False, True])
def test_convolutions_see_zeros_at_pruned_tokens(is_predicting, side, groups, size, stride):
    conv = nn.Conv2d(4, 4, size, stride=stride, padding=size // 2, groups=groups)
    kept = masks("random").repeat_interleave(side, 1).repeat_interleave(side, 2)
    tokens = torch.randn(2, 3 * side, 2 * side, 4)
    wanted = functional.conv2d(
        (tokens * kept[..., None]).permute(0, 3, 1, 2),
        *(conv.weight, conv.bias),
        stride=stride,
        padding=size // 2,
        groups=groups,
    ).permute(0, 2, 3, 1)
    for grid in (MaskedGrid(masks("random")), CellGrid(masks("random"))):
        inner = grid.take(tokens).permute(0, 3, 1, 2)
        # Kernels run where no gradient is wanted.
        with torch.set_grad_enabled(not is_predicting):
            found = grid.put(grid.convolve(conv, inner).permute(0, 2, 3, 1))
        assert torch.equal(found.any(-1), kept[:, ::stride, ::stride])
        inside = kept[:, ::stride, ::stride]
        torch.testing.assert_close(found[inside], wanted[inside])


@pytest.mark.parametrize("paths", ["ss2d", "cs2d", "snake", "single"])
@pytest.mark.parametrize("block", [MixerBlock, CVSSBlock])
def test_blocks_in_a_row_are_equal_along_all_paths(block, paths):
    def mixer(channels):
        return SS2D(channels, d_state=3, paths=paths, has_directions=paths == "snake")

    blocks = [block(16, mixer=mixer).double().eval() for _ in range(3)]
    for parameter in (p for one in blocks for p in one.parameters()):
        # Decays and steps that matter.
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    tokens = torch.randn(2, 12, 8, 16, dtype=torch.float64)
    found = []
    for grid in (MaskedGrid(masks("random")), CellGrid(masks("random"))):
        x = grid.take(tokens)
        for one in blocks:
            x = one(x, grid)
        found.append(grid.put(x, tokens))
    assert deviation(found[1:], found[:1]) < 1e-12


def test_closing_ranks_gives_something_else():
    made = network("vss")
    image = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    logits = made(image, MaskedGrid(masks("random")))
    compact = made(image, CellGrid(masks("random"), alignment="none"))
    assert not torch.allclose(compact, logits, rtol=1e-6)
    whole = made(image, CellGrid(masks("all"), alignment="none"))
    assert deviation([whole], [made(image, WHOLE)]) < 1e-12


@pytest.mark.parametrize("kind", [MaskedGrid, CellGrid])
def test_a_grid_inside_a_grid_takes_and_puts_its_own_tokens(kind):
    outer = kind(masks("random"))
    active = masks("random") & torch.tensor([[1, 0], [0, 0], [0, 1]]).bool()
    inner = kind(active)
    maps = torch.randn(2, 12, 8, 5)
    x = outer.take(maps)
    changed = outer.put(inner.put(inner.take(x, outer) + 10, x, outer), maps)
    kept = active.repeat_interleave(4, 1).repeat_interleave(4, 2)[..., None]
    torch.testing.assert_close(changed, maps + 10 * kept)


def test_a_size_that_a_tile_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"at least 4, got 2"):
        CellGrid(masks("random"), size=2)
