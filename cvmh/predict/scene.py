"""From a scene to its mask: plan, read, infer, blend, write."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import NODATA_ID
from cvmh.geo.bands import match_bands
from cvmh.geo.mask import MaskWriter
from cvmh.geo.raster import Raster
from cvmh.geo.tiling import TilePlan, plan_tiles
from cvmh.models.bundle import Bundle
from cvmh.predict.blend import ScoreBuffer
from cvmh.predict.checks import check_card, check_values, compare_gsd, compare_nodata
from cvmh.predict.infer import Engine
from cvmh.predict.read import TileReader
from cvmh.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class PredictionReport:
    """What a prediction did; ``class_pixels`` counts the mask's pixels by class id."""

    output: Path
    bands: tuple[int, ...]
    tiles_run: int
    tiles_skipped: int
    pixels: int
    pixels_valid: int
    class_pixels: tuple[int, ...]
    seconds: float


def predict_raster(
    scene: str | Path,
    output: str | Path,
    bundle: Bundle,
    *,
    tile: int | None = None,
    overlap: float = 0.25,
    batch: int = 8,
    device: str = "auto",
    precision: str = "auto",
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    force: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
    command: str | None = None,
) -> PredictionReport:
    """Predict the class of every pixel of a scene and write the mask on the scene's exact grid.

    Memory grows with the scene's width times the tile, never with its height. The mask is 255
    exactly where the scene has no data; it appears when it is complete, or not at all.

    Args:
        scene: a raster of any size, or any dataset name of GDAL.
        output: the mask, ``.tif``.
        bundle: the trained network.
        tile: side of a tile in pixels; default that of the bundle.
        overlap: share of a tile's side that neighbours have in common, 0 to below 0.9.
        batch: tiles in one forward pass; another number may move the few pixels whose two best
            classes are even up to the last bit, and nothing else.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto" (bf16 on cuda, else fp32), "fp32" or "bf16".
        bands: bands of the scene, numbered from 1, in the network's order; default by name.
        nodata: the value of pixels without data, in bands that declare none.
        force: predict although the scene's dtype is not that of training, or it is a palette.
        overwrite: replace an existing mask.
        progress: told of every finished tile.
        warn: told one sentence where the result may be poor; default a Python warning.
        command: the command line, kept in the mask's tags.

    Raises:
        RasterError: the scene cannot be read or does not fit the bundle.
        OutputError: the mask exists already or cannot be written.
        ConfigError: a setting is out of range or names what this machine does not have.
        BundleError: the network's output cannot be used.
    """
    started = time.perf_counter()
    card = bundle.card
    check_card(card)
    side = card.tile if tile is None else tile
    with Raster(scene) as raster:
        chosen = match_bands(card.band_names, raster, explicit=bands)
        check_values(raster, chosen, card, force=force)
        plan = plan_tiles(raster.height, raster.width, tile=side, overlap=overlap)
        even = _even_batch(plan.num_tiles, batch)
        engine = Engine(bundle, batch=even, device=device, precision=precision)
        # What can be wrong with the scene is found out before a mask is begun.
        reader = TileReader(raster, chosen, card, nodata=nodata)
        tags = {"model": card.model, "bands": str(chosen), "tile": str(side)}
        tags |= {"overlap": str(overlap)}
        tags |= {} if nodata is None else {"nodata": f"{nodata:g}"}
        tags |= {"command": command} if command else {}
        mask = MaskWriter(output, raster, card.classes, tags=tags, overwrite=overwrite)
        compare_gsd(raster, card, warn)
        compare_nodata(raster, chosen, nodata, warn)
        buffer = ScoreBuffer(plan, len(card.classes))
        with mask:
            counts = _fill(mask, plan, reader, engine, buffer, progress or silent)
    return PredictionReport(
        output=Path(output),
        bands=chosen,
        tiles_run=plan.num_tiles - counts.skipped,
        tiles_skipped=counts.skipped,
        pixels=plan.height * plan.width,
        pixels_valid=int(counts.ids[:NODATA_ID].sum()),
        class_pixels=tuple(int(count) for count in counts.ids[: len(card.classes)]),
        seconds=time.perf_counter() - started,
    )


class _Counts(NamedTuple):
    """Tiles without data, and the mask's pixels by id 0..255."""

    skipped: int
    ids: NDArray[np.int64]


def _fill(
    mask: MaskWriter,
    plan: TilePlan,
    reader: TileReader,
    engine: Engine,
    buffer: ScoreBuffer,
    progress: Progress,
) -> _Counts:
    ids = np.zeros(NODATA_ID + 1, dtype=np.int64)
    done = skipped = 0
    # Batches run on across stripes, so that narrow scenes fill them too.
    scored_tiles = engine.run(reader.read_all(plan))
    for stripe in plan.stripes():
        for _ in stripe.windows:
            scored = next(scored_tiles)
            buffer.add(scored)
            done += 1
            skipped += scored.tile.is_empty
            progress("predict", done, plan.num_tiles, "tiles")
        rows = buffer.take_rows(stripe.end_final_row - stripe.first_final_row)
        mask.write_rows(rows)
        ids += np.bincount(rows.ravel(), minlength=len(ids))
    return _Counts(skipped, ids)


def _even_batch(num_tiles: int, batch: int) -> int:
    """Return a batch size of at most ``batch`` that leaves little padding in the last batch."""
    if batch < 1:
        # The engine refuses it by name.
        return batch
    return -(-num_tiles // -(-num_tiles // batch))
