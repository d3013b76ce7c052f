"""The sample that areas are estimated from, as a bundle carries it."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cvmh.errors import ShapeError

# What a cluster is: images side by side, single images, or runs of tiles within few images.
ClusterKind = Literal["places", "images", "tiles"]


class AreaSample(BaseModel):
    """Confusion counts of the validation split by cluster, as a bundle carries them.

    ``cells`` are (cluster, label, predicted class, pixels) wherever there are pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str
    kind: ClusterKind = "images"
    clusters: int
    cells: tuple[tuple[int, int, int, int], ...]

    @property
    def extent(self) -> str:
        """How many clusters of what kind there are, in words."""
        if self.kind == "places":
            return f"{self.clusters} places"
        if self.kind == "images":
            return f"{self.clusters} images or groups of them"
        return f"{self.clusters} runs of tiles in few images, more alike than other ground"

    @classmethod
    def of(
        cls, counts: NDArray[np.int64], *, split: str, kind: ClusterKind = "images"
    ) -> "AreaSample":
        """Return the sample of counts (clusters, K, K), rows labels, columns predictions."""
        places = np.argwhere(counts)
        cells = np.column_stack([places, counts[tuple(places.T)]]).tolist()
        return cls(split=split, kind=kind, clusters=len(counts), cells=tuple(map(tuple, cells)))

    def counts(self, num_classes: int) -> NDArray[np.int64]:
        """Return the counts (clusters, K, K), rows labels, columns predictions.

        Raises:
            ShapeError: a cell lies beyond the clusters or classes.
        """
        counts = np.zeros((self.clusters, num_classes, num_classes), dtype=np.int64)
        cells = np.array(self.cells, dtype=np.int64).reshape(-1, 4)
        if (cells < 0).any() or (cells[:, :3] >= counts.shape).any():
            raise ShapeError(
                f"a sample of {self.clusters} clusters and {num_classes} classes has a cell beyond "
                f"them: {cells.max(axis=0).tolist()}"
            )
        counts[tuple(cells[:, :3].T)] = cells[:, 3]
        return counts
