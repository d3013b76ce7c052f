import numpy as np
import pytest

from cvmh.geo.tiling import plan_tiles
from cvmh.predict.blend import ScoreBuffer
from cvmh.predict.infer import ScoredTile
from cvmh.predict.read import Tile


@pytest.mark.parametrize("height", [64, 640, 640_000])
def test_the_buffer_does_not_grow_with_the_height_of_the_scene(height):
    buffer = ScoreBuffer(plan_tiles(height, 300, tile=64, overlap=0.25), 6)
    assert buffer.scores_KHW.shape == (6, 64, 300)
    assert buffer.is_valid_HW.shape == (64, 300)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.7])
def test_scores_that_depend_on_place_only_survive_blending(overlap):
    plan = plan_tiles(90, 50, tile=32, overlap=overlap)
    rng = np.random.default_rng(0)
    scores = rng.random((3, 90, 50), dtype="float32")
    scores /= scores.sum(axis=0)
    is_valid = rng.random((90, 50)) > 0.3
    buffer, rows = ScoreBuffer(plan, 3), []
    for stripe in plan.stripes():
        for window in stripe.windows:
            place = (window.rows, window.columns)
            tile = Tile(
                window=window,
                pixels_CHW=np.zeros((1, 32, 32), "float32"),
                is_valid_HW=is_valid[place],
            )
            buffer.add(ScoredTile(tile, scores[:, *place]))
        rows.append(buffer.take_rows(stripe.end_final_row - stripe.first_final_row))
    expected = np.where(is_valid, scores.argmax(axis=0), 255)
    np.testing.assert_array_equal(np.concatenate(rows), expected)
    assert not buffer.scores_KHW.any() and not buffer.is_valid_HW.any()
