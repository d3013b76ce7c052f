"""LandCover.ai v1: 41 orthophotos of Poland at 25 and 50 cm."""

from cvmh.classes import ClassTable, SegClass
from cvmh.datasets.known.sets import KnownSet, Layout, Splits
from cvmh.datasets.labelled import LabelEncoding

# The background is transparent in the published legend; white stands for it here.
CLASSES = ClassTable(
    (
        SegClass(id=0, name="background", rgb=(255, 255, 255)),
        SegClass(id=1, name="building", rgb=(97, 74, 74)),
        SegClass(id=2, name="woodland", rgb=(38, 115, 0)),
        SegClass(id=3, name="water", rgb=(0, 197, 255)),
        SegClass(id=4, name="road", rgb=(207, 207, 207)),
    )
)

LANDCOVERAI = KnownSet(
    name="landcoverai",
    title="LandCover.ai",
    classes=CLASSES,
    size="41 scenes of about 9000 x 9500 and 4200 x 4700, or 10674 chips of 512 x 512",
    resolution="25 and 50 cm",
    licence="CC BY-NC-SA 4.0",
    citation="Boguszewski et al., LandCover.ai, CVPR Workshops 2021",
    get="get landcover.ai.v1.zip from landcover.ai.linuxpolska.com; its split.py cuts the chips",
    layouts=(
        Layout(
            name="torchgeo",
            image="output/{tile}.jpg",
            label=("output/{tile}_m.png",),
            # The published script writes its masks as grey pictures.
            encoding=LabelEncoding(num_classes=5, grey_picture=True),
            lists={"train": "train.txt", "val": "val.txt", "test": "test.txt"},
        ),
        Layout(
            name="scenes",
            image="images/{tile}.tif",
            label=("masks/{tile}.tif",),
            encoding=LabelEncoding(num_classes=5),
            splits=("by-scene",),
        ),
    ),
    splits={
        "official": Splits(
            about="as published: chips drawn at random, so train and test lie in the same scenes",
            counts={"train": 7470, "val": 1602, "test": 1602},
        ),
        "by-scene": Splits(
            about="our own: one in six scenes each for val and test, by a checksum",
            held_out={"val": ("train", 6), "test": ("train", 6)},
            total=41,
        ),
    },
)
