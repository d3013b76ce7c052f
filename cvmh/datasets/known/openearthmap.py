"""OpenEarthMap: 5000 images of 97 regions in 44 countries, at 25 to 50 cm."""

from cvmh.classes import NODATA_ID, ClassTable, SegClass
from cvmh.datasets.known.sets import KnownSet, Layout, Splits
from cvmh.datasets.labelled import LabelEncoding

CLASSES = ClassTable(
    (
        SegClass(id=0, name="bareland", rgb=(128, 0, 0)),
        SegClass(id=1, name="grass", rgb=(0, 255, 36)),
        SegClass(id=2, name="pavement", rgb=(148, 148, 148)),
        SegClass(id=3, name="road", rgb=(255, 255, 255)),
        SegClass(id=4, name="tree", rgb=(34, 97, 38)),
        SegClass(id=5, name="water", rgb=(0, 69, 255)),
        SegClass(id=6, name="cropland", rgb=(75, 181, 73)),
        SegClass(id=7, name="building", rgb=(222, 31, 7)),
    )
)

OPENEARTHMAP = KnownSet(
    name="openearthmap",
    title="OpenEarthMap",
    classes=CLASSES,
    size="5000 images of 1000 x 1000 or 1024 x 1024",
    resolution="25 to 50 cm",
    licence="labels CC BY-NC-SA 4.0; images as their sources say",
    citation="Xia et al., OpenEarthMap, WACV 2023",
    get="get OpenEarthMap.zip from zenodo.org/records/7223446",
    hint="images that come from xBD are put in by data/compile_xbd.py of bao18/open_earth_map",
    layouts=(
        Layout(
            name="official",
            image="{region}/images/{tile}.tif",
            label=("{region}/labels/{tile}.tif",),
            # Zero is unknown.
            encoding=LabelEncoding(
                num_classes=8,
                values={0: NODATA_ID, **{number + 1: number for number in range(8)}},
            ),
            lists={"train": "train.txt", "val": "val.txt", "test": "test.txt"},
        ),
    ),
    splits={
        "official": Splits(
            about="as published, every region in every split",
            counts={"train": 3000, "val": 500, "test": 1500},
            unlabelled={"test": "they are kept on the benchmark's server, codalab"},
        ),
    },
)
