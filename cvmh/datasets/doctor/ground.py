"""Ground that two splits have in common, by the georeference of their images."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cvmh.datasets.doctor.facts import Examination, ImageFacts
from cvmh.datasets.doctor.finding import Finding, Place, counted, places_of
from cvmh.geo.footprint import boxes_in_metres, gaps_between

# Footprints that meet by less than half a pixel are neighbours.
HALF_PIXEL = 0.5
# An overlap of less than this share of the smaller image is a warning.
SERIOUS = 0.01


class Meeting(NamedTuple):
    """Two images of different splits, the width and height that they share, and the share."""

    first: ImageFacts
    second: ImageFacts
    width: float
    height: float
    share: float


def find_overlaps(examination: Examination) -> Iterator[Finding]:
    """Tell which splits overlap on the ground, and which only touch."""
    overlaps: dict[tuple[str, str], list[Meeting]] = defaultdict(list)
    touching: dict[tuple[str, str], list[Meeting]] = defaultdict(list)
    for meeting, is_overlap in _meetings(examination):
        one, other = sorted((meeting.first.entry.split, meeting.second.entry.split))
        (overlaps if is_overlap else touching)[one, other].append(meeting)
    for names, meetings in sorted(overlaps.items()):
        yield _overlap(names, meetings)
    for names, meetings in sorted(touching.items()):
        yield _touch(names, meetings, is_own=examination.data.splits == "own")


def _meetings(examination: Examination) -> Iterator[tuple[Meeting, bool]]:
    images = [f for f in examination.images if f.image is not None and f.image.footprint]
    footprints = [f.image.footprint for f in images if f.image and f.image.footprint]
    if not footprints:
        return
    boxes = boxes_in_metres(footprints)
    splits = np.array([facts.entry.split for facts in images])
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides.prod(axis=1)
    for number, facts in enumerate(images[:-1]):
        assert facts.image is not None
        gaps = gaps_between(boxes[number], boxes[number + 1 :])
        pixel = sides[number] / (facts.image.width, facts.image.height)
        near = (gaps <= HALF_PIXEL * pixel).all(axis=1) & (splits[number + 1 :] != splits[number])
        for place in np.flatnonzero(near):
            other = number + 1 + int(place)
            width, height = np.maximum(-gaps[place], 0).tolist()
            share = width * height / min(areas[number], areas[other])
            is_overlap = bool((-gaps[place] > HALF_PIXEL * pixel).all())
            yield Meeting(facts, images[other], width, height, float(share)), is_overlap


def _overlap(names: tuple[str, str], meetings: list[Meeting]) -> Finding:
    meetings.sort(key=lambda meeting: -meeting.width * meeting.height)
    largest = meetings[0]
    area = sum(meeting.width * meeting.height for meeting in meetings)
    worst = max(meeting.share for meeting in meetings)
    first, second = largest.first.entry, largest.second.entry
    return Finding(
        code="overlapping-splits",
        severity="error" if worst >= SERIOUS else "warning",
        what=(
            f"splits '{names[0]}' and '{names[1]}' overlap on the ground in "
            f"{counted(len(meetings), 'pair')} of images, {area:,.0f} m2 in all; most "
            f"{first.image.name} and {second.image.name}, "
            f"{largest.width:.0f} x {largest.height:.0f} m, {largest.share:.1%} of the smaller one"
        ),
        fix="split by area, not by tile: 'cvmh data split' writes such a split.csv",
        places=_places(meetings),
        counts={
            "pairs": len(meetings),
            "square_metres": round(area, 1),
            "width": round(largest.width, 2),
            "height": round(largest.height, 2),
            "share": round(worst, 4),
        },
    )


def _touch(names: tuple[str, str], meetings: list[Meeting], *, is_own: bool) -> Finding:
    first, second = meetings[0].first.entry, meetings[0].second.entry
    return Finding(
        code="touching-splits",
        severity="warning" if is_own else "note",
        what=(
            f"{counted(len(meetings), 'pair')} of images in splits '{names[0]}' and "
            f"'{names[1]}' are direct neighbours, such as {first.image.name} and "
            f"{second.image.name}"
        ),
        fix=(
            "scores on neighbours of training images are too good; "
            "'cvmh data split' keeps neighbours in one split"
            if is_own
            else "nothing: the split is the published one, but its scores profit from it"
        ),
        places=_places(meetings),
        counts={"pairs": len(meetings)},
    )


def _places(meetings: list[Meeting]) -> tuple[Place, ...]:
    files = (f.entry.image for meeting in meetings for f in (meeting.first, meeting.second))
    return places_of(list(dict.fromkeys(files)))
