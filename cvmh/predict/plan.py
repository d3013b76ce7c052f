"""What a prediction will take, before any work: tiles, memory, disk and time."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cvmh.errors import ConfigError, OutputError
from cvmh.geo.raster import GDAL_CACHE, Raster
from cvmh.geo.tiling import Span, TilePlan, split_columns
from cvmh.predict.blend import Planes
from cvmh.predict.infer import PASSES_UNDER_WAY
from cvmh.predict.options import PredictOptions
from cvmh.predict.passes import tiles_to_wait
from cvmh.predict.read import PIECE_BYTES, chunk_rows, ring_rows

# Tiles that are read ahead of the network, in passes.
PASSES_AHEAD = 4
# Bytes a pixel on the disk, packed: class ids and scores as real scenes gave them, and how often
# each lies there at the end: in the journal, as rows, and in the output with its overviews.
ID_BYTES, SCORE_BYTES, COPIES = 0.1, 0.6, 3.3
# Seconds a pixel that the work beside the network takes.
SECONDS_A_PIXEL = 30e-9
# What the writer of an output holds: its rows of blocks, as they come and as they go.
BLOCK_ROWS = 512
# A suggested limit must do the next time too, when the network and Python are measured anew.
HEADROOM = 1.15
# What Python, threads and small things take beside the arrays that are counted here.
SLACK = 64 << 20


class Network(NamedTuple):
    """What was measured of the network: bytes and seconds a pass, and the passes at a time."""

    tiles_a_pass: int
    workers: int
    bytes_a_pass: int
    seconds_a_pass: float | None
    resident: int
    is_pruning: bool = False


@dataclass(frozen=True, kw_only=True)
class ScenePlan:
    """What a prediction will take; bytes, seconds and pixels.

    ``tiles_to_read`` leaves out the tiles that certainly hold no data; ``share_with_data`` is
    estimated from one coarse look, None where that is too dear, and so is ``share_kept``, of the
    work on tiles to read, which leaves out tiles and cells without data; ``memory`` is of the whole
    process, ``memory_limit`` what it may be; ``disk`` counts what lies there at the end at most.
    """

    scene: str
    height: int
    width: int
    bands: tuple[int, ...]
    dtype: str
    gsd: float | None
    resampled_to: float | None
    tile: int
    overlap: float
    stripes: int
    spans: int
    tiles: int
    tiles_to_read: int
    share_with_data: float | None
    prune: str
    share_kept: float | None
    prune_changes: str | None
    tiles_a_pass: int
    workers: int
    devices: tuple[str, ...]
    memory: int
    memory_limit: int | None
    disk: int
    disk_free: int
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the plan as lines of text for people."""
        megapixels = self.height * self.width / 1e6
        size = f"{self.height} rows x {self.width} columns, {megapixels:.1f} Mpx"
        target = self.resampled_to
        resampled = "" if target is None else f", shown to the network at {target:.3g} m"
        gsd = "unknown" if self.gsd is None else f"{self.gsd:.3g} m"
        limit = "" if self.memory_limit is None else f" of {_mib(self.memory_limit)} allowed"
        spans = "" if self.spans == 1 else f", in {self.spans} spans of columns"
        data = self.share_with_data
        share = "" if data is None else f", about {data:.0%} of the scene is data"
        return [
            f"scene    {self.scene}: {size}",
            f"bands    {', '.join(map(str, self.bands))} ({self.dtype}); pixels {gsd}{resampled}",
            f"tiles    {self.tiles} of {self.tile} px, overlap {self.overlap:g}, "
            f"{self.stripes} stripes{spans}; {self.tiles_to_read} to read{share}",
            f"network  {self.workers} x {self.tiles_a_pass} tiles at a time on "
            f"{', '.join(self.devices)}",
            *self._prune_lines(),
            f"memory   {_mib(self.memory)}{limit}",
            f"disk     {_mib(self.disk)} of {_mib(self.disk_free)} free",
            f"time     {'unknown' if self.seconds is None else _duration(self.seconds)}",
        ]

    def _prune_lines(self) -> list[str]:
        if self.share_kept is None or self.prune == "off":
            return []
        changed = self.prune_changes
        change = "" if changed is None else f"; {changed}"
        left_out = f"{1 - self.share_kept:.0%} of the cells are estimated to be left out"
        return [f"prune    {self.prune}; {left_out}{change}"]


