import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmh.errors import ConfigError
from cvmh.geo.tiling import Span, Window, blend_weights, plan_tiles, split_columns

# Small, and no deadline: the tiniest tiles with the largest overlap are many.
SIZES = st.integers(1, 120)
PLANS = st.builds(
    lambda height, width, tile, overlap: plan_tiles(height, width, tile=tile, overlap=overlap),
    SIZES,
    SIZES,
    st.integers(8, 128),
    st.floats(0, 0.8),
)


@settings(deadline=None)
@given(PLANS)
def test_tiles_cover_every_pixel_and_stay_inside(plan):
    seen = np.zeros((plan.height, plan.width), dtype=int)
    windows = [window for stripe in plan.stripes() for window in stripe.windows]
    for window in windows:
        assert window.row >= 0 and window.row + window.height <= plan.height
        assert window.column >= 0 and window.column + window.width <= plan.width
        seen[window.rows, window.columns] += 1
    assert seen.min() >= 1
    assert len(set(windows)) == len(windows) == plan.num_tiles


@settings(deadline=None)
@given(PLANS)
def test_all_tiles_have_one_size(plan):
    sizes = {(w.height, w.width) for stripe in plan.stripes() for w in stripe.windows}
    assert sizes == {(plan.tile_height, plan.tile_widths[0])}


@settings(deadline=None)
@given(PLANS)
def test_final_rows_follow_each_other_and_no_later_stripe_touches_them(plan):
    stripes = list(plan.stripes())
    end = 0
    for index, stripe in enumerate(stripes):
        assert stripe.row == end == stripe.windows[0].row
        end = stripe.end_final_row
        assert end <= stripe.windows[0].row + plan.tile_height
        assert all(later.windows[0].row >= end for later in stripes[index + 1 :])
    assert end == plan.height


@settings(deadline=None)
@given(PLANS)
def test_normalised_weights_sum_to_one_at_every_pixel(plan):
    weights = blend_weights(plan.tile_height, plan.tile_widths[0])
    total = np.zeros((plan.height, plan.width))
    windows = [window for stripe in plan.stripes() for window in stripe.windows]
    for window in windows:
        total[window.rows, window.columns] += weights
    assert total.min() > 0
    share = np.zeros_like(total)
    for window in windows:
        share[window.rows, window.columns] += weights / total[window.rows, window.columns]
    np.testing.assert_allclose(share, 1, rtol=1e-6)


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(1, 64), st.floats(0, 0.8))
def test_neighbours_overlap_at_least_as_much_as_asked(height, width, tile, overlap):
    plan = plan_tiles(height, width, tile=tile, overlap=overlap)
    for starts, side in ((plan.rows, plan.tile_height), (plan.columns[0], plan.tile_widths[0])):
        # A tile of one pixel cannot overlap its neighbour at all.
        assert all(step <= max(1, side * (1 - overlap)) for step in np.diff(starts))


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 512])
def test_weights_are_positive_symmetric_float32(size):
    weights = blend_weights(size, 5)
    assert weights.dtype == np.float32 and weights.shape == (size, 5)
    assert weights.min() > 0
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-4)


def test_a_raster_smaller_than_the_tile_is_one_tile_of_its_own_size():
    (stripe,) = plan_tiles(1, 7, tile=512, overlap=0.25).stripes()
    assert stripe.windows == (Window(0, 0, 1, 7),)


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0.2), (-5, 0.2), (8, 0.9), (8, -0.1)])
def test_settings_out_of_range_are_refused(tile, overlap):
    with pytest.raises(ConfigError, match="must be"):
        plan_tiles(10, 10, tile=tile, overlap=overlap)


def test_a_window_names_itself_for_error_messages():
    assert str(Window(3, 4, 10, 20)) == "rows 3..13, columns 4..24"


@settings(deadline=None)
@given(PLANS, st.integers(0, 119), st.integers(1, 120))
def test_a_stripe_within_a_span_has_just_the_tiles_that_meet_it(plan, first, length):
    span = Span(first, first + length)
    for stripe in plan.stripes():
        met = [w for w in stripe.windows if w.column < span.end and w.columns.stop > span.first]
        assert list(stripe.within(span).windows) == met


@settings(deadline=None)
@given(PLANS)
def test_the_stripes_that_touch_the_final_rows_of_another_are_known(plan):
    for stripe in plan.stripes():
        touching = [other.index for other in plan.stripes() if other.end_row > stripe.row]
        assert plan.first_touching(stripe.index) == touching[0]


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 600), st.sampled_from([1, 16, 256, 512]))
def test_spans_follow_each_other_and_are_no_wider_than_asked(width, widest, align):
    spans = split_columns(width, widest=widest, align=align)
    assert [span.first for span in spans] == [0, *(span.end for span in spans[:-1])]
    assert spans[-1].end == width
    assert all(0 < span.end - span.first <= widest for span in spans)


def test_a_resampled_scene_has_larger_tiles_and_wider_ones_where_its_pixels_are_narrower():
    plan = plan_tiles(
        1000, 4000, tile=64, overlap=0.25, magnify=lambda row: (2, 4 if row < 500 else 8)
    )
    assert plan.is_resampled and plan.tile_height == 128
    widths = [stripe.width for stripe in plan.stripes()]
    assert set(widths) == {256, 512} and widths == sorted(widths)
    assert {(s.input_height, s.input_width) for s in plan.stripes()} == {(64, 64)}
    seen = np.zeros((1000, 4000), dtype=bool)
    for stripe in plan.stripes():
        for window in stripe.windows:
            seen[window.rows, window.columns] = True
    assert seen.all()


def test_a_resampled_scene_smaller_than_a_tile_keeps_its_shape():
    (stripe,) = plan_tiles(30, 90, tile=64, overlap=0, magnify=lambda row: (3, 3)).stripes()
    assert (stripe.height, stripe.width) == (30, 90)
    assert (stripe.input_height, stripe.input_width) == (10, 30)
