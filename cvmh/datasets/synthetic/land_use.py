"""Who gets which block: an allocation of land uses by area."""

import numpy as np
from numpy.typing import NDArray

from cvmh.datasets.synthetic.canvas import FloatArray
from cvmh.datasets.synthetic.style import LEAST, Use


def allocate_uses(
    rng: np.random.Generator, areas: NDArray[np.int_], shares: FloatArray
) -> NDArray[np.int_]:
    """Return a use for every block so that the uses come near their shares.

    Uses that a scene cannot miss choose first, each the block that fits what it still needs.

    Args:
        rng: the generator.
        areas: visible pixels of every block, of any shape.
        shares: wished share of every use, summing to 1.
    """
    visible = areas.ravel().astype(np.float64) / max(int(areas.sum()), 1)
    uses = np.full(visible.size, int(Use.FIELD))
    free = set(np.flatnonzero(visible > 0).tolist())
    needed = [int(use) for use in rng.permutation(len(Use)) if LEAST[use] > 0]
    others = [int(use) for use in rng.permutation(len(Use)) if LEAST[use] == 0]
    for use in needed + others:
        missing = float(shares[use])
        while free and missing > 0.015:
            block = min(sorted(free), key=lambda k, m=missing: abs(visible[k] - m))  # type: ignore[misc]
            uses[block] = use
            free.discard(block)
            missing -= visible[block]
    for block in sorted(free):
        uses[block] = rng.choice(
            len(Use), p=shares.astype(np.float64) / float(shares.sum(dtype=np.float64))
        )
    return uses.reshape(areas.shape)
