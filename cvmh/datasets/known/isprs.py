"""What both ISPRS sets share: the colours of their labels and the terms of their use."""

from collections.abc import Mapping

from cvmh.classes import ISPRS, NODATA_ID
from cvmh.datasets.labelled import Colour, LabelEncoding

# Black is the strip along class borders that eroded labels leave out.
BOUNDARY: Mapping[Colour, int] = {(0, 0, 0): NODATA_ID}
CAR = 4
COLOURS: Mapping[Colour, int] = {**{entry.rgb: entry.id for entry in ISPRS}, **BOUNDARY}
# GeoSeg's tools paint cars orange in the labels that they write.
GEOSEG_COLOURS: Mapping[Colour, int] = {**COLOURS, (255, 204, 0): CAR}

COLOURED = LabelEncoding(num_classes=len(ISPRS), colours=COLOURS)
GEOSEG_COLOURED = LabelEncoding(num_classes=len(ISPRS), colours=GEOSEG_COLOURS)
# mmsegmentation numbers from 1; its zero is the boundary.
FROM_ONE = LabelEncoding(
    num_classes=len(ISPRS), values={0: NODATA_ID, **{i + 1: i for i in range(6)}}
)
# GeoSeg numbers from 0; its six is the boundary.
BOUNDARY_LAST = LabelEncoding(
    num_classes=len(ISPRS), values={**{i: i for i in range(6)}, 6: NODATA_ID}
)

LICENCE = "ISPRS benchmark terms: on request, for research, no redistribution"
GET = (
    "ask for it with the form of the ISPRS 2D semantic labeling contest "
    "(isprs.org, benchmarks, UrbanSemLab)"
)


def tiles(text: str) -> tuple[str, ...]:
    """Return tile names from a line of them."""
    return tuple(text.split())
