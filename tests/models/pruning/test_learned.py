"""Networks that choose their cells: which they choose, and what becomes of the others."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cvmh import create_model
from cvmh.errors import ConfigError
from cvmh.models.cvmh_unet import CVMHUNetSettings
from cvmh.models.pruning import WHOLE, CellGrid, MaskedGrid
from cvmh.models.pruning.learned import Trace, enlarged
from cvmh.models.pruning.scores import (
    Meter,
    Threshold,
    best_cells,
    count_best,
    count_kept,
    in_full_blocks,
)
from cvmh.models.ss2d import SS2D

TINY = {
    "stem_widths": (4, 8),
    "widths": (8, 8, 12, 12),
    "encoder_depths": (2, 1, 2, 1),
    "decoder_depths": (2, 1, 1, 2),
    "d_state": 2,
    "expand": 1.0,
    "num_frequencies": 3,
    "drop_path": 0.0,
    "init_std": None,
}
ENDS = {"convolutional": {}, "patches": {"stem_widths": None}, "vss": {"block": "vss"}}
REINSERT = ("frozen", "null", "exit")
SCORES = [(score, "block") for score in ("clipped_output", "delta", "confidence")]
AT_ENTRY = [(score, "entry") for score in ("delta", "confidence")]
COMBINATIONS = [(score, r, at) for score, at in SCORES + AT_ENTRY for r in REINSERT]


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def network(
    score="clipped_output", reinsert="frozen", at="block", *, ends="convolutional", **settings
):
    torch.manual_seed(1)
    settings = {**TINY, **ENDS[ends], **settings}
    settings["pruning"] = {"score": score, "reinsert": reinsert, "at": at}
    made = create_model("cvmh_unet", bands=3, num_classes=4, **settings).double().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            # As if trained: zeros at pruned tokens must not stay zeros.
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_()
    for weight in made.pruner.parameters():
        nn.init.normal_(weight)
    return made


def mask(*rows):
    return torch.tensor(rows, dtype=torch.bool)


MASKS = {
    "all": torch.ones(2, 3, 3, dtype=torch.bool),
    "random": torch.stack(
        [mask([1, 0, 1], [0, 1, 1], [1, 1, 0]), mask([0, 1, 1], [0, 0, 0], [1, 0, 1])]
    ),
    "one and none": torch.stack([mask([0] * 3, [0, 1, 0], [0] * 3), mask(*[[0] * 3] * 3)]),
}


def results(made, image, grid, keep):
    """Return logits, which cells were chosen twice, and gradients of all that comes out."""
    image, trace = image.clone().requires_grad_(), Trace(answers=[])
    logits = made(image, grid, keep, trace)
    total = sum(out.square().sum() for out in (logits, *trace.answers))
    wanted = [image, *made.parameters()]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    pairs = zip(wanted, found, strict=True)
    gradients = [torch.zeros_like(w) if g is None else g for w, g in pairs]
    chosen = [grid.active_BGG for grid in (trace.encoder, trace.decoder)]
    return [logits.detach(), *trace.answers], chosen, gradients


def deviation(found, wanted):
    """Return the length of a difference in units of that of what was wanted."""
    pairs = [(f.flatten(), w.flatten()) for f, w in zip(found, wanted, strict=True)]
    left, right = (torch.cat(values) for values in zip(*pairs, strict=True))
    return float((left - right).detach().norm() / right.detach().norm().clamp(min=1e-30))


@pytest.mark.parametrize(
    ("score", "reinsert", "at", "case"),
    [(*names, "random") for names in COMBINATIONS]
    + [(*COMBINATIONS[0], "all"), (*COMBINATIONS[4], "one and none"), (*COMBINATIONS[8], "all")]
    + [(*COMBINATIONS[8], "one and none"), (*COMBINATIONS[10], "one and none")]
    + [(*COMBINATIONS[14], "one and none")],
)
def test_kept_cells_alone_give_values_and_gradients_of_the_masked_network(
    score, reinsert, at, case
):
    made = network(score, reinsert, at)
    # No multiples of 32.
    image = draw(2, 3, 90, 77)
    logits, chosen, gradients = results(made, image, MaskedGrid(MASKS[case]), 0.5)
    assert bool((chosen[0] <= MASKS[case]).all() and (chosen[1] <= MASKS[case]).all())
    for size in (None, 9) if case == "one and none" else (None,):
        found, others, slopes = results(made, image, CellGrid(MASKS[case], size=size), 0.5)
        assert all(torch.equal(*pair) for pair in zip(others, chosen, strict=True))
        assert deviation(found, logits) < 1e-12
        assert deviation(slopes, gradients) < 1e-11


@pytest.mark.parametrize(
    ("ends", "score", "at"),
    [(ends, *SCORES[0]) for ends in ENDS] + [("vss", *names) for names in AT_ENTRY],
)
def test_whole_tiles_are_masked_in_training_and_cut_to_cells_otherwise(ends, score, at):
    made = network(score, at=at, ends=ends)
    image, trace = draw(2, 3, 96, 64), Trace(answers=[])
    with torch.no_grad():
        wanted = made(image, MaskedGrid(torch.ones(2, 3, 2, dtype=torch.bool)), 0.7)
        torch.testing.assert_close(made(image, keep=0.7, trace=trace), wanted, rtol=0, atol=1e-12)
        assert isinstance(trace.encoder, CellGrid) and trace.encoder.num_cells == 4
        made.train()
        made(image, keep=0.7, trace=trace)
    assert isinstance(trace.encoder, MaskedGrid) and isinstance(trace.decoder, MaskedGrid)


def scores_of(block, x_BHWC, side):
    """Return the clipped output of a block, from what reaches the norm behind its scans."""
    seen = []
    mixer = block.scan.mixer
    handle = mixer.out_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    y = block(x_BHWC)
    handle.remove()
    batch, rows, columns = seen[0].shape[0], seen[0].shape[1] // side, seen[0].shape[2] // side
    score = torch.zeros(batch, rows, columns, dtype=torch.float64)
    for b in range(batch):
        for i in range(rows):
            for j in range(columns):
                cell = seen[0][b, i * side : (i + 1) * side, j * side : (j + 1) * side]
                score[b, i, j] = max(
                    sum(max(0.0, float(v)) for v in token) for token in cell.flatten(0, 1)
                )
    return y, score


def look(made, stage, x_BHWC, side, number):
    """Return what cells are scored by, their scores, and how many blocks that took."""
    settings = made.pruner.settings
    if settings.at == "block":
        return *scores_of(stage.blocks[0], x_BHWC, side), 1
    if settings.score == "delta":
        meter = Meter("delta")
        stage.blocks[0](x_BHWC, WHOLE, meter)
        tokens = meter.tokens_NHW
    else:
        tokens = 1 - made.pruner.heads[number](x_BHWC).softmax(-1).amax(-1)
    return x_BHWC, functional.max_pool2d(tokens[:, None], side)[:, 0], 0


def best(score_BGG, count):
    """Return the cells of the highest scores, found one by one."""
    kept = torch.zeros_like(score_BGG, dtype=torch.bool)
    for tile, score in zip(kept, score_BGG, strict=True):
        order = sorted(range(score.numel()), key=lambda k, s=score: (-float(s.flatten()[k]), k))
        tile.view(-1)[order[:count]] = True
    return kept


def spread(kept_BGG, side):
    return kept_BGG.repeat_interleave(side, 1).repeat_interleave(side, 2)[..., None]


def by_hand(made, image, count, reinsert):
    """Return the logits of a network whose blocks see masked maps, written out stage by stage."""
    x, finer = made.stem(image)
    skips = []

    def rest(stage, start, x, grid, first):
        for index, block in enumerate(stage.blocks):
            if index >= first:
                x = block(x, grid)
            if index % 2:
                x = start = start + x
        return x

    for level, stage in enumerate(made.encoder):
        skips.append(x)
        side = 8 >> level
        if level == 0:
            seen, score, first = look(made, stage, x, side, 0)
            kept = best(score, count)
            y, values = rest(stage, x, seen, MaskedGrid(kept), first), seen
        else:
            y, values = rest(stage, x, x, MaskedGrid(kept), 0), x
        x = torch.where(spread(kept, side), y, values)
        if level < 3:
            x = made.merge[level](x)
    grid = WHOLE
    if reinsert == "null":
        skips = [
            torch.where(spread(kept, 8 >> level), y, made.pruner.null[level])
            for level, y in enumerate(skips)
        ]
        x = torch.where(spread(kept, 1), x, made.pruner.null[3])
    if reinsert == "exit":
        grid = MaskedGrid(kept)
    for number, stage in enumerate(made.decoder):
        side = 1 << number
        if number:
            x = made.expand[number - 1](x)
        if reinsert == "exit":
            x = rest(stage, x, x, grid, 0)
        elif number == 0:
            scored, score, first = look(made, stage, x, side, 1)
            again = best(score, count)
            y = rest(stage, x, scored, MaskedGrid(again), first)
            x = torch.where(spread(again, side), y, scored)
        else:
            x = torch.where(spread(again, side), rest(stage, x, x, MaskedGrid(again), 0), x)
        fused = made.fuse[number](skips.pop().permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), grid)
        x = fused.permute(0, 2, 3, 1)
    logits = made.head(x, finer, grid)
    if reinsert != "exit":
        return logits
    answers = made.pruner.heads[0](seen)
    for b, i, j in (~kept).nonzero().tolist():
        small = answers[b : b + 1, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].permute(0, 3, 1, 2)
        large = functional.interpolate(small, scale_factor=4, mode="bilinear")
        logits[b : b + 1, :, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32] = large
    return logits


@pytest.mark.parametrize(("score", "reinsert", "at"), COMBINATIONS[:3] + COMBINATIONS[9::2])
def test_a_network_that_chooses_is_what_its_stages_give_one_after_the_other(score, reinsert, at):
    made = network(score, reinsert, at)
    image = draw(2, 3, 96, 96, seed=2)
    with torch.no_grad():
        wanted = by_hand(made, image, 4, reinsert)
        torch.testing.assert_close(made(image, keep=4 / 9), wanted, rtol=0, atol=1e-11)


def test_no_block_sees_all_cells_that_are_chosen_at_the_entry():
    made, sizes = network("confidence", at="entry"), []
    for stage in (*made.encoder, *made.decoder):
        for block in stage.blocks:
            block.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with torch.no_grad():
        made(draw(2, 3, 96, 96), keep=4 / 9)
    assert sizes == [2 * 4] * sum((*TINY["encoder_depths"], *TINY["decoder_depths"]))


@pytest.mark.parametrize(("score", "reinsert", "at"), COMBINATIONS)
def test_all_cells_are_the_dense_network_bit_by_bit(score, reinsert, at):
    made = network(score, reinsert, at)
    dense = create_model("cvmh_unet", bands=3, num_classes=4, **TINY).double().eval()
    weights = made.state_dict().items()
    dense.load_state_dict({key: value for key, value in weights if "pruner" not in key})
    image, trace = draw(1, 3, 64, 90), Trace(answers=[])
    with torch.no_grad():
        wanted = dense(image)
        assert torch.equal(made(image), wanted)
        assert torch.equal(made(image, keep=1.0, trace=trace), wanted)
    assert all(answers.shape == (1, 4, 64, 96) for answers in trace.answers)
    assert len(trace.answers) == len(made.pruner.heads)


@pytest.mark.parametrize("keep", [0.4, 0.95, 1.0])
@pytest.mark.parametrize(("score", "reinsert", "at"), COMBINATIONS)
def test_every_parameter_takes_part_in_each_step_of_training(score, reinsert, at, keep):
    made = network(score, reinsert, at).train()
    for grid in (WHOLE, MaskedGrid(MASKS["random"])):
        trace = Trace(answers=[])
        logits = made(draw(2, 3, 96, 96), grid, keep, trace)
        total = sum(out.square().sum() for out in (logits, *trace.answers))
        gradients = torch.autograd.grad(total, list(made.parameters()), allow_unused=True)
        assert all(gradient is not None for gradient in gradients)


def test_null_tokens_that_stand_nowhere_change_nothing():
    made, image = network(reinsert="null").train(), draw(2, 3, 96, 96)
    logits = made(image, keep=1.0, trace=Trace())
    for token in made.pruner.null:
        nn.init.constant_(token, torch.nan)
    assert torch.equal(made(image, keep=1.0, trace=Trace()), logits)
    total = made(image, keep=1.0, trace=Trace()).sum()
    assert not any(g.any() for g in torch.autograd.grad(total, list(made.pruner.null)))


def test_the_new_parts_leave_the_random_start_of_the_others_as_it_was():
    torch.manual_seed(0)
    dense = create_model("cvmh_unet", **TINY)
    torch.manual_seed(0)
    made = create_model("cvmh_unet", **TINY, pruning={"score": "confidence", "reinsert": "null"})
    weights = made.state_dict()
    assert all(torch.equal(weights[key], own) for key, own in dense.state_dict().items())


@pytest.mark.parametrize(("score", "at"), [SCORES[0], *AT_ENTRY])
def test_a_tile_is_the_same_whatever_is_beside_it(score, at):
    made = network(score, "null", at)
    image, active = draw(3, 3, 96, 96), torch.cat([MASKS["random"], MASKS["all"][:1]])
    with torch.no_grad():
        together = made(image, CellGrid(active), 0.6)
        for index in range(3):
            alone = made(image[index : index + 1], CellGrid(active[index : index + 1]), 0.6)
            torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-12)


def test_cells_that_close_ranks_do_so_among_the_chosen_too():
    made = network()
    trace, image = Trace(answers=[]), draw(1, 3, 96, 96)
    grids = [CellGrid(MASKS["all"][:1], alignment=way) for way in ("gap", "none")]
    with torch.no_grad():
        aligned, closed = (made(image, grid, 0.5, trace) for grid in grids)
    assert trace.encoder.alignment == trace.decoder.alignment == "none"
    assert float((aligned - closed).abs().max()) > 1e-6


def test_the_best_are_those_of_the_highest_scores_the_first_of_equal_ones():
    score = torch.randint(0, 4, (5, 4, 6), generator=torch.Generator().manual_seed(0)).double()
    everywhere = torch.ones(5, 4, 6, dtype=torch.bool)
    for keep in (0.01, 0.3, 0.5, 0.99, 1.0):
        found = best_cells(score, everywhere, count_best(score, everywhere, keep))
        assert torch.equal(found, best(score, count_kept(24, keep)))
    active = score > 0
    found = best_cells(-score, active, count_best(-score, active, 0.5))
    for tile, values, there in zip(found, -score, active, strict=True):
        assert int(tile.sum()) == count_kept(int(there.sum()), 0.5)
        assert not bool((tile & ~there).any())
        assert float(values[tile].min()) >= float(values[there & ~tile].max())


def test_a_threshold_counts_what_reaches_it_within_its_bounds():
    score = torch.tensor([[5, 4, 3, 2], [0, 0, 0, 0], [9, 9, 9, 0], [9, 0, 0, 0]]).double()[:, None]
    active = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()[:, None]
    keep = Threshold(score=4, least=0.25, most=0.7)
    assert count_best(score, active, keep).tolist() == [2, 1, 4, 0]


@pytest.mark.parametrize(("score", "reinsert", "at"), COMBINATIONS)
def test_with_a_threshold_each_tile_keeps_what_it_would_keep_alone(score, reinsert, at):
    made = network(score, reinsert, at)
    image, trace = draw(3, 3, 96, 96, seed=3), Trace()
    with torch.no_grad():
        made(image, keep=1.0, trace=trace)
        found = trace.score_BGG.flatten().sort().values
        # Between two scores, so that rounding decides nothing.
        keep = Threshold(score=float(found[12:14].mean()), least=0.2, most=0.8)
        together = made(image, keep=keep, trace=trace)
        kept = trace.encoder.active_BGG.flatten(1).sum(1).tolist()
        assert sum(kept) < 27
        for index, count in enumerate(kept):
            alone = made(image[index : index + 1], keep=count / 9)
            torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-11)
        everything = torch.ones(3, 3, 3, dtype=torch.bool)
        masked = made(image, MaskedGrid(everything), keep)
        torch.testing.assert_close(masked, together, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("num_tiles", "side"), [(2, 256), (2, 224), (3, 192), (5, 160), (9, 96)])
def test_with_a_threshold_a_tile_gets_the_same_bits_beside_nothing(num_tiles, side):
    made = network(reinsert="null").float()
    image, trace = draw(num_tiles, 3, side, side).float(), Trace()
    with torch.no_grad():
        made(image, keep=1.0, trace=trace)
        # Every tile keeps all, but those without data do not.
        keep = Threshold(score=0.999 * float(trace.score_BGG.min()), least=0.25, most=0.8)
        together = made(image, keep=keep, trace=trace)
        assert trace.counts_B.tolist() == [(side // 32) ** 2] * num_tiles
        for place in range(num_tiles):
            lonely = torch.zeros_like(image)
            lonely[place] = image[place]
            found = made(lonely, keep=keep, trace=trace)[place]
            assert int(trace.counts_B.amin()) < int(trace.counts_B.amax())
            assert torch.equal(found, together[place])


def test_blocks_of_rows_are_filled_by_as_few_cells_as_that_takes():
    for tiles in (1, 2, 3, 6, 8, 32, 40):
        for most in range(1, 65):
            wanted = next(n for n in range(most, most + 32) if n * tiles % 32 == 0)
            assert in_full_blocks(most, tiles) == wanted


@pytest.mark.parametrize(
    ("num_cells", "keep", "kept"),
    [(64, 0.7, 45), (64, 1.0, 64), (9, 0.5, 5), (2, 0.01, 1), (1, 0.3, 1), (0, 0.5, 0)],
)
def test_a_share_is_rounded_and_no_less_than_one(num_cells, keep, kept):
    assert count_kept(num_cells, keep) == kept


@pytest.mark.parametrize(
    "settings",
    [{}, {"proj_bias": True}, {"is_gated": False, "conv_size": (1, 2), "is_causal": True}],
)
def test_the_mean_step_is_that_of_all_paths_and_channels(settings):
    torch.manual_seed(0)
    mixer = SS2D(6, d_state=2, dt_rank=2, expand=1.0, **settings).double()
    x, meter = draw(2, 3, 4, 6), Meter("delta")
    seen = []
    handle = mixer.conv.register_forward_hook(lambda *parts: seen.append(parts[2]))
    mixer(x, WHOLE, meter)
    handle.remove()
    signal = functional.silu(seen[0][..., :4]).permute(0, 2, 3, 1)
    wanted = torch.zeros(2, 3, 4, dtype=torch.float64)
    paths = mixer.dt_bias.shape[0]
    for path in range(paths):
        low = signal @ mixer.x_proj_weight[path, :2].T
        step = functional.softplus(low @ mixer.dt_weight[path] + mixer.dt_bias[path])
        wanted += step.detach().mean(-1) / paths
    torch.testing.assert_close(meter.tokens_NHW, wanted)
    torch.testing.assert_close(mixer.steps(x), wanted)
    assert not meter.tokens_NHW.requires_grad


@pytest.mark.parametrize("bias", [-30.0, 0.0, 18.0, 22.0, 30.0, 1e4])
def test_the_mean_step_is_finite_whatever_the_steps(bias):
    mixer = SS2D(6, d_state=2, dt_rank=2, expand=1.0)
    nn.init.constant_(mixer.dt_bias, bias)
    x = draw(2, 3, 4, 6)
    found = mixer.steps(x.float())
    signal = mixer.double()._convolve(mixer.in_proj(x)[..., :6], WHOLE)
    low = torch.einsum("bhwd,krd->bhwkr", signal, mixer.x_proj_weight[:, :2])
    steps = torch.einsum("bhwkr,krd->bhwkd", low, mixer.dt_weight) + mixer.dt_bias
    wanted = functional.softplus(steps).mean((-1, -2))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_maps_are_enlarged_cell_by_cell():
    tokens = draw(1, 8, 16, 5)
    large = enlarged(tokens, 8)
    for j in range(2):
        cell = tokens[:, :, 8 * j : 8 * j + 8].permute(0, 3, 1, 2)
        wanted = functional.interpolate(cell, size=(32, 32), mode="bilinear")
        torch.testing.assert_close(large[:, :, 32 * j : 32 * j + 32].permute(0, 3, 1, 2), wanted)
    single = draw(1, 1, 1, 5)
    torch.testing.assert_close(enlarged(single, 1), single.expand(1, 32, 32, 5))


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(keep):
    with pytest.raises(ConfigError, match="keep must be above 0 and at most 1, got"):
        network()(draw(1, 3, 32, 32), keep=keep)


def test_a_network_that_was_not_trained_to_choose_is_refused():
    dense = create_model("cvmh_unet", **TINY).eval()
    with pytest.raises(ConfigError, match=r"keep=0.5: this network was not trained to choose"):
        dense(torch.zeros(1, 3, 32, 32), keep=0.5)
    assert dense(torch.zeros(1, 3, 32, 32), keep=1.0).shape == (1, 6, 32, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dct_size": "fixed"}, 'pruning is not possible: dct_size "fixed" pools whole maps'),
        ({"encoder_depths": (0, 1, 1, 1)}, "pruning needs a block in the finest stage"),
        ({"decoder_depths": (0, 1, 1, 1)}, "pruning needs a block in the finest stage"),
        ({"pruning": {"score": "norm"}}, "'clipped_output', 'delta' or 'confidence'"),
        ({"pruning": {"at": "entry"}}, r'"entry" scores cells before .*set score to "confidence"'),
    ],
)
def test_settings_that_cannot_choose_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        create_model("cvmh_unet", **{**TINY, "pruning": {}, **settings})


def test_fixed_maps_have_no_cells():
    made = create_model("cvmh_unet", **TINY, dct_size="fixed")
    with pytest.raises(ConfigError, match='no cells can be left out: dct_size "fixed"'):
        made(torch.zeros(1, 3, 32, 32), MaskedGrid(torch.ones(1, 1, 1, dtype=torch.bool)))


def test_settings_without_pruning_are_those_of_before():
    assert CVMHUNetSettings().pruning is None
    keys = create_model("cvmh_unet", **TINY).state_dict()
    assert not any(key.startswith("pruner") for key in keys)
