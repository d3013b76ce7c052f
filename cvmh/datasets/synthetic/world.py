"""A scene under construction: the canvas, the grid, and the places where cars and trees may go."""

from dataclasses import dataclass, field

import numpy as np

from cvmh.datasets.synthetic.canvas import BUILDING, CLUTTER, IMPERVIOUS, Canvas, Footprint, inside
from cvmh.datasets.synthetic.street_grid import StreetGrid
from cvmh.datasets.synthetic.style import Style


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A place for a tree: centre and crown radius in metres; in a wood crowns may touch."""

    x: float
    y: float
    radius: float
    is_wood: bool = False


@dataclass(frozen=True, kw_only=True)
class World:
    """What every builder needs, and the two lists it adds to."""

    canvas: Canvas
    grid: StreetGrid
    style: Style
    slots: list[Footprint] = field(default_factory=list)
    spots: list[Spot] = field(default_factory=list)

    def has_room(self, place: Footprint) -> bool:
        """Return whether a footprint is free of buildings, water and other clutter."""
        window = self.canvas.window(place)
        if window is None:
            return False
        labels = self.canvas.labels[window.rows, window.cols][inside(window, place)]
        return labels.size > 0 and not np.isin(labels, (BUILDING, CLUTTER)).any()

    def is_paved(self, place: Footprint) -> bool:
        """Return whether a footprint lies wholly on open paved ground."""
        window = self.canvas.window(place)
        if window is None:
            return False
        mask = inside(window, place)
        labels = self.canvas.labels[window.rows, window.cols][mask]
        heights = self.canvas.elevation[window.rows, window.cols][mask]
        return labels.size > 0 and bool((labels == IMPERVIOUS).all() and not heights.any())

    def add_slots(
        self, u: float, v: float, *, num_slots: int, step: tuple[float, float], turn: float
    ) -> None:
        """Offer a row of slots for cars, turned against the u direction, a step (u, v) apart."""
        for k in range(num_slots):
            self.slots.append(
                self.grid.footprint(u + k * step[0], v + k * step[1], 4.5, 1.85, turn=turn)
            )

    def add_spot(self, u: float, v: float, radius: float, *, is_wood: bool = False) -> None:
        """Offer a place for a tree at grid coordinates."""
        x, y = self.grid.to_ground(u, v)
        self.spots.append(Spot(x=x, y=y, radius=radius, is_wood=is_wood))