def split_scene(
    raster: Raster,
    bands: tuple[int, ...],
    plan: TilePlan,
    *,
    network: Network,
    num_classes: int,
    planes: Planes,
    limit: int | None,
) -> tuple[tuple[Span, ...], int]:
    """Return the spans of columns that keep the memory under a limit, and the memory it takes.

    Args:
        raster: the open scene.
        bands: the bands in use.
        plan: the tiles.
        network: what was measured of the network.
        num_classes: number of classes.
        planes: what is kept beside the class ids.
        limit: the most bytes of the process, None for no limit.

    Raises:
        ConfigError: not even one column of tiles fits.
    """

    def memory(cover: int) -> int:
        return memory_of(
            raster,
            bands,
            plan,
            network=network,
            num_classes=num_classes,
            planes=planes,
            cover=min(cover, plan.width),
        )

    if limit is None or memory(plan.width) <= limit:
        return (Span(0, plan.width),), memory(plan.width)
    tile_width = max(plan.tile_widths)
    # The tiles at the sides of a span reach beyond it.
    beside = 2 * tile_width
    widest = (limit - memory(0)) // (memory(1) - memory(0)) - beside
    if widest < tile_width:
        need = memory(tile_width + beside)
        raise ConfigError(
            f"{raster.path} with tiles of {plan.tile_height} x {tile_width} pixels needs "
            f"{_mib(need)} of memory at least, but {_mib(limit)} are allowed; "
            f"use --max-memory {int(need * HEADROOM) // 2**20 + 1}M, or a smaller --tile"
        )
    spans = split_columns(plan.width, widest=widest, align=raster.block_shape[1])
    return spans, memory(max(span.end - span.first for span in spans) + beside)


def memory_of(
    raster: Raster,
    bands: tuple[int, ...],
    plan: TilePlan,
    *,
    network: Network,
    num_classes: int,
    planes: Planes,
    cover: int,
) -> int:
    """Return the bytes that the process will hold while it predicts ``cover`` columns at a time."""
    tile_area = plan.tile_height * max(plan.tile_widths)
    itemsize = raster.itemsize(bands)
    chunk, (block_height, block_width) = chunk_rows(raster), raster.block_shape
    per_pixel = len(bands) * itemsize + 1
    read = ring_rows(plan, chunk) * cover * per_pixel
    # What is read at a time is at least as wide as a block, and GDAL decodes whole blocks.
    piece = max(2 * PIECE_BYTES, chunk * min(block_width, plan.width) * per_pixel)
    block = block_height * block_width * raster.num_bands * itemsize
    blend = plan.tile_height * cover * (4 * num_classes + 2)
    kept = 1 + planes.confidence + num_classes * {None: 0, "uint8": 1, "float16": 2}[planes.scores]
    # A finished stripe: its planes, packed, and a few of them on their way to the writer.
    stripe = 4 * plan.tile_height * cover * kept
    # float16 scores are handed to GDAL as float32.
    widest_plane = 4 * num_classes if planes.scores == "float16" else num_classes
    written = 1 + planes.confidence + (widest_plane if planes.scores else 0)
    write = 2 * BLOCK_ROWS * plan.width * written
    under_way = PASSES_AHEAD + (PASSES_UNDER_WAY + 1) * network.workers
    waiting = under_way * network.tiles_a_pass
    waiting += tiles_to_wait(tile_area, network.tiles_a_pass, is_pruning=network.is_pruning)
    waiting *= tile_area
    tiles = waiting * (4 * len(bands) + 1) + waiting * (4 * num_classes + 1)
    passes = network.workers * network.bytes_a_pass
    fixed = network.resident + passes + GDAL_CACHE + block + piece + SLACK
    return fixed + read + blend + stripe + write + tiles


def estimate_disk(pixels: int, num_classes: int, planes: Planes) -> int:
    """Return the bytes that a prediction of so many pixels with data will put on the disk."""
    scores = {None: 0, "uint8": 1, "float16": 2}[planes.scores] * num_classes
    per_pixel = ID_BYTES + SCORE_BYTES * (planes.confidence + scores)
    return int(COPIES * per_pixel * pixels)


def check_disk(output: Path, needed: int) -> int:
    """Return the free bytes of an output's disk; ``needed`` is 0 where work goes on.

    Raises:
        OutputError: they are too few.
    """
    try:
        free = shutil.disk_usage(output.parent).free
    except OSError as error:
        raise OutputError(f"folder {output.parent} cannot be used ({error.strerror})") from error
    if free < needed:
        raise OutputError(
            f"mask {output} will need about {_mib(needed)} of disk, but {_mib(free)} are free in "
            f"{output.parent}; make room or choose another folder"
        )
    return free


def estimate_seconds(
    plan: TilePlan, tiles: int, network: Network, kept: float | None = None
) -> float | None:
    """Return how long it takes when the network runs on so many tiles, None if it is not known.

    Args:
        plan: the tiles.
        tiles: how many are read.
        network: what was measured of it.
        kept: the share of their work that is not left out, as far as that is known.
    """
    if network.seconds_a_pass is None:
        return None
    passes = -(-tiles // network.tiles_a_pass)
    beside = SECONDS_A_PIXEL * plan.height * plan.width * tiles / max(1, plan.num_tiles)
    work = 1.0 if kept is None else kept
    return passes * work * network.seconds_a_pass / network.workers + beside


def planes_of(options: PredictOptions) -> Planes:
    """Return what must be kept of the scores: polygons carry a confidence too."""
    return Planes(
        confidence=options.confidence is not None or options.vectors is not None,
        scores=options.scores_type if options.scores is not None else None,
    )


def _mib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 10 * 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
