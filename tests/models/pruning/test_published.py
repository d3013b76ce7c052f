"""Published token reduction, held to loops over single tokens written from the papers."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from cvmh.config import RunConfig
from cvmh.errors import ConfigError
from cvmh.models.cost import count_cost
from cvmh.models.encoders import create_encoder
from cvmh.models.mixer_block import MixerBlock
from cvmh.models.pruning import WHOLE, CellGrid, MaskedGrid
from cvmh.models.pruning.course import ReductionCourse
from cvmh.models.pruning.published import METHODS, ReductionSettings
from cvmh.models.pruning.tokens import NumberedGrid
from cvmh.models.ss2d import SS2D
from cvmh.models.zoo import create_model
from cvmh.settings import validate

DEPTH, LAYERS = 6, (2, 3, 5)
# What published PlainMamba weights need, and what the paper has.
FORMS = {
    "released": {"reorder_parameters": False, "double_dt_bias": True},
    "paper": {"reorder_parameters": True, "double_dt_bias": False},
}
IMAGE = (2, 3, 70, 80)


def plainmamba(form="released", **pruning):
    """Return a PlainMamba of some layers of which every parameter matters, in float64."""
    torch.manual_seed(0)
    settings = {"width": 8, "depth": DEPTH, "grid": 2, "drop_path": 0.0, "pyramid": False}
    made = create_encoder(
        *("plainmamba_l1",), **settings, **FORMS[form], pruning=pruning if pruning else None
    )
    return stirred(made)


def vmamba(generation="v2", **pruning):
    torch.manual_seed(0)
    settings = {"width": 4, "depths": (2, 1, 2, 1), "drop_path": 0.0, "generation": generation}
    made = create_encoder("vmamba_tiny_s1l8", **settings, pruning=pruning if pruning else None)
    return stirred(made)


def stirred(network):
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return network.double().eval()


def draw(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def snakes(height, width):
    rows = [(r, c if r % 2 == 0 else width - 1 - c) for r in range(height) for c in range(width)]
    columns = [
        (r if c % 2 == 0 else height - 1 - r, c) for c in range(width) for r in range(height)
    ]
    return [rows, rows[::-1], columns, columns[::-1]]


WAYS = {(0, 1): 1, (0, -1): 2, (-1, 0): 3, (1, 0): 4}


def mixed(mixer, x_HWC, kept, *, alignment):
    """Return y of the scans and what the mixer gives, token by token; pruned ones put nothing in.

    With alignment the scans walk over all tokens; without, over the kept ones as if there were no
    others.
    """
    height, width, _ = x_HWC.shape
    mask = torch.zeros(height, width, 1, dtype=torch.float64)
    for pixel in kept:
        mask[pixel] = 1
    signal, gate = mixer.in_proj(x_HWC).chunk(2, dim=-1)
    signal = mixer.conv((signal * mask).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    signal = functional.silu(signal) * mask
    raster = [(r, c) for r in range(height) for c in range(width)]
    if alignment == "none":
        raster = [pixel for pixel in raster if pixel in kept]
    bias = mixer.dt_bias[0] * (2 if mixer.double_dt_bias else 1)
    A, (rank, states) = -mixer.A_log[0].exp(), (mixer.dt_rank, mixer.d_state)
    y = torch.zeros_like(signal)
    for path in snakes(height, width):
        way = {b: WAYS[b[0] - a[0], b[1] - a[1]] for a, b in pairwise(path)} | {path[0]: 0}
        state = torch.zeros_like(A)
        walked = [pixel for pixel in path if alignment == "gap" or pixel in kept]
        for pixel, in_raster in zip(walked, raster, strict=True):
            giver = pixel if mixer.reorder_parameters else in_raster
            low, into, out = (mixer.x_proj_weight[0] @ signal[giver]).split([rank, states, states])
            dt = functional.softplus(low @ mixer.dt_weight[0] + bias)[:, None]
            into = into + mixer.direction_weight[way[pixel]]
            state = (dt * A).exp() * state + dt * into * signal[pixel][:, None]
            y[pixel] = y[pixel] + state @ out + mixer.D[0] * signal[pixel]
    return y, mixer.out_proj(y * functional.silu(gate))


SCORES = {
    None: lambda y, added: 0,
    "clipped_output": lambda y, added: sum(max(0.0, v) for v in y.tolist()),
    "output": lambda y, added: sum(y.tolist()),
    "l1": lambda y, added: sum(abs(v) for v in y.tolist()),
    "l2": lambda y, added: sum(v * v for v in y.tolist()) ** 0.5,
    "block_output": lambda y, added: sum(max(0.0, v) for v in added.tolist()),
}


def alike(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def reduce_by_loop(method, values, scores, num_kept):
    """Return where each token goes (to itself, another, or None), by the rule of a paper.

    Args:
        method: of which paper.
        values: by pixel, in raster order.
        scores: the same.
        num_kept: how many stay.
    """
    pixels = list(values)
    goals = {pixel: pixel for pixel in pixels}
    if method == "top":
        best = sorted(pixels, key=lambda pixel: -scores[pixel])[:num_kept]
        return {pixel: pixel if pixel in best else None for pixel in pixels}
    if method == "utr":
        ranked = sorted(pixels, key=lambda pixel: -scores[pixel])
        cut = len(pixels) - len(pixels) // 2
        sources, partners = ranked[cut:], ranked[:cut]
    else:
        sources, partners = pixels[::2], pixels[1::2]
    found = []
    for source in sources:
        partner = max(partners, key=lambda other: alike(values[source], values[other]))
        found.append((alike(values[source], values[partner]), source, partner))
    found.sort(key=lambda entry: -entry[0])
    goals |= {source: partner for _, source, partner in found[: len(pixels) - num_kept]}
    return goals


def simulate(network, image_CHW, *, method, keep, alignment, score="clipped_output"):
    """Return the maps behind the quarters, and how many tokens are left behind each layer."""
    x = network.tokeniser(image_CHW[None])
    x = (x + network._positions(*x.shape[1:3]))[0]
    height, width, _ = x.shape
    kept = [(r, c) for r in range(height) for c in range(width)]
    weights = dict.fromkeys(kept, 1.0)
    stands_for = {pixel: pixel for pixel in kept}
    behind, counts = [], []
    for number, layer in enumerate(network.layers, start=1):
        y, added = mixed(layer.mixer, layer.norm(x), kept, alignment=alignment)
        x = torch.stack(
            [
                torch.stack([x[r, c] + added[r, c] * ((r, c) in kept) for c in range(width)])
                for r in range(height)
            ]
        )
        if number == 1:
            x = network.local(x[None])[0]
        if number in LAYERS:
            scores = {p: SCORES[score](y[p], added[p]) for p in kept}
            num_kept = int(keep * len(kept) + 0.5)
            goals = reduce_by_loop(method, {p: x[p] for p in kept}, scores, num_kept)
            kept, x, weights = follow(goals, x, weights, is_weighted=method == "rmeeto")
            if method != "top":
                stands_for = {pixel: goals[owner] for pixel, owner in stands_for.items()}
        counts.append(len(kept))
        if number - 1 in network.ends:
            spread = torch.stack(
                [torch.stack([x[stands_for[r, c]] for c in range(width)]) for r in range(height)]
            )
            behind.append(spread)
    return behind, counts


def follow(goals, x, weights, *, is_weighted):
    x = x.clone()
    kept = [pixel for pixel, goal in goals.items() if goal == pixel]
    sums = {p: x[p] * weights[p] for p in kept}
    totals = {p: weights[p] for p in kept}
    for pixel, goal in goals.items():
        if goal is not None and goal != pixel:
            sums[goal] = sums[goal] + x[pixel] * weights[pixel]
            totals[goal] += weights[pixel]
    for pixel in kept:
        x[pixel] = sums[pixel] / totals[pixel]
    return kept, x, totals if is_weighted else dict.fromkeys(kept, 1.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alignment", ["gap", "none"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_its_loop_over_tokens(method, alignment, form):
    score = METHODS[method].score
    settings = {"method": method, "layers": LAYERS, "keep": 0.7, "alignment": alignment}
    network, image = plainmamba(form, **settings), draw(*IMAGE)
    with torch.no_grad():
        maps = network._quarters(image)
        for index in range(len(image)):
            wanted, counts = simulate(
                *(plainmamba(form), image[index]),
                **{"method": method, "keep": 0.7, "alignment": alignment, "score": score},
            )
            assert counts == [25, 18, 13, 13, 9, 9]
            for found, map_HWC in zip(maps, wanted, strict=True):
                torch.testing.assert_close(found[index], map_HWC, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("score", ["clipped_output", "output", "l1", "l2", "block_output"])
def test_scores_are_those_of_a_loop(score):
    network, image = plainmamba(layers=LAYERS, keep=0.5, score=score), draw(*IMAGE)
    with torch.no_grad():
        found = network._quarters(image)[-1][0]
        behind, _ = simulate(
            plainmamba(), image[0], method="top", keep=0.5, alignment="gap", score=score
        )
    torch.testing.assert_close(found, behind[-1], rtol=1e-9, atol=1e-10)


def test_the_mean_step_is_another_score():
    image = draw(*IMAGE)
    maps = [
        plainmamba(layers=LAYERS, keep=0.5, score=score)(image)[-1]
        for score in ("delta", "clipped_output")
    ]
    assert not torch.allclose(*maps)


def masks(case):
    kept = torch.zeros(2, 3, 5, dtype=torch.bool)
    if case == "random":
        kept = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(2)) < 0.5
        kept[1, 2] = False
    elif case == "one":
        kept[0, 1, 3] = kept[1, 2, 4] = True
    elif case == "one and none":
        kept[1, 0, 2] = True
    return kept


def through(blocks, tokens, grid):
    """Return maps behind blocks in a row, and the gradients of a weighted sum of them."""
    tokens = tokens.clone().requires_grad_()
    x = grid.take(tokens)
    for block in blocks:
        x = block(x, grid)
    maps = grid.put(x, tokens)
    weight = torch.arange(maps.numel()).view_as(maps).sin()
    wanted = [tokens, *(p for block in blocks for p in block.parameters())]
    return maps, torch.autograd.grad((maps * weight).sum(), wanted)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("case", ["random", "one", "one and none", "none"])
@pytest.mark.parametrize("form", [*FORMS, "v0", "v2"])
def test_blocks_on_kept_tokens_are_the_masked_ones(form, case, batch):
    if form in FORMS:
        blocks, side = list(plainmamba(form).layers[:3]), 1
    else:
        blocks, side = [*vmamba(form).stages[0]], 3
    kept = masks(case)[-batch:]
    channels = blocks[0].norm.normalized_shape[0]
    tokens = draw(batch, kept.shape[1] * side, kept.shape[2] * side, channels)
    maps, gradients = through(blocks, tokens, MaskedGrid(kept))
    found, others = through(blocks, tokens, CellGrid(kept))
    torch.testing.assert_close(found, maps, rtol=1e-12, atol=1e-12)
    for other, gradient in zip(others, gradients, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-11, atol=1e-11)
    dense, kept = tokens, torch.ones_like(kept)
    for block in blocks:
        dense = block(dense)
    torch.testing.assert_close(through(blocks, tokens, CellGrid(kept))[0], dense)


@pytest.mark.parametrize("alignment", ["gap", "none"])
def test_numbered_cells_are_cells(alignment):
    blocks, tokens = list(plainmamba().layers[:2]), draw(2, 3, 5, 8)
    cells = torch.tensor([[0, 3, 7, 8, 14], [1, 2, 3, 10, 11]])
    numbered = NumberedGrid(cells, rows=3, columns=5, alignment=alignment)
    grid = CellGrid(numbered.active_BGG, alignment=alignment)
    assert torch.equal(grid.active_BGG.flatten(1).nonzero()[:, 1].view(2, 5), cells)
    maps, gradients = through(blocks, tokens, grid)
    found, others = through(blocks, tokens, numbered)
    torch.testing.assert_close(found, maps, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(others, gradients, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        quick = [block(numbered.take(tokens), numbered) for block in blocks[:1]]
        slow = [block(grid.take(tokens), grid) for block in blocks[:1]]
    torch.testing.assert_close(quick, slow)


NETWORKS = {
    **{method: (plainmamba, {"method": method, "layers": LAYERS}) for method in METHODS},
    "vmamba v0": (lambda **pruning: vmamba("v0", **pruning), {"layers": (1, 3)}),
    "vmamba v2": (vmamba, {"layers": (1, 2, 4)}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_keeps_all_is_the_dense_one_bit_for_bit(name):
    make, settings = NETWORKS[name]
    image = draw(*IMAGE)
    for kept, dense in zip(make(**settings, keep=1)(image), make()(image), strict=True):
        assert torch.equal(kept, dense)
    ratio = 0.999 if name in METHODS else 0.99
    for kept, dense in zip(make(**settings, keep=ratio)(image), make()(image), strict=True):
        assert kept.shape == dense.shape


@pytest.mark.parametrize("name", NETWORKS)
def test_training_with_masks_gives_the_values_and_gradients_of_kept_tokens(name):
    make, settings = NETWORKS[name]
    network = make(**settings, keep=0.6, alignment="gap")
    image, results = draw(*IMAGE), []
    for is_masked in (False, True):
        # Batch norms stay as they are.
        network.training = is_masked
        maps = network(image)
        loss = sum((x * torch.arange(x.numel()).view_as(x).cos()).sum() for x in maps)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        results.append((maps, gradients))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_gets_nothing_from_the_others_of_its_batch(name):
    make, settings = NETWORKS[name]
    network, image = make(**settings, keep=0.5), draw(3, 3, 70, 80)
    with torch.no_grad():
        both, alone = network(image), network(image[1:2])
    for x, y in zip(both, alone, strict=True):
        torch.testing.assert_close(x[1:2], y, rtol=1e-10, atol=1e-10)


def test_vmamba_drops_the_cells_whose_best_token_is_worst():
    layers, keep = (1, 2, 4), 0.5
    image = draw(1, 3, 96, 128)
    with torch.no_grad():
        found = vmamba(layers=layers, keep=keep)(image)
        network, kept, number, wanted = vmamba(), torch.ones(1, 3, 4, dtype=torch.bool), 0, []
        seen = []
        for stage in network.stages:
            for block in stage:
                block.mixer.out_norm.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        x = network.stem(image)
        for index, stage in enumerate(network.stages):
            x = network.steps[index - 1](x) if index else x
            for block in stage:
                number += 1
                grid = MaskedGrid(kept)
                x = grid.put(block(x, grid), x)
                if number in layers:
                    kept = best_half(seen[-1][0].clamp(min=0).sum(-1), kept)
            wanted.append(network.norms[index](x).permute(0, 3, 1, 2))
    assert int(kept.sum()) == 2
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


def best_half(score_HW, kept_1GG):
    """Return the better half of kept cells, those of the highest maximum."""
    _, rows, columns = kept_1GG.shape
    side = score_HW.shape[0] // rows
    best = {
        (r, c): float(score_HW[side * r : side * (r + 1), side * c : side * (c + 1)].max())
        for r in range(rows)
        for c in range(columns)
        if kept_1GG[0, r, c]
    }
    chosen = sorted(best, key=lambda cell: -best[cell])[: int(0.5 * len(best) + 0.5)]
    result = torch.zeros_like(kept_1GG)
    for row, column in chosen:
        result[0, row, column] = True
    return result


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8, 1 / 24])
def test_ratios_are_exact_and_one_token_stays_at_least(keep):
    settings = ReductionSettings(layers=(1, 2, 3), keep=keep).completed(4)
    course = ReductionCourse(settings, rows=4, columns=6, is_masked=False)
    blocks = [
        MixerBlock(4, mixer=lambda channels: SS2D(channels, d_state=1)).eval() for _ in range(4)
    ]
    tokens, number, counts = torch.randn(3, 4, 6, 4), 24, []
    with torch.no_grad():
        for block in blocks:
            tokens = course.run([block], tokens)
            counts.append(24 if course.cells_BM is None else course.cells_BM.shape[1])
    wanted = []
    for _ in range(3):
        number = max(1, int(keep * number + 0.5))
        wanted.append(number)
    assert counts == [*wanted, number]
    assert course.grid is not WHOLE


def test_reductions_come_where_the_settings_say():
    completed = ReductionSettings().completed(24)
    assert (completed.layers, completed.keep) == ((5, 10, 15), 0.8)
    assert (completed.alignment, completed.score) == ("gap", "clipped_output")
    assert ReductionSettings().completed(36).layers == (7, 15, 22)
    assert ReductionSettings(method="rmeeto").completed(24).layers == tuple(range(2, 24, 2))
    # Of so few layers no more than there are.
    assert ReductionSettings(method="rmeeto").completed(4).layers == (1, 2, 3)


def test_fewer_tokens_cost_less():
    form = {"pyramid": False, "out_indices": (3,), "depth": 8, "width": 64}
    flops = {}
    for paper in (False, True):
        for pruning in (None, {"layers": (2, 4), "keep": 0.5}):
            with torch.device("meta"):
                network = create_encoder(
                    *("plainmamba_l3",), **form, reorder_parameters=paper, pruning=pruning
                )
            cost = count_cost(network, height=256, width=256, bands=3)
            flops[paper, pruning is None] = cost.flops
    # 2 layers run on all tokens, 2 on half and 4 on a quarter of them, so that half is saved but
    # for the convolution; scans cost 9 states and 1 for each of 4 paths.
    blocks = 8 * 256 * (64 * 256 + 128 * 64 + 128 * 36 + 4 * 128 + 128 * (9 * 16 + 1) * 4)
    assert flops[True, True] - flops[True, False] == pytest.approx(blocks / 2, rel=1e-6)
    # Where steps take dt, B and C in raster order, scans walk over all tokens.
    assert flops[True, False] < flops[False, False] < flops[False, True]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("plainmamba_l1", {"keep": 0}, "'pruning.keep': input should be greater than 0"),
        ("plainmamba_l1", {"keep": 1.5}, "'pruning.keep': input should be less than or equal to 1"),
        ("plainmamba_l1", {"layers": [3, 24]}, r"pruning.layers must be rising .* 1 to 23"),
        ("plainmamba_l1", {"layers": [8, 4]}, r"must be rising numbers .* got \[8, 4\]"),
        ("plainmamba_l1", {"layers": [0]}, r"1 to 23, behind which layers .* got \[0\]"),
        ("plainmamba_l1", {"method": "tome"}, "'pruning.method': input should be 'top', 'utr'"),
        ("plainmamba_l1", {"method": "utr", "keep": 0.4}, "keep must be at least 0.5 for utr"),
        ("plainmamba_l1", {"method": "rmeeto", "score": "l1"}, "score must be left out"),
        ("vmamba_tiny_s1l8", {"method": "utr"}, "pruning.method must be top .* got utr"),
        ("vmamba_tiny_s1l8", {"ratio": 0.5}, "unknown key 'pruning.ratio'"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, settings, message):
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        create_encoder(name, pruning=settings)


def test_a_network_of_smp_takes_the_settings_from_a_config():
    settings = {"encoder_settings": {"width": 16, "depth": 4, "pruning": {"layers": [2]}}}
    with pytest.raises(ConfigError, match=r"must keep the channels"):
        create_model("smp:upernet:cvmh-plainmamba_l1", num_classes=2, **settings)
    settings["encoder_settings"] = {"depth": 4, "pruning": {"layers": [2], "keep": 0.5}}
    config = validate(RunConfig, {"model": {"settings": settings}}, source="test")
    network = create_model(
        "smp:upernet:cvmh-plainmamba_l1", num_classes=2, **config.model.settings
    ).eval()
    assert network.encoder.model.reduction.layers == (2,)
    with torch.no_grad():
        assert network(torch.randn(1, 3, 50, 64)).shape == (1, 2, 50, 64)
