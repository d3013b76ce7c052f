"""Things that hang together, by the pairs of them that do."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def connect(number: int, pairs: Iterable[Sequence[int]]) -> NDArray[np.int64]:
    """Return a group for each of some things, so that both of each pair are in one group."""
    one, other = np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T
    links = coo_matrix((np.ones(len(one)), (one, other)), shape=(number, number))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)
