"""Labels that do not lie on their images: other size, other georeference, moved, or eroded."""

from collections.abc import Iterator

import numpy as np

from cvmh.datasets.doctor.facts import Examination, ImageFacts
from cvmh.datasets.doctor.finding import Finding, places_of
from cvmh.datasets.doctor.shift import Correlation, Shift
from cvmh.geo.footprint import Footprint

# A peak must stand so far out of the correlation, and the value at no shift so much less.
CLEAR_PEAK, MOST_AT_ZERO = 8.0, 0.5
# One image alone must be moved by two pixels: how borders are drawn may move them by one.
LEAST_MOVED = 2
FEWEST_BORDERS = 200
# Labels are eroded if so few neighbours of different classes touch each other.
MOST_TOUCHING = 0.05


def find_sizes(examination: Examination) -> Iterator[Finding]:
    """Name labels of another size than their images."""
    pairs = [(f.image, label) for f in examination.images for label in f.label_rasters]
    for image, label in pairs:
        if image is not None and (image.height, image.width) != (label.height, label.width):
            yield Finding(
                code="size-mismatch",
                severity="error",
                what=(
                    f"{label.path.name} has {label.height} x {label.width} pixels, "
                    f"its image {image.height} x {image.width}"
                ),
                fix="cut or burn the label on the grid of its image",
                places=places_of([label.path]),
                counts={
                    "rows": label.height - image.height,
                    "columns": label.width - image.width,
                },
            )


def find_georeferences(examination: Examination) -> Iterator[Finding]:
    """Name labels whose georeference says that they lie elsewhere than their images."""
    for facts in examination.images:
        image, label = facts.image, facts.label
        if not image or not label or not image.footprint or not label.footprint:
            continue
        if image.footprint.crs != label.footprint.crs:
            yield Finding(
                code="crs-mismatch",
                severity="error",
                what=(
                    f"{label.path.name} is in {_crs(label.footprint)}, "
                    f"its image in {_crs(image.footprint)}"
                ),
                fix="warp the label onto the grid of its image (gdalwarp), or correct its CRS",
                places=places_of([label.path]),
            )
        elif (image.height, image.width) == (label.height, label.width):
            yield from _moved_by_transform(facts)


def find_shifts(examination: Examination) -> Iterator[Finding]:
    """Tell labels whose borders lie beside the edges of their images."""
    total = Correlation.empty()
    for facts in examination.images:
        if facts.correlation is not None:
            total.add(facts.correlation)
    shift = _clear_shift(total, least=1)
    if shift is not None and sum(f.correlation is not None for f in examination.images) > 1:
        yield Finding(
            code="shifted-labels",
            severity="error",
            what=f"the labels of the whole set lie {_way(shift)} of where the images show edges",
            fix="move the labels back by as many pixels, and check the step that made them",
            places=places_of([f.entry.label for f in examination.images]),
            counts={"rows": shift.rows, "columns": shift.columns},
        )
        return
    for facts in examination.images:
        if facts.correlation is None:
            continue
        shift = _clear_shift(facts.correlation, least=LEAST_MOVED)
        if shift is not None:
            yield Finding(
                code="shifted-label",
                severity="warning",
                what=f"{facts.entry.label.name} lies {_way(shift)} of where its image shows edges",
                fix="move the label back by as many pixels, or draw it anew",
                places=places_of([facts.entry.label]),
                counts={"rows": shift.rows, "columns": shift.columns},
            )


def find_eroded(examination: Examination) -> Iterator[Finding]:
    """Tell whether the pixels along class borders are ignored."""
    read = [f.labels for f in examination.images if f.labels is not None]
    touching = sum(labels.touching for labels in read)
    parted = sum(labels.parted for labels in read)
    looks_eroded = touching < MOST_TOUCHING * parted and parted > FEWEST_BORDERS * len(read)
    counts = {"touching": touching, "parted": parted}
    if examination.data.label_set != "full":
        yield Finding(
            code="eroded-labels",
            severity="note",
            what=f"the labels are the '{examination.data.label_set}' set of the data",
            fix="compare scores only with those on the same labels; eroded ones give higher scores",
            counts=counts,
        )
    elif looks_eroded:
        yield Finding(
            code="eroded-labels",
            severity="note",
            what=(
                "pixels along class borders are ignored: the labels are eroded "
                f"(only {touching:,} of {touching + parted:,} border pixels join two classes)"
            ),
            fix="train on full labels if you have them, and say with every score that it is eroded",
            counts=counts,
        )


def _clear_shift(correlation: Correlation, *, least: int) -> Shift | None:
    if correlation.borders < FEWEST_BORDERS:
        return None
    shift = correlation.find_shift()
    is_moved = max(abs(shift.rows), abs(shift.columns)) >= least
    is_clear = shift.peak >= CLEAR_PEAK and shift.at_zero <= MOST_AT_ZERO * shift.peak
    return shift if is_moved and is_clear else None


def _way(shift: Shift) -> str:
    down = f"{abs(shift.rows)} px {'below' if shift.rows > 0 else 'above'}" if shift.rows else ""
    side = "to the right" if shift.columns > 0 else "to the left"
    right = f"{abs(shift.columns)} px {side}" if shift.columns else ""
    return " and ".join(part for part in (down, right) if part)


def _moved_by_transform(facts: ImageFacts) -> Iterator[Finding]:
    assert facts.image and facts.label and facts.image.footprint and facts.label.footprint
    ours, theirs = np.array(facts.image.footprint.box), np.array(facts.label.footprint.box)
    pixel = np.array(
        [(ours[2] - ours[0]) / facts.image.width, (ours[3] - ours[1]) / facts.image.height] * 2
    )
    off = (theirs - ours) / pixel
    if np.abs(off).max() <= 0.5:
        return
    right, down = float(off[[0, 2]].mean()), -float(off[[1, 3]].mean())
    yield Finding(
        code="transform-mismatch",
        severity="error",
        what=(
            f"by its georeference, {facts.entry.label.name} lies {abs(down):.1f} px "
            f"{'below' if down > 0 else 'above'} and {abs(right):.1f} px to the "
            f"{'right' if right > 0 else 'left'} of its image"
        ),
        fix="warp the label onto its image's grid, or correct its transform",
        places=places_of([facts.entry.label]),
        counts={"rows": round(down, 2), "columns": round(right, 2)},
    )


def _crs(footprint: Footprint) -> str:
    return str(footprint.crs.to_string())[:60]
