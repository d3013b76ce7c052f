"""Rasters that stay open, so that a crop does not open its files again."""

import os
import sys
from collections import OrderedDict
from pathlib import Path

from cvmh.geo.raster import Raster

# Files open at once; each takes some memory. Few systems let a process open fewer than 256.
MOST_OPEN = 512


class OpenRasters:
    """Opens rasters as they are asked for and keeps those open that were used last.

    Each process has its own: what was opened before a fork is opened again after it, because
    the two would move one another's place in the file. Not for several threads at once.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = _most_open() if most is None else most
        self._opened: OrderedDict[Path, Raster] = OrderedDict()
        self._process = os.getpid()

    def get(self, path: Path) -> Raster:
        """Return a raster, open.

        Raises:
            RasterError: the file is missing, empty, damaged, or not a raster.
        """
        if self._process != os.getpid():
            self._opened, self._process = OrderedDict(), os.getpid()
        if path not in self._opened:
            while len(self._opened) >= self.most:
                self._opened.popitem(last=False)[1].close()
            self._opened[path] = Raster(path)
        self._opened.move_to_end(path)
        return self._opened[path]

    def close(self) -> None:
        """Close all of them; one that is asked for later is opened again."""
        for raster in self._opened.values():
            raster.close()
        self._opened.clear()

    def __getstate__(self) -> dict[str, object]:
        """Leave the open files behind when a process is given this."""
        return {"most": self.most, "_opened": OrderedDict(), "_process": -1}


def _most_open() -> int:
    if sys.platform == "win32":
        return MOST_OPEN // 4
    import resource

    # A process may read two splits; the last third is for all else.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_OPEN if limit < 0 else max(2, min(MOST_OPEN, limit // 3))
