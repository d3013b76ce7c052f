"""Opening a known data set, or saying in one sentence why that is not possible."""

from dataclasses import replace
from pathlib import Path

from cvmh.datasets.known.missing import Missing
from cvmh.datasets.known.sets import KnownSet
from cvmh.datasets.known.survey import Survey, survey
from cvmh.datasets.labelled import LabelledImage, SegmentationData
from cvmh.errors import ConfigError, DataError

# So many names of missing images are told.
NAMED = 3
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz")


def open_known(
    known: KnownSet,
    root: Path,
    *,
    layout: str | None = None,
    splits: str | None = None,
    labels: str = "auto",
    partial: bool = False,
) -> SegmentationData:
    """Find the images and labels of a known data set in a folder; no pixel is read.

    Args:
        known: the data set.
        root: the folder that it is in.
        layout: how the files lie; default recognised by looking.
        splits: which published split to follow; default the one that goes with the layout.
        labels: "full" or "eroded" labels, or "auto": full ones where there are some.
        partial: take what is there though parts are missing.

    Raises:
        ConfigError: the data set has no such layout or split table.
        DataError: the folder does not hold the data set, or parts of it are missing.
    """
    check_names(known, layout=layout, splits=splits)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"folder {root} {what}; {_needs(known, layout)}")
    try:
        found = survey(known, root, layout=layout, splits=splits)
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error})") from error
    if found is None:
        raise DataError(f"{root} holds no {known.title}: {_seen(root)}; {_needs(known, layout)}")
    if found.missing and not partial:
        raise DataError(_incomplete(found))
    return SegmentationData(
        name=known.name,
        root=found.base,
        classes=known.classes,
        images=tuple(_with_label(image, labels, known) for image in found.images),
        encoding=found.layout.encoding,
        label_set="eroded" if _all_eroded(found, labels) else "full",
        layout=found.layout.name,
        splits=found.splits,
        band_names=found.layout.band_names,
        gsd=known.gsd,
        unlabelled=found.unlabelled,
    )


def check_names(known: KnownSet, *, layout: str | None, splits: str | None) -> None:
    """Refuse a layout or split table that the data set has not, or that do not fit together.

    Raises:
        ConfigError: it has not.
    """
    names = [entry.name for entry in known.layouts]
    if layout is not None and layout not in names:
        raise ConfigError(
            f"data.layout of {known.name} must be one of {', '.join(names)}, got '{layout}'"
        )
    fitting = known.splits if layout is None else known.layout(layout).splits
    if splits is not None and splits not in fitting:
        where = known.name if layout is None else f"{known.name} in layout {layout}"
        raise ConfigError(
            f"data.splits of {where} must be one of {', '.join(fitting)}, got '{splits}'"
        )


def expected_files(known: KnownSet, layout: str | None = None) -> str:
    """Return what a folder must hold, for people: the patterns of one layout, and the others."""
    shown = known.layouts[0] if layout is None else known.layout(layout)
    label = (*shown.label, *shown.eroded)[0]
    text = f"{shown.image} with {label} (layout {shown.name})"
    others = [entry.name for entry in known.layouts if layout is None and entry is not shown]
    return f"{text}, or is laid out as for {', '.join(others)}" if others else text


def _needs(known: KnownSet, layout: str | None) -> str:
    return (
        f"it must be a folder that holds {expected_files(known, layout)}, see data/README.md; "
        f"{known.get}"
    )


def _seen(root: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    if not names:
        return "it is empty"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    packed = "; unpack the archives" if any(name.endswith(ARCHIVES) for name in names) else ""
    return f"there are {', '.join(names[:NAMED])}{more}{packed}"


def _incomplete(found: Survey) -> str:
    parts = "; ".join(map(_told, found.missing))
    hint = f"; {found.known.hint}" if found.known.hint else ""
    return (
        f"{found.known.title} in {found.base} (layout {found.layout.name}, splits {found.splits}) "
        f"is not complete: {parts}{hint}; fetch the rest ({found.known.get}), {_another(found)}or "
        "take what is there with data.partial=true"
    )


def _another(found: Survey) -> str:
    """Return the advice to follow a split table that needs no more than what is there, if any."""
    for name in found.layout.splits:
        other = survey(found.known, found.base, layout=found.layout.name, splits=name)
        if other is not None and not other.missing:
            return f"follow another published split with data.splits={name}, "
    return ""


def _told(entry: Missing) -> str:
    if entry.part == "list":
        return f"the list of split {entry.split}, {entry.names[0]}, is missing"
    whose = "labels of " if entry.part == "label" else ""
    where = f" of split {entry.split}" if entry.split else ""
    what = f"{whose}{entry.count} of {entry.expected} images{where} are missing"
    more = ", ..." if len(entry.names) > NAMED else ""
    return f"{what} ({', '.join(entry.names[:NAMED])}{more})" if entry.names else what


def _with_label(image: LabelledImage, labels: str, known: KnownSet) -> LabelledImage:
    if labels == "eroded":
        if image.eroded is None:
            raise DataError(
                f"data.labels=eroded needs an eroded label of each image of {known.name}, but "
                f"{image.image} has none; fetch the labels without boundaries, or use full ones"
            )
        return replace(image, label=image.eroded)
    if labels == "full" and not image.has_full_label:
        raise DataError(
            f"data.labels=full needs a full label of each image of {known.name}, but "
            f"{image.image} has only an eroded one, {image.label.name}"
        )
    return image


def _all_eroded(found: Survey, labels: str) -> bool:
    return labels == "eroded" or not any(image.has_full_label for image in found.images)
