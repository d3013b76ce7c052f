"""Labels that are pictures where ids are expected, or that were stored with loss."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cvmh.classes import ClassTable
from cvmh.datasets.doctor.facts import Examination, RasterFacts
from cvmh.datasets.doctor.finding import Finding, counted, places_of
from cvmh.datasets.doctor.label_pixels import is_picture
from cvmh.errors import CvmhError
from cvmh.geo.raster import Raster

LOSSY = (".jpg", ".jpeg")
# Pictures are judged by so many of them, and so many pixels a side.
LABELS, SAMPLE = 32, 512


def find_pictures(examination: Examination) -> Iterator[Finding]:
    """Name labels that have other bands than their encoding, and labels stored with loss."""
    wrong = [
        label
        for facts in examination.images
        for label in facts.label_rasters
        if is_picture(label, examination.data.encoding)
    ]
    if wrong:
        wanted = "one band of class ids"
        if examination.data.encoding.colours is not None:
            wanted = "three bands in the colours of the classes"
        yield Finding(
            code="label-bands",
            severity="error",
            what=(
                f"{counted(len(wrong), 'label')} with {wrong[0].num_bands} bands where "
                f"{wanted} is expected"
            ),
            fix=_describe_pictures(wrong, examination),
            places=places_of([label.path for label in wrong]),
            counts={"files": len(wrong)},
        )
    lossy = [f.entry.label for f in examination.images if f.entry.label.suffix.lower() in LOSSY]
    if lossy:
        yield Finding(
            code="lossy-label",
            severity="warning",
            what=f"{counted(len(lossy), 'label')} in JPEG, whose compression changes values",
            fix="write the labels as PNG or GeoTIFF from their source",
            places=places_of(lossy),
            counts={"files": len(lossy)},
        )


def _describe_pictures(labels: list[RasterFacts], examination: Examination) -> str:
    """Say what labels of three bands are, judged by a sample of their pixels."""
    plain = "write one band of class ids, 255 where a pixel does not count"
    if examination.data.encoding.colours is not None:
        return "write the labels in the colours of the classes, or say that they hold ids"
    samples = [sample for label in labels[:LABELS] if (sample := _sample(label)) is not None]
    if not samples:
        return plain
    if all(np.array_equal(band, pixels[0]) for pixels in samples for band in pixels):
        values = np.unique(np.concatenate([np.unique(pixels[0]) for pixels in samples]))
        if len(values) > len(examination.classes):
            return (
                f"they are grey pictures of {len(values)} values, {values[0]}..{values[-1]}, with "
                f"soft edges: put each pixel to its nearest class, then {plain}"
            )
        held = ", ".join(map(str, values.tolist()))
        return f"all bands are alike and hold {held}: {plain}"
    share = float(np.mean([_share_in_colours(pixels, examination.classes) for pixels in samples]))
    if share > 0.5:
        return f"{share:.0%} of the pixels have a class's colour in classes.json: {plain}"
    return plain


def _sample(label: RasterFacts) -> NDArray[np.generic] | None:
    try:
        with Raster(label.path) as raster:
            return raster.read_small(range(1, min(3, raster.num_bands) + 1), most=SAMPLE)
    except CvmhError:
        # Told of by the check of damaged files.
        return None


def _share_in_colours(pixels: NDArray[np.generic], classes: ClassTable) -> float:
    if len(pixels) < 3:
        return 0.0
    flat = pixels[:3].reshape(3, -1).T.astype(int)
    known = np.array(classes.colours)
    return float((flat[:, None] == known).all(axis=2).any(axis=1).mean())
