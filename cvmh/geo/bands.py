"""Which bands of a scene a network gets: by name where bands have names, else by position."""

import re
from collections.abc import Sequence

from cvmh.errors import RasterError
from cvmh.geo.raster import Raster
from cvmh.geo.validity import find_alpha

# Names that say what a band shows. Other texts, such as "layer 3", say nothing we could trust.
SPECTRAL = frozenset(
    "red green blue nir rededge coastal swir swir1 swir2 mwir lwir tir thermal cirrus pan "
    "vv vh hh hv ndvi dsm dem ndsm height".split()
)
SYNONYMS = {"nearinfrared": "nir", "panchromatic": "pan"}
# Band codes of Sentinel-2 and Landsat: B2, B08, B8A.
BAND_CODE = re.compile(r"b\d{1,2}a?")


def match_bands(
    wanted: Sequence[str], raster: Raster, *, explicit: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the bands of a raster, numbered from 1, in the order that the network wants.

    An explicit list wins. Otherwise a wanted name is looked for among the scene's names; what is
    not found is filled, in order, from the scene's bands whose names say nothing; a band that says
    it shows something else is never taken. A true alpha band is not taken either.

    Args:
        wanted: the band names of the network, for example ("red", "green", "blue").
        raster: the open scene.
        explicit: bands that the user chose; a band may be repeated.

    Raises:
        RasterError: the explicit list is too short, too long or out of range, or the scene's
            bands do not answer what is wanted.
    """
    if explicit is not None:
        return _checked(explicit, wanted, raster)
    alpha = find_alpha(raster)
    names = {
        number: _plain(name)
        for number, name in enumerate(raster.band_names, start=1)
        if number != alpha
    }
    found = {name: number for number, name in reversed(names.items())}
    chosen = [found.get(_plain(name)) for name in wanted]
    missing = [name for name, number in zip(wanted, chosen, strict=True) if number is None]
    if not missing:
        return tuple(number for number in chosen if number is not None)
    if len(names) != len(wanted):
        raise RasterError(_misfit(wanted, raster, names))
    free = iter([number for number in names if number not in chosen])
    filled = tuple(next(free) if number is None else number for number in chosen)
    for name, number in zip(wanted, filled, strict=True):
        if _contradicts(_plain(name), names[number]):
            raise RasterError(_misfit(wanted, raster, names))
    return filled


def match_names(wanted: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Return for each wanted band its index among known ones, None where it is none of them.

    Bands are matched by name; where there are as many as are wanted, a band whose name says nothing
    is matched to what is left, in order.
    """
    names = [_plain(name) for name in known]
    found = {name: index for index, name in reversed(list(enumerate(names)))}
    chosen = [found.get(_plain(name)) for name in wanted]
    if len(known) != len(wanted):
        return chosen
    free = iter([index for index in range(len(known)) if index not in chosen])
    for position, name in enumerate(wanted):
        if chosen[position] is None:
            index = next(free)
            chosen[position] = None if _contradicts(_plain(name), names[index]) else index
    return chosen


def _checked(explicit: Sequence[int], wanted: Sequence[str], raster: Raster) -> tuple[int, ...]:
    if len(explicit) != len(wanted):
        raise RasterError(
            f"--bands must name {len(wanted)} bands ({', '.join(wanted)}), "
            f"got {len(explicit)}: {_listed(explicit)}"
        )
    if any(not 1 <= number <= raster.num_bands for number in explicit):
        raise RasterError(
            f"--bands must be numbers from 1 to {raster.num_bands} for {raster.path}, "
            f"got {_listed(explicit)}"
        )
    return tuple(explicit)


def _plain(name: str) -> str:
    text = re.sub(r"[^a-z0-9]", "", name.lower())
    return SYNONYMS.get(text, text)


def _contradicts(wanted: str, found: str) -> bool:
    """True if both names say what a band shows, and they differ."""
    return wanted != found and _tells(wanted) and _tells(found)


def _tells(name: str) -> bool:
    return name in SPECTRAL or BAND_CODE.fullmatch(name) is not None


def _misfit(wanted: Sequence[str], raster: Raster, names: dict[int, str]) -> str:
    got = ", ".join(f"{number} {raster.band_names[number - 1]}" for number in names)
    example = _listed([1 + index % raster.num_bands for index in range(len(wanted))])
    return (
        f"{raster.path}: the network needs {len(wanted)} bands ({', '.join(wanted)}), "
        f"got {len(names)} ({got}); say which to take, for example --bands {example}"
    )


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers)
