"""Seams are counted in the overlaps; here once more, pixel by pixel, from the tiles alone."""

import numpy as np
import pytest
import torch

from cvmh.classes import ISPRS
from cvmh.geo.tiling import Span, plan_tiles, split_columns
from cvmh.predict import predict_raster
from cvmh.predict.blend import Planes, ScoreBuffer
from cvmh.predict.read import Tile
from cvmh.predict.scored import ScoredTile
from cvmh.predict.seams import WORST, summarise

SHAPE = 80, 90


class Wide(torch.nn.Module):
    """Gives classes by the mean of the whole tile, so that neighbours disagree all over."""

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return torch.cat([(x[:, :1] * 0 + mean * k * 40).sin() for k in range(6)], dim=1)


def scored_tiles(plan, is_data):
    """Return a tile a window that holds data, by stripe, with classes of its own."""
    found = []
    for stripe in plan.stripes():
        for window in stripe.windows:
            place = window.rows, window.columns
            if not is_data[place].any():
                continue
            rng = np.random.default_rng(window.row * 1000 + window.column)
            ids = rng.choice(6, (window.height, window.width), p=[0.5, 0.3, 0.1, 0.05, 0.05, 0])
            ids = np.where(is_data[place], ids, 255).astype("uint8")
            scores = torch.from_numpy(np.eye(6, dtype="float32")[ids % 6].transpose(2, 0, 1).copy())
            tile = Tile(
                stripe=stripe.index,
                window=window,
                pixels_CHW=np.zeros((1, 1, 1), "float32"),
                is_valid_HW=is_data[place],
                input_size=(window.height, window.width),
            )
            found.append(ScoredTile(tile, scores, ids))
    return found


def counted(plan, tiles, widest):
    """Return the facts of all stripes of all spans."""
    facts = []
    for span in split_columns(plan.width, widest=widest):
        buffer = ScoreBuffer(plan, Span(*span), 6, Planes())
        for stripe in plan.stripes():
            columns = stripe.within(span).columns
            for scored in tiles:
                if scored.tile.stripe == stripe.index and scored.tile.window.column in columns:
                    buffer.add(scored, is_counted=True)
            facts.append(buffer.take(stripe).facts)
    return facts


def by_hand(plan, tiles):
    """Compare each pixel of each tile with the tile that covered it just before."""
    before = np.full(SHAPE, 255, int)
    pairs, borders = np.zeros((6, 6), int), {}
    last = (-1, None)
    for scored in tiles:
        window = scored.tile.window
        left_end = last[1] if last[0] == scored.tile.stripe else window.column
        for row in range(window.height):
            for column in range(window.width):
                place = window.row + row, window.column + column
                now = scored.ids_HW[row, column]
                if now == 255:
                    continue
                if before[place] != 255:
                    is_left = place[1] < left_end
                    key = ("columns", window.column) if is_left else ("rows", window.row)
                    pairs[before[place], now] += 1
                    counts = borders.setdefault(key, [0, 0])
                    counts[0] += 1
                    counts[1] += before[place] != now
                before[place] = now
        last = scored.tile.stripe, window.column + window.width
    return pairs, borders


@pytest.mark.parametrize(("tile", "overlap"), [(32, 0.25), (32, 0.5), (20, 0.7), (40, 0)])
@pytest.mark.parametrize("widest", [90, 33])
def test_seams_are_those_counted_pixel_by_pixel(tile, overlap, widest):
    plan = plan_tiles(*SHAPE, tile=tile, overlap=overlap)
    is_data = np.random.default_rng(1).random(SHAPE) < 0.9
    is_data[:40, 30:70] = False
    tiles = scored_tiles(plan, is_data)
    found = summarise(counted(plan, tiles, widest), ISPRS)
    pairs, borders = by_hand(plan, tiles)
    assert found["pixels"] == pairs.sum() > 0
    assert found["share"] == pytest.approx(1 - np.trace(pairs) / pairs.sum())
    for number, name in enumerate(ISPRS.names):
        either = pairs[number].sum() + pairs[:, number].sum() - pairs[number, number]
        expected = None if not either else 1 - pairs[number, number] / either
        assert found["classes"][name] == pytest.approx(expected)
    for side in ("columns", "rows"):
        expected = sorted([at, n, d / n] for (kind, at), (n, d) in borders.items() if kind == side)
        assert [entry[:2] for entry in found[side]] == [entry[:2] for entry in expected]
        np.testing.assert_allclose([e[2] for e in found[side]], [e[2] for e in expected])
    shares = [entry[3] for entry in found["worst"]]
    assert shares == sorted(shares, reverse=True) and len(shares) <= WORST


def test_without_an_overlap_there_is_no_share():
    found = summarise([], ISPRS)
    assert (found["pixels"], found["share"], found["worst"]) == (0, None, [])
    assert set(found["classes"].values()) == {None}


@pytest.mark.parametrize(("is_wide", "overlap"), [(False, 0.125), (True, 0.5)])
def test_the_smallest_overlap_is_found_for_which_neighbours_agree(
    make_bundle, make_scene, noise, tmp_path, is_wide, overlap
):
    told = []
    bundle = make_bundle(network=Wide() if is_wide else None, tile=32)
    report = predict_raster(
        make_scene(noise(3, 200, 150)),
        tmp_path / "m.tif",
        bundle,
        overlap="auto",
        warn=told.append,
    )
    assert report.overlap == overlap
    assert len(told) == is_wide
    assert not is_wide or "try a larger --tile" in told[0]
    assert (report.seams["share"] > 0.02) == is_wide
