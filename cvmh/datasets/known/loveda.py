"""LoveDA: 5987 images of 1024 x 1024 pixels at 0.3 m, urban and rural."""

from dataclasses import replace

from cvmh.classes import NODATA_ID, ClassTable, SegClass
from cvmh.datasets.known.sets import KnownSet, Layout, Splits
from cvmh.datasets.labelled import LabelEncoding

CLASSES = ClassTable(
    (
        SegClass(id=0, name="background", rgb=(255, 255, 255)),
        SegClass(id=1, name="building", rgb=(255, 0, 0)),
        SegClass(id=2, name="road", rgb=(255, 255, 0)),
        SegClass(id=3, name="water", rgb=(0, 0, 255)),
        SegClass(id=4, name="barren", rgb=(159, 129, 183)),
        SegClass(id=5, name="forest", rgb=(0, 255, 0)),
        SegClass(id=6, name="agriculture", rgb=(255, 195, 128)),
    )
)
# Zero is no data; classes are numbered from 1 ("reduce zero label").
FROM_ONE = LabelEncoding(
    num_classes=7, values={0: NODATA_ID, **{number + 1: number for number in range(7)}}
)
# GeoSeg numbers from 0 and puts no data last.
NODATA_LAST = LabelEncoding(
    num_classes=7, values={**{number: number for number in range(7)}, 7: NODATA_ID}
)


def _ids(*ranges: tuple[int, int]) -> tuple[str, ...]:
    """Return the names of the images in some ranges, both ends included."""
    return tuple(str(i) for first, last in ranges for i in range(first, last + 1))


# Images are numbered through the splits, first rural, then urban ones.
RURAL = {"train": (0, 1365), "val": (2522, 3513), "test": (4191, 5166)}
URBAN = {"train": (1366, 2521), "val": (3514, 4190), "test": (5167, 5986)}
SERVER = {"test": "they are kept on the challenge's server, codalab competition 421"}

_TORCHGEO = Layout(
    name="torchgeo",
    image="{folder}/{part}/images_png/{tile}.png",
    label=("{folder}/{part}/masks_png/{tile}.png",),
    encoding=FROM_ONE,
    fields={"folder": "Train|Val|Test", "part": "Urban|Rural", "tile": "[0-9]+"},
    splits=("official", "urban", "rural", "ssrs"),
)

LOVEDA = KnownSet(
    name="loveda",
    title="LoveDA",
    classes=CLASSES,
    size="5987 images of 1024 x 1024",
    resolution="30 cm",
    gsd=0.3,
    licence="CC BY-NC-SA 4.0",
    citation="Wang et al., LoveDA, NeurIPS Datasets and Benchmarks 2021",
    get="get Train.zip, Val.zip and Test.zip from zenodo.org/records/5706578",
    layouts=(
        _TORCHGEO,
        replace(
            _TORCHGEO,
            name="geoseg",
            label=("{folder}/{part}/masks_png_convert/{tile}.png",),
            encoding=NODATA_LAST,
        ),
        replace(
            _TORCHGEO,
            name="mmseg",
            image="img_dir/{folder}/{tile}.png",
            label=("ann_dir/{folder}/{tile}.png",),
            fields={"folder": "train|val|test", "tile": "[0-9]+"},
        ),
    ),
    splits={
        "official": Splits(
            about="as published, urban and rural images",
            tiles={split: _ids(RURAL[split], URBAN[split]) for split in RURAL},
            unlabelled=SERVER,
        ),
        "urban": Splits(
            about="the urban images of the official split",
            tiles={split: _ids(ids) for split, ids in URBAN.items()},
            unlabelled=SERVER,
        ),
        "rural": Splits(
            about="the rural images of the official split",
            tiles={split: _ids(ids) for split, ids in RURAL.items()},
            unlabelled=SERVER,
        ),
        "ssrs": Splits(
            about="SSRS: urban images, tested on val; the last tenth of train is held out",
            tiles={
                "train": _ids((1366, 2405)),
                "val": _ids((2406, 2521)),
                "test": _ids((3514, 4190)),
            },
        ),
    },
)
