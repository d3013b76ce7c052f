"""DeepGlobe land cover: 803 labelled images of 2448 x 2448 pixels at 50 cm."""

from cvmh.classes import NODATA_ID, ClassTable, SegClass
from cvmh.datasets.known.sets import KnownSet, Layout, Splits
from cvmh.datasets.labelled import LabelEncoding

CLASSES = ClassTable(
    (
        SegClass(id=0, name="urban", rgb=(0, 255, 255)),
        SegClass(id=1, name="agriculture", rgb=(255, 255, 0)),
        SegClass(id=2, name="rangeland", rgb=(255, 0, 255)),
        SegClass(id=3, name="forest", rgb=(0, 255, 0)),
        SegClass(id=4, name="water", rgb=(0, 0, 255)),
        SegClass(id=5, name="barren", rgb=(255, 255, 255)),
    )
)
# Black is unknown. The colours on disk are not always pure; the readme of the challenge asks to
# cut each of red, green and blue at 128.
_COLOURED = LabelEncoding(
    num_classes=6,
    colours={**{entry.rgb: entry.id for entry in CLASSES}, (0, 0, 0): NODATA_ID},
    rounded=True,
)
_TILE = {"tile": "[0-9]+"}
_WITHHELD = "only the images of train were published with labels"

DEEPGLOBE = KnownSet(
    name="deepglobe",
    title="DeepGlobe land cover",
    classes=CLASSES,
    size="803 labelled images of 2448 x 2448",
    resolution="50 cm",
    gsd=0.5,
    licence="DeepGlobe challenge terms: research, no redistribution",
    citation="Demir et al., DeepGlobe 2018, CVPR Workshops 2018",
    get="get it from kaggle.com/datasets/balraj98/deepglobe-land-cover-classification-dataset",
    layouts=(
        Layout(
            name="official",
            image="{split}/{tile}_sat.jpg",
            label=("{split}/{tile}_mask.png",),
            encoding=_COLOURED,
            fields=_TILE,
            folders={"train": "train", "land-train": "train"},
            splits=("by-image",),
        ),
        Layout(
            name="torchgeo",
            image="{split}/images/{tile}_sat.jpg",
            label=("{split}/masks/{tile}_mask.png",),
            encoding=_COLOURED,
            fields=_TILE,
            folders={"training_data": "train", "test_data": "test"},
            splits=("torchgeo",),
        ),
    ),
    splits={
        "by-image": Splits(
            about="our own: one in ten images each for val and test, by a checksum of the name",
            held_out={"val": ("train", 10), "test": ("train", 10)},
            total=803,
            unlabelled={"valid": _WITHHELD},
        ),
        "torchgeo": Splits(
            about="torchgeo's folders; one in ten images of training_data held out by a checksum",
            held_out={"val": ("train", 10)},
            total=803,
        ),
    },
)
