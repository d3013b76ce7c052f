"""ISPRS Potsdam: 38 scenes of 6000 x 6000 pixels at 5 cm."""

from dataclasses import replace

from cvmh.classes import ISPRS
from cvmh.datasets.known.isprs import (
    BOUNDARY_LAST,
    CAR,
    COLOURS,
    FROM_ONE,
    GEOSEG_COLOURED,
    GET,
    LICENCE,
    tiles,
)
from cvmh.datasets.known.sets import IRRG, RGBIR, KnownSet, Layout, Splits
from cvmh.datasets.labelled import LabelEncoding

TEST = tiles("2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13")
# The 24 with public labels from the beginning, without the three that are held out.
TRAIN = tiles(
    "2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_11 5_12 6_7 6_8 6_9 6_10 6_11 6_12 "
    "7_7 7_9 7_10 7_11 7_12"
)
HELD_OUT = tiles("2_10 5_10 7_8")
WRONG = "7_10"
SSRS_TEST = tiles("2_11 3_10 4_10 5_11 6_11 7_12")

# In the published label of tile 6_7 most cars are not quite yellow.
ENCODING = LabelEncoding(num_classes=len(ISPRS), colours={**COLOURS, (252, 255, 0): CAR})

_FIELDS = {"tile": "[0-9]+_[0-9]+", "chip": "[0-9_]+"}
_LABEL = "top_potsdam_{tile}_label.tif"
_ERODED = "top_potsdam_{tile}_label_noBoundary.tif"
_OFFICIAL = ("official", "cvmh-paper", "geoseg", "mmseg", "ssrs")
_GEOSEG = ("geoseg", "cvmh-paper", "official", "mmseg")

# The labels for participants come first, for among all labels that of tile 4_12 is damaged.
_RGB = Layout(
    name="isprs-rgb",
    image="2_Ortho_RGB/top_potsdam_{tile}_RGB.tif",
    label=(f"5_Labels_for_participants/{_LABEL}", f"5_Labels_all/{_LABEL}", _LABEL),
    eroded=(
        f"5_Labels_all_noBoundary/{_ERODED}",
        f"5_Labels_for_participants_no_Boundary/{_ERODED}",
        _ERODED,
    ),
    encoding=ENCODING,
    fields=_FIELDS,
    splits=_OFFICIAL,
)
_RGBIR_IMAGE = "4_Ortho_RGBIR/top_potsdam_{tile}_RGBIR.tif"
_GEOSEG_RGB = Layout(
    name="geoseg",
    image="{folder}_images/top_potsdam_{tile}_RGB.tif",
    label=(f"{{folder}}_masks/{_LABEL}",),
    eroded=(f"{{folder}}_masks_eroded/{_ERODED}",),
    encoding=replace(
        GEOSEG_COLOURED, colours={**(GEOSEG_COLOURED.colours or {}), (252, 255, 0): CAR}
    ),
    fields={**_FIELDS, "folder": "train|test"},
    splits=_GEOSEG,
)

POTSDAM = KnownSet(
    name="potsdam",
    title="ISPRS Potsdam",
    classes=ISPRS,
    size="38 scenes of 6000 x 6000",
    resolution="5 cm",
    gsd=0.05,
    licence=LICENCE,
    citation="Rottensteiner et al., ISPRS Annals I-3, 2012",
    get=GET,
    layouts=(
        _RGB,
        replace(
            _RGB,
            name="torchgeo",
            image=_RGBIR_IMAGE,
            label=(f"5_Labels_for_participants/{_LABEL}", _LABEL, f"5_Labels_all/{_LABEL}"),
            band_names=RGBIR,
        ),
        replace(
            _RGB,
            name="ssrs",
            image=_RGBIR_IMAGE,
            label=(f"5_Labels_for_participants/{_LABEL}",),
            eroded=(f"5_Labels_for_participants_no_Boundary/{_ERODED}",),
            band_names=RGBIR,
            splits=("ssrs",),
        ),
        replace(
            _RGB,
            name="isprs-irrg",
            image="3_Ortho_IRRG/top_potsdam_{tile}_IRRG.tif",
            band_names=IRRG,
        ),
        _GEOSEG_RGB,
        replace(
            _GEOSEG_RGB,
            name="geoseg-irrg",
            image="{folder}_images/top_potsdam_{tile}_IRRG.tif",
            band_names=IRRG,
        ),
        Layout(
            name="mmseg",
            image="img_dir/{folder}/{tile}_{chip}.png",
            eroded=("ann_dir/{folder}/{tile}_{chip}.png",),
            encoding=FROM_ONE,
            fields={"tile": "[0-9]+_[0-9]+", "chip": "[0-9]+_[0-9]+_[0-9]+_[0-9]+"},
            splits=("mmseg", "official", "cvmh-paper", "geoseg"),
            tiled=True,
        ),
        # Chips 0_N; those that begin with 1 or 2 are the same flipped.
        Layout(
            name="geoseg-tiles",
            image="{folder}/images_1024/top_potsdam_{tile}_{chip}.tif",
            label=("train/masks_1024/top_potsdam_{tile}_{chip}.png",),
            eroded=("test/masks_1024/top_potsdam_{tile}_{chip}.png",),
            encoding=BOUNDARY_LAST,
            fields={"tile": "[0-9]+_[0-9]+", "folder": "train|test", "chip": "0_[0-9]+"},
            splits=_GEOSEG,
            tiled=True,
        ),
    ),
    splits={
        "official": Splits(
            about="the benchmark's 24 and 14; three of the 24 from three rows of the city held out",
            tiles={"train": TRAIN, "val": HELD_OUT, "test": TEST},
        ),
        "cvmh-paper": Splits(
            about="the CVMH-UNet paper: without 7_10, whose label is wrong; the same three out",
            tiles={
                "train": tuple(tile for tile in TRAIN if tile != WRONG),
                "val": HELD_OUT,
                "test": TEST,
            },
        ),
        "geoseg": Splits(
            about="GeoSeg and UNetFormer: without 7_10, and 2_10 to validate on",
            tiles={
                "train": tuple(tile for tile in (*TRAIN, "5_10", "7_8") if tile != WRONG),
                "val": ("2_10",),
                "test": TEST,
            },
        ),
        "mmseg": Splits(
            about="mmsegmentation: the official split, whose test it calls val",
            tiles={"train": TRAIN, "val": HELD_OUT, "test": TEST},
        ),
        "ssrs": Splits(
            about="SSRS: 18 and 6 of the scenes for participants; the same three held out",
            tiles={
                "train": tuple(tile for tile in TRAIN if tile not in SSRS_TEST),
                "val": HELD_OUT,
                "test": SSRS_TEST,
            },
        ),
    },
)
