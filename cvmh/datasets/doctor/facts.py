"""What one look at the pixels of a labelled image gives; the checks judge nothing else.

Legend: C bands, H height, W width.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import ClassTable
from cvmh.datasets.doctor.anchors import Anchors
from cvmh.datasets.doctor.finding import Finding, Place
from cvmh.datasets.doctor.shift import Correlation
from cvmh.datasets.labelled import LabelledImage, SegmentationData
from cvmh.datasets.reading import ImageBands
from cvmh.geo.footprint import Footprint


@dataclass(frozen=True, kw_only=True)
class RasterFacts:
    """What the header of a raster says."""

    path: Path
    height: int
    width: int
    dtypes: tuple[str, ...]
    band_names: tuple[str, ...]
    tagged_alpha: int | None
    is_palette: bool
    gsd: float | None
    footprint: Footprint | None

    @property
    def num_bands(self) -> int:
        """The number of bands, an alpha band included."""
        return len(self.dtypes)


@dataclass(kw_only=True)
class BandFacts:
    """Numbers of the bands of an image, over its valid pixels; arrays have one entry a band."""

    count: NDArray[np.int64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    not_numbers: int = 0
    first_not_number: Place | None = None

    @classmethod
    def empty(cls, num_bands: int) -> "BandFacts":
        """Return the numbers of no pixel."""
        zero = np.zeros(num_bands)
        return cls(
            count=np.zeros(num_bands, dtype=np.int64),
            total=zero.copy(),
            squares=zero.copy(),
            lowest=np.full(num_bands, np.inf),
            highest=np.full(num_bands, -np.inf),
        )

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of each band; NaN where no pixel is valid."""
        return np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)

    @property
    def std(self) -> NDArray[np.float64]:
        """The standard deviation of each band; NaN where no pixel is valid."""
        return np.sqrt(np.maximum(self.squares / np.maximum(self.count, 1) - self.mean**2, 0))


@dataclass(kw_only=True)
class LabelFacts:
    """What the pixels of a label hold.

    ``unknown`` counts each value (an id, or a colour as red * 65536 + green * 256 + blue) that no
    class has, with the first pixel of it. ``touching`` counts neighbouring pixels of two classes,
    ``parted`` those of a class and an ignored pixel.
    """

    class_pixels: NDArray[np.int64]
    ignored: int = 0
    unknown: dict[float, int] = field(default_factory=dict)
    first_unknown: dict[float, Place] = field(default_factory=dict)
    num_unknown: int = 0
    touching: int = 0
    parted: int = 0

    @property
    def labelled(self) -> int:
        """The number of pixels that have a class."""
        return int(self.class_pixels.sum())


@dataclass(kw_only=True)
class ImageFacts:
    """An image of a data set, and what was found in its files; None where a file did not open.

    ``eroded`` and ``eroded_labels`` are those of the eroded label beside a full one, if there is
    one.
    """

    entry: LabelledImage
    image: RasterFacts | None = None
    label: RasterFacts | None = None
    eroded: RasterFacts | None = None
    faults: list[tuple[Path, str]] = field(default_factory=list)
    bands: BandFacts | None = None
    labels: LabelFacts | None = None
    eroded_labels: LabelFacts | None = None
    digest: str | None = None
    thumb: NDArray[np.float64] | None = None
    correlation: Correlation | None = None
    anchors: Anchors | None = None

    @property
    def label_rasters(self) -> list[RasterFacts]:
        """The labels that opened: the one that is trained on, and an eroded one beside it."""
        return [raster for raster in (self.label, self.eroded) if raster is not None]

    @property
    def read_labels(self) -> list[tuple[Path, LabelFacts]]:
        """The labels whose pixels were looked at, by their files."""
        both = (self.entry.label, self.labels), (self.entry.eroded, self.eroded_labels)
        return [(path, found) for path, found in both if path is not None and found is not None]


@dataclass(kw_only=True)
class Examination:
    """A data set and what one pass over it found."""

    data: SegmentationData
    images: list[ImageFacts]
    bands: ImageBands | None
    # What was found before a pixel was read: missing files, a split.csv that contradicts itself.
    early: list[Finding] = field(default_factory=list)

    @property
    def classes(self) -> ClassTable:
        """The class table of the set."""
        return self.data.classes

    def by_split(self) -> dict[str, list[ImageFacts]]:
        """Return the images of each split, in the order in which the splits come."""
        found: dict[str, list[ImageFacts]] = {}
        for facts in self.images:
            found.setdefault(facts.entry.split, []).append(facts)
        return found

    def class_pixels(self, images: list[ImageFacts] | None = None) -> NDArray[np.int64]:
        """Return the labelled pixels of each class, of some images or all."""
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for facts in self.images if images is None else images:
            if facts.labels is not None:
                counts += facts.labels.class_pixels
        return counts
