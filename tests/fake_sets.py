"""The known data sets as small fakes, with the real names of their files and folders.

Names, numbers and colours are typed here once more, on purpose: they check those of the package.
"""

import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

DRIVERS = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}
SQUARE = 8
ERODED = 2

ISPRS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]
ORANGE_CARS = [*ISPRS[:4], (255, 204, 0), ISPRS[5]]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
UAVID = [
    (128, 0, 0),
    (128, 64, 128),
    (0, 128, 0),
    (128, 128, 0),
    (64, 0, 128),
    (192, 0, 192),
    (64, 64, 0),
    BLACK,
]
DEEPGLOBE = [(0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), WHITE]
ISAID = [
    (0, 0, 0),
    (0, 0, 63),
    (0, 63, 63),
    (0, 63, 0),
    (0, 63, 127),
    (0, 63, 191),
    (0, 63, 255),
    (0, 127, 63),
    (0, 127, 127),
    (0, 0, 127),
    (0, 0, 191),
    (0, 0, 255),
    (0, 191, 127),
    (0, 127, 191),
    (0, 127, 255),
    (0, 100, 155),
]

POTSDAM_TEST = "2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13".split()
POTSDAM_TRAIN = [
    *(f"{row}_{column}" for row in range(2, 6) for column in (10, 11, 12)),
    *(f"{row}_{column}" for row in (6, 7) for column in range(7, 13)),
]
POTSDAM = [*POTSDAM_TRAIN, *POTSDAM_TEST]
VAIHINGEN_TRAIN = "1 3 5 7 11 13 15 17 21 23 26 28 30 32 34 37".split()
VAIHINGEN_TEST = "2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38".split()
VAIHINGEN = [*VAIHINGEN_TRAIN, *VAIHINGEN_TEST]
LOVEDA = {
    "Train": {"Rural": (0, 9), "Urban": (1366, 2406)},
    "Val": {"Rural": (2522,), "Urban": (3514,)},
    "Test": {"Rural": (4191,), "Urban": (5167,)},
}
UAVID_FRAMES = {"train": ("seq1", "seq2"), "val": ("seq16",), "test": ("seq21",)}
LANDCOVER_CHIPS = {
    "train": ("M-33-20-D-c-4-2_0", "N-33-60-D-c-4-2_12"),
    "val": ("M-33-20-D-c-4-2_1",),
    "test": ("N-33-60-D-c-4-2_3",),
}
LANDCOVER_SCENES = [
    *(f"M-33-{n}-A-c-4-{m}" for n in (7, 20, 32, 48) for m in (1, 2, 4)),
    *(f"N-34-{n}-B-b-3-{m}" for n in (61, 66, 77, 94) for m in (1, 3)),
]
DEEPGLOBE_IDS = [str(119 + 25_951 * number % 999_983) for number in range(30)]
GID = {
    "train": ("GF2_PMS1__L1A0000564539-MSS1", "GF2_PMS1__L1A0000575925-MSS1"),
    "val": ("GF2_PMS2__L1A0000607681-MSS2",),
    "test": ("GF2_PMS2__L1A0000647770-MSS2",),
}
ISAID_IMAGES = {"train": ("P0000", "P0001"), "val": ("P0003",), "test": ("P0006",)}
OEM = {
    "train": ("aachen_10", "al_qurnah_1", "kujawsko-pomorskie_3"),
    "val": ("aachen_11", "al_qurnah_12"),
    "test": ("aachen_2",),
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image with its labels, by their paths; ``key`` seeds what is drawn."""

    key: str
    image: str
    label: str | None = None
    eroded: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fake:
    """How a fake is written: pairs of files, codes of the classes and of ignored pixels."""

    pairs: list
    codes: list
    ignored: object = None
    bands: int = 3
    crs: str | None = None
    gsd: float = 0.25
    grey_picture: bool = False
    palette: bool = False
    texts: dict = field(default_factory=dict)
    # False where only a few images of each split are written.
    complete: bool = False


def draw(key, num_classes, size=64):
    """Return class ids (size, size) of squares, each class at least once."""
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    squares = generator.integers(num_classes, size=(size // SQUARE) ** 2)
    squares[:num_classes] = generator.permutation(num_classes)
    squares = squares.reshape(size // SQUARE, -1)
    return squares.repeat(SQUARE, axis=0).repeat(SQUARE, axis=1).astype("uint8")


def erode(ids):
    """Return ids with 255 within a pixel or so of another class."""
    eroded = ids.copy()
    for axis in (0, 1):
        for shift in range(-ERODED, ERODED + 1):
            eroded[np.roll(ids, shift, axis=axis) != ids] = 255
    return eroded


def _isprs_pairs(name, tiles, image, label, eroded):
    return [
        Pair(
            key=f"{name} {tile}",
            image=image.format(tile),
            label=label and label.format(tile),
            eroded=eroded and eroded.format(tile),
        )
        for tile in tiles
    ]


def _potsdam(tiles, image, label=None, eroded=None, **options):
    return Fake(
        pairs=_isprs_pairs("potsdam", tiles, image, label, eroded),
        **{
            "codes": ISPRS,
            "ignored": BLACK,
            "crs": "EPSG:32633",
            "gsd": 0.05,
            "complete": True,
            **options,
        },
    )


def _vaihingen(tiles, image, label=None, eroded=None, **options):
    return Fake(
        pairs=_isprs_pairs("vaihingen", tiles, image, label, eroded),
        **{"codes": ISPRS, "ignored": BLACK, "complete": True, **options},
    )


def _both(train, test):
    return [(tile, "train") for tile in train] + [(tile, "test") for tile in test]


def _geoseg(name, train, test, stem, suffix, label, eroded, **options):
    return Fake(
        pairs=[
            Pair(
                key=f"{name} {tile}",
                image=f"{folder}_images/{stem}{tile}{suffix}.tif",
                label=f"{folder}_masks/{stem}{tile}{label}.tif",
                eroded=f"{folder}_masks_eroded/{stem}{tile}{eroded}.tif",
            )
            for tile, folder in _both(train, test)
        ],
        codes=ORANGE_CARS,
        ignored=BLACK,
        complete=True,
        **options,
    )


def _geoseg_tiles(name, train, test, stem):
    pairs = []
    for tile, folder in _both(train, test):
        # In train each tile comes three times: as it is, and flipped in two ways.
        for way in (0, 1, 2) if folder == "train" else (0,):
            chip = f"{stem}{tile}_{way}_0"
            labels = {"label" if folder == "train" else "eroded": f"{folder}/masks_1024/{chip}.png"}
            pairs.append(
                Pair(key=f"{name} {chip}", image=f"{folder}/images_1024/{chip}.tif", **labels)
            )
    return Fake(pairs=pairs, codes=list(range(6)), ignored=6, complete=True)


def _isprs_mmseg(name, train, test, stem=""):
    pairs = []
    for tile, folder in _both(train, test):
        folder = {"train": "train", "test": "val"}[folder]
        for box in ("0_0_512_512", "5488_0_6000_512")[: 2 if tile == train[0] else 1]:
            file = f"{folder}/{stem}{tile}_{box}.png"
            pairs.append(
                Pair(key=f"{name} {tile} {box}", image=f"img_dir/{file}", eroded=f"ann_dir/{file}")
            )
    return Fake(pairs=pairs, codes=list(range(1, 7)), ignored=0, complete=True)


def _loveda(masks, codes, ignored):
    pairs = []
    for folder, parts in LOVEDA.items():
        for part, tiles in parts.items():
            for tile in tiles:
                base = f"{folder}/{part}"
                label = None if folder == "Test" else f"{base}/{masks}/{tile}.png"
                image = f"{base}/images_png/{tile}.png"
                pairs.append(Pair(key=f"loveda {tile}", image=image, label=label))
    return Fake(pairs=pairs, codes=codes, ignored=ignored)


def _loveda_mmseg():
    pairs = []
    for folder, parts in LOVEDA.items():
        for tile in (tile for tiles in parts.values() for tile in tiles):
            file = f"{folder.lower()}/{tile}.png"
            label = None if folder == "Test" else f"ann_dir/{file}"
            pairs.append(Pair(key=f"loveda {tile}", image=f"img_dir/{file}", label=label))
    return Fake(pairs=pairs, codes=list(range(1, 8)), ignored=0)


def _uavid():
    pairs = []
    for split, sequences in UAVID_FRAMES.items():
        for sequence in sequences:
            for frame in ("000000", "000100"):
                base = f"uavid_{split}/{sequence}"
                label = None if split == "test" else f"{base}/Labels/{frame}.png"
                image = f"{base}/Images/{frame}.png"
                pairs.append(Pair(key=f"uavid {sequence} {frame}", image=image, label=label))
    return Fake(pairs=pairs, codes=UAVID)


def _uavid_tiles():
    pairs = []
    for split in ("train", "val"):
        for sequence in UAVID_FRAMES[split]:
            for chip in ("0_0", "0_1"):
                file = f"{sequence}_000000_{chip}.png"
                pairs.append(
                    Pair(
                        key=f"uavid {file}",
                        image=f"{split}/images/{file}",
                        label=f"{split}/masks/{file}",
                    )
                )
    return Fake(pairs=pairs, codes=list(range(8)), ignored=255)


def _by_split(name, files, image, label, *, labelled=("train", "val", "test"), **options):
    return Fake(
        pairs=[
            Pair(
                key=f"{name} {file}",
                image=image.format(split=split, file=file),
                label=label.format(split=split, file=file) if split in labelled else None,
            )
            for split, names in files.items()
            for file in names
        ],
        **options,
    )


def _lists(files, suffix=""):
    return {
        f"{split}.txt": "".join(f"{name}{suffix}\n" for name in names)
        for split, names in files.items()
    }


def _openearthmap():
    pairs = [
        Pair(
            key=f"openearthmap {name}",
            image=f"{name.rpartition('_')[0]}/images/{name}.tif",
            label=None if split == "test" else f"{name.rpartition('_')[0]}/labels/{name}.tif",
        )
        for split, names in OEM.items()
        for name in names
    ]
    return Fake(
        pairs=pairs,
        codes=list(range(1, 9)),
        ignored=0,
        crs="EPSG:32632",
        texts=_lists(OEM, ".tif"),
    )


_TOP = "top_potsdam_{}"
_AREA = "top_mosaic_09cm_area{}"
_GEOSEG_POTSDAM = [tile for tile in POTSDAM_TRAIN if tile != "7_10"]
FAKES = {
    ("potsdam", "isprs-rgb"): _potsdam(
        POTSDAM,
        f"2_Ortho_RGB/{_TOP}_RGB.tif",
        f"5_Labels_all/{_TOP}_label.tif",
        f"5_Labels_all_noBoundary/{_TOP}_label_noBoundary.tif",
    ),
    ("potsdam", "torchgeo"): _potsdam(
        POTSDAM, f"4_Ortho_RGBIR/{_TOP}_RGBIR.tif", f"{_TOP}_label.tif", bands=4
    ),
    ("potsdam", "ssrs"): _potsdam(
        POTSDAM_TRAIN,
        f"4_Ortho_RGBIR/{_TOP}_RGBIR.tif",
        f"5_Labels_for_participants/{_TOP}_label.tif",
        f"5_Labels_for_participants_no_Boundary/{_TOP}_label_noBoundary.tif",
        bands=4,
    ),
    ("potsdam", "isprs-irrg"): _potsdam(
        POTSDAM, f"3_Ortho_IRRG/{_TOP}_IRRG.tif", f"5_Labels_all/{_TOP}_label.tif"
    ),
    ("potsdam", "geoseg"): _geoseg(
        "potsdam",
        _GEOSEG_POTSDAM,
        POTSDAM_TEST,
        "top_potsdam_",
        "_RGB",
        "_label",
        "_label_noBoundary",
    ),
    ("potsdam", "geoseg-irrg"): _geoseg(
        "potsdam",
        _GEOSEG_POTSDAM,
        POTSDAM_TEST,
        "top_potsdam_",
        "_IRRG",
        "_label",
        "_label_noBoundary",
    ),
    ("potsdam", "mmseg"): _isprs_mmseg("potsdam", POTSDAM_TRAIN, POTSDAM_TEST),
    ("potsdam", "geoseg-tiles"): _geoseg_tiles(
        "potsdam", _GEOSEG_POTSDAM, POTSDAM_TEST, "top_potsdam_"
    ),
    ("vaihingen", "torchgeo"): _vaihingen(VAIHINGEN, f"top/{_AREA}.tif", f"{_AREA}.tif"),
    ("vaihingen", "ssrs"): _vaihingen(
        VAIHINGEN_TRAIN,
        f"top/{_AREA}.tif",
        f"gts_for_participants/{_AREA}.tif",
        f"gts_eroded_for_participants/{_AREA}_noBoundary.tif",
    ),
    ("vaihingen", "geoseg"): _geoseg(
        "vaihingen",
        VAIHINGEN_TRAIN,
        VAIHINGEN_TEST,
        "top_mosaic_09cm_area",
        "",
        "",
        "_noBoundary",
    ),
    ("vaihingen", "mmseg"): _isprs_mmseg("vaihingen", VAIHINGEN_TRAIN, VAIHINGEN_TEST, "area"),
    ("vaihingen", "geoseg-tiles"): _geoseg_tiles(
        "vaihingen", VAIHINGEN_TRAIN, VAIHINGEN_TEST, "top_mosaic_09cm_area"
    ),
    ("loveda", "torchgeo"): _loveda("masks_png", list(range(1, 8)), 0),
    ("loveda", "geoseg"): _loveda("masks_png_convert", list(range(7)), 7),
    ("loveda", "mmseg"): _loveda_mmseg(),
    ("uavid", "official"): _uavid(),
    ("uavid", "geoseg-tiles"): _uavid_tiles(),
    ("landcoverai", "torchgeo"): _by_split(
        "landcoverai",
        LANDCOVER_CHIPS,
        "output/{file}.jpg",
        "output/{file}_m.png",
        codes=list(range(5)),
        grey_picture=True,
        texts=_lists(LANDCOVER_CHIPS),
    ),
    ("landcoverai", "scenes"): _by_split(
        "landcoverai",
        {"all": LANDCOVER_SCENES},
        "images/{file}.tif",
        "masks/{file}.tif",
        labelled=("all",),
        codes=list(range(5)),
        crs="EPSG:2180",
    ),
    ("deepglobe", "official"): _by_split(
        "deepglobe",
        {
            "train": [str(119 + 25_951 * n % 999_983) for n in range(30)],
            "valid": ("10452",),
            "test": ("7",),
        },
        "{split}/{file}_sat.jpg",
        "{split}/{file}_mask.png",
        labelled=("train",),
        codes=DEEPGLOBE,
        ignored=BLACK,
    ),
    ("deepglobe", "torchgeo"): _by_split(
        "deepglobe",
        {
            "training": [str(119 + 25_951 * n % 999_983) for n in range(20)],
            "test": ("1204", "2334"),
        },
        "{split}_data/images/{file}_sat.jpg",
        "{split}_data/masks/{file}_mask.png",
        labelled=("training", "test"),
        codes=DEEPGLOBE,
        ignored=BLACK,
    ),
    ("gid15", "torchgeo"): _by_split(
        "gid15",
        GID,
        "GID/img_dir/{split}/{file}.tif",
        "GID/ann_dir/{split}/{file}_15label.png",
        labelled=("train", "val"),
        codes=list(range(1, 16)),
        ignored=0,
        complete=True,
    ),
    ("isaid", "official"): _by_split(
        "isaid",
        ISAID_IMAGES,
        "{split}/images/{file}.png",
        "{split}/Semantic_masks/images/{file}_instance_color_RGB.png",
        labelled=("train", "val"),
        codes=ISAID,
    ),
    ("isaid", "mmseg"): _by_split(
        "isaid",
        {
            "train": ("P0000_0_896_0_896", "P0000_0_896_512_1408", "P0001_0_896_0_896"),
            "val": ("P0003_0_896_0_896",),
        },
        "img_dir/{split}/{file}.png",
        "ann_dir/{split}/{file}_instance_color_RGB.png",
        codes=list(range(16)),
        ignored=255,
        palette=True,
    ),
    ("openearthmap", "official"): _openearthmap(),
}


def write_fake(root, name, layout, *, size=64):
    """Write a fake and return the class ids of its labels by path."""
    fake = FAKES[name, layout]
    drawn = {}
    for number, pair in enumerate(fake.pairs):
        ids = draw(pair.key, len(fake.codes), size)
        _write(root / pair.image, _picture(pair.key, ids, fake.bands), number, fake)
        if pair.eroded is None and fake.ignored is not None and fake.codes is not ISPRS:
            ids[:SQUARE, -SQUARE:] = 255
        for path, wanted in ((pair.label, ids), (pair.eroded, erode(ids))):
            if path is not None:
                _write(root / path, _encode(wanted, fake), number, fake, is_label=True)
                drawn[path] = wanted
    for file, text in fake.texts.items():
        (root / file).write_text(text, encoding="utf-8")
    return drawn


def _picture(key, ids, bands):
    """Return an image (bands, H, W) whose colours tell the classes."""
    generator = np.random.default_rng(zlib.crc32(f"image {key}".encode()))
    colours = np.random.default_rng(0).integers(20, 236, size=(20, bands))
    noise = generator.integers(-15, 16, size=(bands, *ids.shape))
    return (colours[ids].transpose(2, 0, 1) + noise).astype("uint8")


def _encode(ids, fake):
    codes = np.zeros((256, np.size(fake.codes[0])), dtype="uint8")
    codes[: len(fake.codes)] = np.reshape(fake.codes, (len(fake.codes), -1))
    if fake.ignored is not None:
        codes[255] = fake.ignored
    label = codes[ids].transpose(2, 0, 1)
    return label.repeat(3, axis=0) if fake.grey_picture else label


def _write(path: Path, array, number, fake, *, is_label=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    place = {}
    if fake.crs and path.suffix == ".tif":
        # Scenes lie side by side.
        left = 500_000 + fake.gsd * width * number
        grid = Affine(fake.gsd, 0, left, 0, -fake.gsd, 5_600_000)
        place = {"crs": fake.crs, "transform": grid}
    size = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
    if path.suffix == ".jpg":
        place["quality"] = 95
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with (
            rasterio.Env(GDAL_PAM_ENABLED=False),
            rasterio.open(path, "w", driver=DRIVERS[path.suffix], **size, **place) as dataset,
        ):
            dataset.write(array)
            if is_label and fake.palette:
                dataset.write_colormap(1, {n: (n, n, n, 255) for n in range(256)})
