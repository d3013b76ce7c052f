"""Figures that others have published, and whether scores can be compared with them.

Most published figures cannot be compared with each other: one network on Potsdam is printed
anywhere from 84.2 to 86.8 % mIoU. So every row says whose protocol it follows, if that is known,
and what stands against a comparison even then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cvmh.datasets.known import KNOWN
from cvmh.metrics import Scores


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published row; figures in percent, None and () where nothing is printed.

    Args:
        dataset: the data set, as cvmh names it.
        method: the network.
        source: who printed the figures.
        protocol: the protocol of cvmh that they follow; None where that is not known, or none.
        split: the split that was scored.
        tta: whether flipped or scaled images were averaged; None where that is not known.
        caveat: what else stands against a comparison.
        miou: mean IoU.
        mf1: mean F1.
        oa: overall accuracy.
        classes: IoU of the first classes of the data set, in its order.
    """

    dataset: str
    method: str
    source: str
    protocol: str | None = None
    split: str = "test"
    tta: bool | None = None
    caveat: str = ""
    miou: float | None = None
    mf1: float | None = None
    oa: float | None = None
    classes: tuple[float, ...] = ()


def compare(row: Published, scores: Sequence[Scores]) -> str:
    """Say whether a published row can be compared with one of some scores.

    Returns:
        "yes", or "no" or "perhaps" with the reason.
    """
    alike = [entry for entry in scores if entry.protocol == row.protocol]
    if row.protocol is None:
        return "no: its protocol is not known"
    if not alike:
        return f"no: protocol {row.protocol} is not scored here"
    return _obstacle(row, alike[0]) or "yes"


def _obstacle(row: Published, scores: Scores) -> str:
    if scores.split != row.split:
        return f"no: it is of split {row.split}"
    if scores.facts.seen_in:
        return f"no: this bundle saw the split in {scores.facts.seen_in}"
    if row.tta is not None and row.tta != scores.facts.tta:
        return f"no: it is {'with' if row.tta else 'without'} test-time augmentation"
    trained_on = scores.facts.trained_on
    if not trained_on:
        return "perhaps: it is not known what this bundle was trained on"
    if not KNOWN[row.dataset].is_one_table(trained_on.split()[0], scores.facts.splits):
        return f"perhaps: this bundle was trained on {trained_on}"
    return ""
