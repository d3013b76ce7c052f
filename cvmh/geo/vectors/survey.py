"""The walk over a mask, chunk after chunk, from pixels to finished regions."""

import numpy as np

from cvmh.geo.vectors.assembly import assemble
from cvmh.geo.vectors.chunks import Chunk, ChunkGrid, ChunkReader
from cvmh.geo.vectors.collecting import Collector
from cvmh.geo.vectors.lattice import Lattice, find_vertices
from cvmh.geo.vectors.pieces import cut_out
from cvmh.geo.vectors.scene import Scene
from cvmh.geo.vectors.seams import Frontier
from cvmh.progress import Progress


class Survey:
    """Finds the regions of a mask and hands them to a collector.

    Args:
        scene: what the polygons are made from.
        reader: gives the chunks of the mask, or of the mask without its small regions.
        grid: how the mask is cut.
        collector: takes the regions.
        simplify: about how far, in pixels, borders may move; 0 keeps every corner.
        crowd: number of vertices above which a chunk is halved.
    """

    def __init__(
        self,
        scene: Scene,
        reader: ChunkReader,
        grid: ChunkGrid,
        collector: Collector,
        *,
        simplify: float,
        crowd: int,
    ) -> None:
        self._scene, self._reader, self._grid = scene, reader, grid
        self._collector = collector
        self._simplify, self._crowd = simplify, crowd
        self._frontier = Frontier(grid.width, grid.side)

    def run(self, progress: Progress) -> None:
        """Walk over the whole mask once."""
        for windows in self._grid.rows():
            self._frontier.start_row()
            for window in windows:
                chunk = self._reader.read(window)
                if chunk is None:
                    self._frontier.skip(window)
                else:
                    self._add(chunk, self._grid.side)
            end = windows[0].rows.stop
            for region in self._frontier.close(is_last=end == self._grid.height):
                polygon = assemble(region, self._frontier)
                self._collector.add(np.array([polygon]), region.measures)
            progress("polygons", end, self._grid.height, "rows")
        self._collector.flush()

    def _add(self, chunk: Chunk, side: int) -> None:
        if chunk.is_empty:
            self._frontier.skip(chunk.window)
            return
        lattice = find_vertices(chunk.padded, spacing=self._grid.spacing)
        if len(lattice) > self._crowd and side > self._grid.spacing:
            for part in chunk.quarter(side // 2):
                self._add(part, side // 2)
        else:
            self._add_pieces(chunk, lattice)

    def _add_pieces(self, chunk: Chunk, lattice: Lattice) -> None:
        window, confidence = chunk.window, self._scene.confidence
        sure = confidence.read(window, [1])[0] if confidence is not None else None
        pieces = cut_out(
            chunk, lattice, self._scene.ground, simplify=self._simplify, confidence=sure
        )
        self._collector.add(pieces.inner, pieces.inner_measures)
        points = np.stack([lattice.columns + window.column, lattice.rows + window.row], axis=1)
        loose = self._frontier.key(points[lattice.is_loose])
        self._frontier.add(
            window, chunk.padded, pieces.rims, pieces.outer, pieces.outer_measures, loose
        )
