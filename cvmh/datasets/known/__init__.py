"""The known data sets: a table of what is published, and one engine that finds it on a disk."""

from cvmh.datasets.known.deepglobe import DEEPGLOBE
from cvmh.datasets.known.gid15 import GID15
from cvmh.datasets.known.isaid import ISAID
from cvmh.datasets.known.landcoverai import LANDCOVERAI
from cvmh.datasets.known.loveda import LOVEDA
from cvmh.datasets.known.missing import Missing
from cvmh.datasets.known.openearthmap import OPENEARTHMAP
from cvmh.datasets.known.opening import expected_files, open_known
from cvmh.datasets.known.potsdam import POTSDAM
from cvmh.datasets.known.sets import KnownSet, Layout, Splits
from cvmh.datasets.known.survey import Survey, survey
from cvmh.datasets.known.uavid import UAVID
from cvmh.datasets.known.vaihingen import VAIHINGEN

# The data sets by name.
KNOWN = {
    known.name: known
    for known in (
        POTSDAM,
        VAIHINGEN,
        LOVEDA,
        UAVID,
        LANDCOVERAI,
        DEEPGLOBE,
        GID15,
        ISAID,
        OPENEARTHMAP,
    )
}

__all__ = [
    "KNOWN",
    "KnownSet",
    "Layout",
    "Missing",
    "Splits",
    "Survey",
    "expected_files",
    "open_known",
    "survey",
]
