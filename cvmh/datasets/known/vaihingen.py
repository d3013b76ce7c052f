"""ISPRS Vaihingen: 33 areas of about 2500 x 2000 pixels at 9 cm: near infrared, red, green."""

from dataclasses import replace

from cvmh.classes import ISPRS
from cvmh.datasets.known.isprs import (
    BOUNDARY_LAST,
    COLOURED,
    FROM_ONE,
    GEOSEG_COLOURED,
    GET,
    LICENCE,
    tiles,
)
from cvmh.datasets.known.sets import IRRG, KnownSet, Layout, Splits

TEST = tiles("2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38")
# The 16 with public labels from the beginning are these twelve and those four.
TRAIN = tiles("1 3 7 11 13 17 23 26 28 32 34 37")
SSRS_TEST = tiles("5 15 21 30")
SSRS_HELD_OUT = tiles("11 28")

_TILE = "[0-9]+"
_IMAGE = "top/top_mosaic_09cm_area{tile}.tif"
_LABEL = "top_mosaic_09cm_area{tile}.tif"
_ERODED = "top_mosaic_09cm_area{tile}_noBoundary.tif"
_ALL = "ISPRS_semantic_labeling_Vaihingen_ground_truth"
_OFFICIAL = ("official", "geoseg", "mmseg", "ssrs", "cvmh-paper")

_TORCHGEO = Layout(
    name="torchgeo",
    image=_IMAGE,
    label=(_LABEL, f"{_ALL}_COMPLETE/{_LABEL}", f"gts_for_participants/{_LABEL}"),
    eroded=(
        _ERODED,
        f"{_ALL}_eroded_COMPLETE/{_ERODED}",
        f"gts_eroded_for_participants/{_ERODED}",
    ),
    encoding=COLOURED,
    fields={"tile": _TILE},
    splits=_OFFICIAL,
    band_names=IRRG,
)

VAIHINGEN = KnownSet(
    name="vaihingen",
    title="ISPRS Vaihingen",
    classes=ISPRS,
    size="33 areas of about 2500 x 2000",
    resolution="9 cm",
    gsd=0.09,
    licence=LICENCE,
    citation="Rottensteiner et al., ISPRS Annals I-3, 2012; Cramer, PFG 2, 2010 (DGPF test)",
    get=GET,
    layouts=(
        _TORCHGEO,
        replace(
            _TORCHGEO,
            name="ssrs",
            label=(f"gts_for_participants/{_LABEL}",),
            eroded=(f"gts_eroded_for_participants/{_ERODED}",),
            splits=("ssrs", "cvmh-paper"),
        ),
        replace(
            _TORCHGEO,
            name="geoseg",
            image="{folder}_images/top_mosaic_09cm_area{tile}.tif",
            label=(f"{{folder}}_masks/{_LABEL}",),
            eroded=(f"{{folder}}_masks_eroded/{_ERODED}",),
            encoding=GEOSEG_COLOURED,
            fields={"tile": _TILE, "folder": "train|test"},
            splits=("geoseg", "official", "mmseg", "ssrs", "cvmh-paper"),
        ),
        replace(
            _TORCHGEO,
            name="mmseg",
            image="img_dir/{folder}/area{tile}_{chip}.png",
            label=(),
            eroded=("ann_dir/{folder}/area{tile}_{chip}.png",),
            encoding=FROM_ONE,
            fields={"tile": _TILE, "chip": "[0-9]+_[0-9]+_[0-9]+_[0-9]+"},
            splits=("mmseg", "official", "geoseg", "ssrs", "cvmh-paper"),
            tiled=True,
        ),
        # Chips 0_N; those that begin with another number are the same flipped.
        replace(
            _TORCHGEO,
            name="geoseg-tiles",
            image="{folder}/images_1024/top_mosaic_09cm_area{tile}_{chip}.tif",
            label=("train/masks_1024/top_mosaic_09cm_area{tile}_{chip}.png",),
            eroded=("test/masks_1024/top_mosaic_09cm_area{tile}_{chip}.png",),
            encoding=BOUNDARY_LAST,
            fields={"tile": _TILE, "folder": "train|test", "chip": "0_[0-9]+"},
            splits=("geoseg", "official", "mmseg"),
            tiled=True,
        ),
    ),
    splits={
        "official": Splits(
            about="the benchmark's 16 and 17; the four areas held out that SSRS scores on",
            tiles={"train": TRAIN, "val": SSRS_TEST, "test": TEST},
        ),
        "geoseg": Splits(
            about="GeoSeg and UNetFormer: the official split, and area 30 to validate on",
            tiles={"train": (*TRAIN, "5", "15", "21"), "val": ("30",), "test": TEST},
        ),
        "mmseg": Splits(
            about="mmsegmentation: the official split, whose test it calls val; it has no area 9",
            tiles={"train": TRAIN, "val": SSRS_TEST, "test": TEST},
        ),
        "ssrs": Splits(
            about="SSRS: 12 and 4 of the areas for participants; two of the twelve held out",
            tiles={
                "train": tuple(tile for tile in TRAIN if tile not in SSRS_HELD_OUT),
                "val": SSRS_HELD_OUT,
                "test": SSRS_TEST,
            },
        ),
        "cvmh-paper": Splits(
            about="the CVMH-UNet paper: the split of SSRS",
            tiles={
                "train": tuple(tile for tile in TRAIN if tile not in SSRS_HELD_OUT),
                "val": SSRS_HELD_OUT,
                "test": SSRS_TEST,
            },
        ),
    },
)
