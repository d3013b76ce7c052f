"""What to say when a batch is too large for the memory, or too small for the network."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cvmh.config import RunConfig
from cvmh.errors import TrainingError

# Torch has no error class of its own for this on a CPU.
CPU_IS_FULL = re.compile("can't allocate memory|not enough memory")
# What batch norm says of maps of one pixel in a batch of one tile.
NORM_LACKS_VALUES = "Expected more than 1 value per channel"
# Networks halve their maps five times.
TILE_STEP = 32


@contextmanager
def fitting(config: RunConfig) -> Iterator[None]:
    """Turn an allocation that fails into one sentence that names smaller settings.

    Likewise a batch that is too small to be normalised, into one that names larger settings.

    Raises:
        TrainingError: the memory of the device is too small for the run, or the batch is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(_too_large(config, "the GPU")) from error
    except MemoryError as error:
        raise TrainingError(_too_large(config, "this machine")) from error
    except RuntimeError as error:
        if not CPU_IS_FULL.search(str(error)):
            raise
        raise TrainingError(_too_large(config, "this machine")) from error
    except ValueError as error:
        if NORM_LACKS_VALUES not in str(error):
            raise
        raise TrainingError(_too_small(config)) from error


def _too_large(config: RunConfig, place: str) -> str:
    batch, tile, accumulate = config.data.batch, config.data.tile, config.train.accumulate
    ways = []
    if batch > 1:
        ways.append(f"data.batch={batch // 2} with train.accumulate={2 * accumulate}")
    if tile > TILE_STEP:
        ways.append(f"data.tile={max(TILE_STEP, tile // 2 // TILE_STEP * TILE_STEP)}")
    way = f"use {', or '.join(ways)}" if ways else "choose a smaller network"
    return (
        f"a batch of {batch} tiles of {tile} x {tile} pixels does not fit in the memory of "
        f"{place}; {way}"
    )


def _too_small(config: RunConfig) -> str:
    batch, tile = config.data.batch, config.data.tile
    # The maps of larger tiles have one pixel only where a network pools all of them.
    way = f", or data.tile={2 * tile}" if tile <= TILE_STEP else ""
    return (
        f"data.batch={batch} with data.tile={tile} leaves some batch norm of the network a single "
        f"value a channel, and it needs two; use data.batch={2 * batch}{way}"
    )
