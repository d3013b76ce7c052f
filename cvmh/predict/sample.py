"""Some tiles of a scene, spread over it, to try on them what the whole scene will get."""

from collections.abc import Iterator

from cvmh.geo.tiling import Stripe, TilePlan, Window
from cvmh.predict.read import Tile
from cvmh.predict.source import Source

# Places along a side of the scene.
PLACES = 4


def sample_tiles(source: Source, plan: TilePlan) -> Iterator[Tile]:
    """Yield those of the tiles at places spread over a scene that hold data."""
    for index in spread(plan.num_stripes):
        stripe = plan.stripe(index)
        for place in spread(len(stripe.columns)):
            tile = read_tile(source, stripe, stripe.columns[place])
            if tile is not None:
                yield tile


def spread(count: int) -> list[int]:
    """Return some of the numbers below ``count``, from the middles of equal parts."""
    places = min(PLACES, count)
    return [(2 * part + 1) * count // (2 * places) for part in range(places)]


def read_tile(source: Source, stripe: Stripe, column: int) -> Tile | None:
    """Read one tile by itself; None if no pixel of it is data."""
    window = Window(stripe.row, column, stripe.height, stripe.width)
    if not source.may_hold(stripe.at(column)).any():
        return None
    native = source.raster.read(window, source.bands)
    is_valid = source.validity.read(window, native)
    if not is_valid.any():
        return None
    return Tile(
        stripe=stripe.index,
        window=window,
        pixels_CHW=source.scaling.scale(native, is_valid),
        is_valid_HW=is_valid,
        input_size=(stripe.input_height, stripe.input_width),
    )
