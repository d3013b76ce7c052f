import numpy as np
import pytest
import torch

from cvmh.geo.tiling import Span, blend_weights, plan_tiles
from cvmh.predict.blend import Planes, ScoreBuffer
from cvmh.predict.read import Tile
from cvmh.predict.scored import ScoredTile, best_class

ALL = Planes(confidence=True, scores="float16")


def blend(plan, scores, is_valid, span=None, planes=ALL, tile_scores=None):
    """Return the planes of a span, blended from tiles cut out of whole arrays of scores."""
    span = span or Span(0, plan.width)
    buffer, pieces = ScoreBuffer(plan, span, len(scores), planes), []
    found = None
    for stripe in plan.stripes():
        for window in stripe.within(span).windows:
            place = (window.rows, window.columns)
            own = scores if tile_scores is None else tile_scores(window, scores)
            ids = own[:, *place].argmax(axis=0).astype("uint8")
            ids[~is_valid[place]] = 255
            tile = Tile(
                stripe=stripe.index,
                window=window,
                pixels_CHW=np.zeros((1, 1, 1), "float32"),
                is_valid_HW=is_valid[place],
                input_size=(window.height, window.width),
            )
            if is_valid[place].any():
                scored = ScoredTile(tile, torch.from_numpy(own[:, *place].copy()), ids)
                buffer.add(scored, is_counted=True)
        record = buffer.take(stripe)
        for piece in record.pieces:
            if found is None:
                found = [
                    np.full((*plane.shape[:-2], plan.height, plan.width), 255, plane.dtype)
                    for plane in piece.planes
                ]
            for whole, plane in zip(found, piece.planes, strict=True):
                rows = slice(stripe.row, stripe.end_final_row)
                whole[..., rows, piece.column : piece.column + plane.shape[-1]] = plane
        pieces.append(record)
    assert not buffer.scores_KHW.any() and not buffer.is_valid_HW.any()
    return found, pieces


@pytest.fixture
def field():
    """Return scores (3, 90, 700) that sum to one, and where they count."""
    rng = np.random.default_rng(0)
    scores = rng.random((3, 90, 700), dtype="float32")
    scores /= scores.sum(axis=0)
    return scores, rng.random((90, 700)) > 0.3


@pytest.mark.parametrize("height", [64, 640, 640_000])
def test_the_buffer_does_not_grow_with_the_height_of_the_scene(height):
    plan = plan_tiles(height, 300, tile=64, overlap=0.25)
    buffer = ScoreBuffer(plan, Span(0, 300), 6, ALL)
    assert buffer.scores_KHW.shape == (6, 64, 300)
    assert buffer.is_valid_HW.shape == (64, 300)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.7])
def test_scores_that_depend_on_place_only_survive_blending(field, overlap):
    scores, is_valid = field
    plan = plan_tiles(90, 700, tile=32, overlap=overlap)
    (ids, confidence, kept), _ = blend(plan, scores, is_valid)
    np.testing.assert_array_equal(ids, np.where(is_valid, scores.argmax(axis=0), 255))
    expected = np.where(is_valid, np.rint(scores.max(axis=0) * 254), 255)
    assert np.abs(confidence.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(confidence == 255, ~is_valid)
    np.testing.assert_allclose(kept[:, is_valid], scores[:, is_valid], atol=1e-3)
    assert np.isnan(kept[:, ~is_valid]).all()


def test_scores_are_the_means_over_the_valid_tiles_weighted_by_the_window(field):
    scores, is_valid = field
    plan = plan_tiles(90, 700, tile=32, overlap=0.4)
    # Tiles without data are no part of the mean.
    is_valid[:40, 100:300] = False

    def own(window, scores):
        rng = np.random.default_rng(window.row * 1000 + window.column)
        random = rng.random(scores.shape, dtype="float32")
        return random / random.sum(axis=0)

    (ids, _, kept), _ = blend(plan, scores, is_valid, tile_scores=own)
    total = np.zeros((3, 90, 700))
    for stripe in plan.stripes():
        for window in stripe.windows:
            place = (window.rows, window.columns)
            if is_valid[place].any():
                weights = blend_weights(window.height, window.width).astype("float64")
                total[:, *place] += weights * own(window, scores)[:, *place]
    means = total[:, is_valid] / total[:, is_valid].sum(axis=0)
    np.testing.assert_allclose(kept[:, is_valid], means, atol=1e-3)
    best = np.sort(means, axis=0)
    is_clear = best[-1] - best[-2] > 1e-5
    np.testing.assert_array_equal(ids[is_valid][is_clear], means.argmax(axis=0)[is_clear])


@pytest.mark.parametrize("widest", [40, 256, 300])
def test_spans_of_columns_give_the_same_bits_and_count_the_same_seams(field, widest):
    scores, is_valid = field
    is_valid[:, 320:520] = False
    plan = plan_tiles(90, 700, tile=32, overlap=0.4)

    def own(window, scores):
        rng = np.random.default_rng(window.row * 1000 + window.column)
        random = rng.random(scores.shape, dtype="float32")
        return random / random.sum(axis=0)

    whole, records = blend(plan, scores, is_valid, tile_scores=own)
    pairs = sum(np.array(record.facts["pairs"]) for record in records)
    tiles = sum(record.facts["tiles"] for record in records)
    for first in range(0, 700, widest):
        span = Span(first, min(first + widest, 700))
        part, records = blend(plan, scores, is_valid, span, tile_scores=own)
        pairs -= sum(np.array(record.facts["pairs"]) for record in records)
        tiles -= sum(record.facts["tiles"] for record in records)
        if part is not None:
            for one, other in zip(whole, part, strict=True):
                np.testing.assert_array_equal(
                    one[..., span.first : span.end], other[..., span.first : span.end]
                )
    assert not pairs.any() and tiles == 0


def test_the_best_class_is_the_first_of_equals():
    scores = np.array([[0.2, 0.4, 0.1], [0.4, 0.4, 0.1], [0.4, 0.2, 0.8]], "float32")[:, None]
    ids, best = best_class(scores)
    np.testing.assert_array_equal(ids, scores.argmax(axis=0))
    np.testing.assert_array_equal(best, scores.max(axis=0))
