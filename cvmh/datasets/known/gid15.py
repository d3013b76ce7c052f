"""GID-15: 150 scenes of Gaofen-2, 7200 x 6800 pixels."""

from cvmh.classes import NODATA_ID, ClassTable, SegClass
from cvmh.datasets.known.sets import KnownSet, Layout, Splits
from cvmh.datasets.labelled import LabelEncoding

CLASSES = ClassTable(
    (
        SegClass(id=0, name="industrial_land", rgb=(200, 0, 0)),
        SegClass(id=1, name="urban_residential", rgb=(250, 0, 150)),
        SegClass(id=2, name="rural_residential", rgb=(200, 150, 150)),
        SegClass(id=3, name="traffic_land", rgb=(250, 150, 150)),
        SegClass(id=4, name="paddy_field", rgb=(0, 200, 0)),
        SegClass(id=5, name="irrigated_land", rgb=(150, 250, 0)),
        SegClass(id=6, name="dry_cropland", rgb=(150, 200, 150)),
        SegClass(id=7, name="garden_plot", rgb=(200, 0, 200)),
        SegClass(id=8, name="arbor_woodland", rgb=(150, 0, 250)),
        SegClass(id=9, name="shrub_land", rgb=(150, 150, 250)),
        SegClass(id=10, name="natural_grassland", rgb=(250, 200, 0)),
        SegClass(id=11, name="artificial_grassland", rgb=(200, 200, 0)),
        SegClass(id=12, name="river", rgb=(0, 0, 200)),
        SegClass(id=13, name="lake", rgb=(0, 150, 200)),
        SegClass(id=14, name="pond", rgb=(0, 200, 250)),
    )
)

GID15 = KnownSet(
    name="gid15",
    title="GID-15",
    classes=CLASSES,
    size="150 scenes of 7200 x 6800",
    resolution="about 1 to 4 m",
    licence="no formal one; the authors allow academic use",
    citation="Tong et al., Remote Sensing of Environment 237, 2020",
    get="get gid-15.zip as captain-whu.github.io/GID15 says",
    layouts=(
        Layout(
            name="torchgeo",
            image="img_dir/{split}/{tile}.tif",
            label=("ann_dir/{split}/{tile}_15label.png",),
            # Zero is not labelled.
            encoding=LabelEncoding(
                num_classes=15,
                values={0: NODATA_ID, **{number + 1: number for number in range(15)}},
            ),
            folders={"train": "train", "val": "val", "test": "test"},
        ),
    ),
    splits={
        "official": Splits(
            about="the folders as published",
            unlabelled={"test": "they were kept for the contest"},
        ),
    },
)
