"""From the settings of a run to its labelled images, in a folder of one's own or a known set."""

import difflib
from dataclasses import replace

from cvmh.config import DataSettings
from cvmh.datasets.folder import open_folder
from cvmh.datasets.known import KNOWN, KnownSet, expected_files, open_known
from cvmh.datasets.labelled import SegmentationData
from cvmh.errors import ConfigError, DataError

FOLDER = "folder"


def open_data(settings: DataSettings) -> SegmentationData:
    """Open the data set that the settings name.

    Raises:
        ConfigError: the name is unknown, there is no root, or a setting does not fit the set.
        DataError: the data set on disk is incomplete.
    """
    if settings.dataset == FOLDER:
        return _open_folder(settings)
    known = find_known(settings.dataset)
    if settings.root is None:
        raise ConfigError(
            f"{known.title} is not downloaded for you: {known.get}, then give its folder with "
            f"--data ROOT; ROOT holds {expected_files(known, settings.layout)}, see data/README.md"
        )
    data = open_known(
        known,
        settings.root,
        layout=settings.layout,
        splits=settings.splits,
        labels=settings.labels,
        partial=settings.partial,
    )
    if not settings.round_colours:
        return data
    if data.encoding.colours is None:
        raise ConfigError(
            f"data.round_colours is for labels that are pictures; those of {known.name} in layout "
            f"{data.layout} hold numbers, leave it out"
        )
    return replace(data, encoding=replace(data.encoding, rounded=True))


def check_splits(settings: DataSettings, data: SegmentationData) -> None:
    """Refuse to select a network on images that it must not be selected on.

    Raises:
        ConfigError: validation is on the test split, or on images that are trained on.
        DataError: the validation split has no images.
    """
    train, val = settings.train_splits, settings.val_split
    if val is None:
        return
    without = "or train without validation, with data.val_split=null"
    if val == "test":
        raise ConfigError(
            "data.val_split must not be 'test', for scores on images that a network was selected "
            f"on say nothing; hold out a part of the training images, {without}"
        )
    if val in train:
        raise ConfigError(
            f"data.val_split must be a split that is not trained on, got '{val}' with "
            f"data.train_split={list(train)}; leave it out of data.train_split, {without}"
        )
    if data.layout == FOLDER and not any(image.split == val for image in data.images):
        found = ", ".join(sorted({image.split for image in data.images}))
        raise DataError(
            f"{data.root}: no image is in split '{val}' to validate on; there are: {found}; "
            f"make one with 'cvmh data split', {without}"
        )


def find_known(name: str) -> KnownSet:
    """Return a known data set by its name.

    Raises:
        ConfigError: there is none of that name; the nearest one is named.
    """
    if name in KNOWN:
        return KNOWN[name]
    names = [FOLDER, *KNOWN]
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(names)}"
    raise ConfigError(f"there is no data set '{name}'{hint}")


def _open_folder(settings: DataSettings) -> SegmentationData:
    if settings.root is None:
        raise ConfigError("data set 'folder' needs the folder it is in; give --data ROOT")
    for key, value, usual in (
        ("layout", settings.layout, None),
        ("splits", settings.splits, None),
        ("labels", settings.labels, "auto"),
        ("partial", settings.partial, False),
        ("round_colours", settings.round_colours, False),
    ):
        if value != usual:
            raise ConfigError(
                f"data.{key} is for known data sets ({', '.join(KNOWN)}), got {value!r} with "
                "data set 'folder'; leave it out"
            )
    return open_folder(settings.root)
