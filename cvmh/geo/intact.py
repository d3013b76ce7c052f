"""Whether a GeoTIFF that was just written is whole: GDAL may swallow a failed write."""

import warnings
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning


def check_blocks(path: Path) -> None:
    """Check that every block of the first band was stored and lies inside the file.

    Raises:
        OSError: a block is missing or cut off.
    """
    size = path.stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            for (row, column), _window in dataset.block_windows(1):
                offset = _tag(dataset, f"BLOCK_OFFSET_{column}_{row}")
                length = _tag(dataset, f"BLOCK_SIZE_{column}_{row}")
                if not offset or not length or offset + length > size:
                    raise OSError(f"block {row},{column} was not stored")


def _tag(dataset: Any, name: str) -> int:
    return int(dataset.get_tag_item(name, "TIFF", bidx=1) or 0)
