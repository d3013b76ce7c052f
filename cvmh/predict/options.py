"""The options of a prediction, in one place for the library and the command line."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cvmh.errors import ConfigError

AUTO = "auto"
SCORE_TYPES = ("uint8", "float16")
PRUNE_MODES = ("off", "nodata", AUTO)


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How to predict a scene, and what to leave beside the mask.

    Args:
        tile: side of the network's input in pixels; default that of the bundle.
        overlap: share of a tile's side that neighbours have in common, 0 to below 0.9; "auto"
            takes the smallest of some for which neighbours agree on a sample of the scene.
        batch: tiles in one forward pass on a GPU; a CPU takes what suits its cache.
        device: "auto", "cpu", "cuda", "cuda:N", "mps"; several GPUs with commas between.
        precision: "auto" (bf16 on cuda, else fp32), "fp32" or "bf16".
        tta: average the scores of each tile, flipped and turned; eight times the work.
        prune: "nodata" leaves out the cells (32 pixels a side) of a tile that hold no data, where
            the network can; "off" runs tiles whole; a share above 0 and at most 1 also leaves out
            all but that share of the cells, which a network chooses that was trained to; "auto"
            lets each tile keep what needs to be looked at, which is found out on a sample.
        bands: bands of the scene, numbered from 1, in the network's order; default by name.
        nodata: the value of pixels without data, in bands that declare none.
        aoi: polygons outside which nothing is predicted: a vector file, in any CRS.
        resample: show the network pixels as large on the ground as those of training, where the
            scene's differ by more than a factor of 1.5; the mask stays on the scene's grid.
        max_memory: the most bytes that the process may hold; default three quarters of what the
            machine can give. Wide scenes are split into spans of columns to keep it.
        scores: a raster of scores, one band a class.
        scores_type: "uint8" (0 to 254 stand for 0 to 1, 255 for no data) or "float16" (as precise
            as that, in a raster of float32, NaN for no data).
        confidence: a raster of the score of the mask's class, uint8 as in ``scores``.
        vectors: the mask's polygons: .gpkg, .fgb, .geojson or .parquet.
        min_area: polygons smaller than so many m2 join their neighbours.
        simplify: how many pixels the polygons' borders may move; 0 keeps the stairs.
        preview: a picture of scene and mask with a legend, .png.
        report: what was done, and how long it took, .json.
        force: predict although the scene's dtype is not that of training, or it is a palette.
        overwrite: replace outputs that exist, and discard unfinished work of other settings.
        resume: leave a mask alone that is complete and was made with the same settings.
        command: the command line, kept in the mask's tags and the report.
    """

    tile: int | None = None
    overlap: float | str = 0.25
    batch: int = 8
    device: str = AUTO
    precision: str = AUTO
    tta: bool = False
    prune: float | str = "nodata"
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    aoi: str | Path | None = None
    resample: bool = True
    max_memory: int | None = None
    scores: str | Path | None = None
    scores_type: str = "uint8"
    confidence: str | Path | None = None
    vectors: str | Path | None = None
    min_area: float = 0.0
    simplify: float = 1.0
    preview: str | Path | None = None
    report: str | Path | None = None
    force: bool = False
    overwrite: bool = False
    resume: bool = False
    command: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the scene."""
        if isinstance(self.overlap, str) and self.overlap != AUTO:
            raise ConfigError(
                f"overlap must be a share from 0 to below 0.9, or auto, got '{self.overlap}'"
            )
        is_number = isinstance(self.prune, int | float) and not isinstance(self.prune, bool)
        is_share = is_number and 0 < float(self.prune) <= 1
        if not (is_share or self.prune in PRUNE_MODES):
            raise ConfigError(
                f"prune must be {', '.join(PRUNE_MODES)} or the share of cells to keep, above 0 "
                f"and at most 1, got {self.prune!r}"
            )
        if self.scores_type not in SCORE_TYPES:
            raise ConfigError(
                f"the type of scores must be {' or '.join(SCORE_TYPES)}, got '{self.scores_type}'"
            )
        if not (0 <= self.min_area < math.inf and 0 <= self.simplify < math.inf):
            raise ConfigError(
                "the smallest area and the simplification must be numbers from 0 up, "
                f"got {self.min_area:g} m2 and {self.simplify:g} pixels"
            )

    def outputs(self) -> dict[str, Path]:
        """Return the files asked for beside the mask, by what they are."""
        named = {
            "scores": self.scores,
            "confidence": self.confidence,
            "vectors": self.vectors,
            "preview": self.preview,
            "report": self.report,
        }
        return {name: Path(path) for name, path in named.items() if path is not None}


Warn = Callable[[str], None]
