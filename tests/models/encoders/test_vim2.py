"""ViM2: what we built of a paper without code, near its counts, and sound on any map."""

from itertools import pairwise

import pytest
import torch

from cvmh.models.channel_mixer import ChannelMixer
from cvmh.models.encoders import Classifier, create_encoder
from cvmh.models.encoders.vim2 import VIM2
from cvmh.models.feature_averaging import AveragedLayers

TINY = {"width": 8, "depths": (1, 2, 3, 1), "d_state": 2, "channel_states": 2, "drop_path": 0.0}
# Ours with the classifier, and how far the paper's rounded count may be from it.
COUNTS = {"vim2_tiny": 22_464_636, "vim2_small": 40_359_630, "vim2_base": 69_672_814}
TOLERANCE = 0.13


def make_tiny(**settings):
    torch.manual_seed(0)
    return create_encoder("vim2_tiny", **{**TINY, **settings}).eval()


@pytest.mark.parametrize("name", VIM2.variants)
def test_counts_are_those_of_the_page_and_near_the_papers(name):
    with torch.device("meta"):
        network = Classifier(create_encoder(name, out_indices=(3,)))
    count = sum(p.numel() for p in network.parameters())
    published = VIM2.variants[name].published
    assert count == COUNTS[name]
    assert not published.is_exact
    assert abs(count / published.parameters - 1) < TOLERANCE


@pytest.mark.parametrize("name", VIM2.variants)
def test_mixers_are_as_many_as_in_the_table_of_scales(name):
    with torch.device("meta"):
        encoder = create_encoder(name)
    depth = encoder.settings.depths[2]
    for stage, (tokens, channels) in zip(
        encoder.stages, [(2, 1), (2, 1), (depth, depth // 2), (2, 1)], strict=True
    ):
        (mixed,) = stage
        assert sum(len(row) for row in mixed.token_mixers) == tokens
        assert len(mixed.channel_mixers) == channels
    inner = [stage[0].channel_mixers[0].mixer.widen.out_features for stage in encoder.stages]
    width = encoder.settings.width
    assert inner == [2 * width, 4 * width, 8 * width, 8 * width]


def test_weights_do_not_depend_on_the_size_of_the_map():
    encoder = make_tiny()
    for height, width in [(33, 47), (65, 97), (250, 230), (1, 1)]:
        with torch.no_grad():
            maps = encoder(torch.randn(1, 3, height, width))
        sizes = [tuple(m.shape[1:]) for m in maps]
        expected = [(8 * 2**i, -(-height // (4 * 2**i)), -(-width // (4 * 2**i))) for i in range(4)]
        assert sizes == expected


@pytest.mark.parametrize("bands", [1, 10])
def test_it_takes_any_number_of_bands(bands):
    with torch.no_grad():
        assert len(make_tiny(bands=bands)(torch.randn(2, bands, 32, 64))) == 4


def test_averages_reach_back_over_the_layers_of_a_stage_and_no_further():
    encoder = make_tiny(depths=(1, 1, 4, 1), out_indices=(2,), start="tokens")
    (stage,) = encoder.stages[2]
    assert isinstance(stage, AveragedLayers)
    x = torch.randn(1, 3, 4, 32)
    with torch.no_grad():
        first = stage.token_mixers[0](x)
        second = stage.token_mixers[1](first)
        # The identity start: a chain of token mixers, then the last channel mixer.
        torch.testing.assert_close(stage(x), stage.channel_mixers[1](second))
        # A weight on the first channel mixer, and on what the stage was given.
        stage.beta[1][1], stage.gamma[1][0] = 0.5, 0.25
        second = stage.token_mixers[1](first + 0.5 * stage.channel_mixers[0](first))
        torch.testing.assert_close(stage(x), stage.channel_mixers[1](second + 0.25 * x))


def test_mixers_take_turns_at_the_start():
    (stage,) = make_tiny(depths=(1, 1, 4, 1)).stages[2]
    x = torch.randn(1, 3, 4, 32)
    with torch.no_grad():
        y = x
        for mixers in zip(stage.token_mixers, stage.channel_mixers, strict=True):
            for mix in mixers:
                y = mix(y)
        torch.testing.assert_close(stage(x), y)


@pytest.mark.parametrize("form", ["positions", "grid"])
def test_gradients_of_a_stage_are_right_on_a_map_that_is_not_square(form):
    encoder = make_tiny(width=4, depths=(2, 1, 1, 1), channel_forms=(form,) * 4)
    stage = encoder.stages[0].double()
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stage, (x,))


def test_every_parameter_learns_from_the_first_step_on():
    encoder = make_tiny().train()
    sum(m.square().mean() for m in encoder(torch.randn(2, 3, 64, 48))).backward()
    silent = [
        key
        for key, p in encoder.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert not silent


def test_stochastic_depth_rises_over_all_mixers():
    encoder = make_tiny(drop_path=0.3)
    rates = [m.rate for m in encoder.modules() if hasattr(m, "rate")]
    assert max(rates) == pytest.approx(0.3)
    assert min(rates) == 0
    by_stage = [[m.rate for m in stage.modules() if hasattr(m, "rate")] for stage in encoder.stages]
    assert all(max(before) < min(after) for before, after in pairwise(by_stage))


def test_lifts_of_scalars_are_not_silenced_by_the_initialisation():
    encoder = make_tiny()
    lifts = [
        m.scan.in_proj.weight
        for m in encoder.modules()
        if isinstance(m, ChannelMixer) and m.form == "positions"
    ]
    assert lifts
    assert all(lift.abs().max() > 0.3 for lift in lifts)


def test_bf16_autocast_is_finite():
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert all(m.isfinite().all() for m in make_tiny()(torch.randn(2, 3, 65, 97)))


def test_it_can_be_compiled_as_one_graph():
    encoder, image = make_tiny(), torch.randn(1, 3, 33, 47)
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for ours, expected in zip(compiled(image), encoder(image), strict=True):
            torch.testing.assert_close(ours, expected)
