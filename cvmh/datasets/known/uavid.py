"""UAVid: frames of 42 oblique drone videos, 3840 or 4096 x 2160 pixels."""

from dataclasses import replace

from cvmh.classes import NODATA_ID, ClassTable, SegClass
from cvmh.datasets.known.sets import KnownSet, Layout, Splits
from cvmh.datasets.labelled import LabelEncoding

# In the order of GeoSeg, whose index labels are numbered so.
CLASSES = ClassTable(
    (
        SegClass(id=0, name="building", rgb=(128, 0, 0)),
        SegClass(id=1, name="road", rgb=(128, 64, 128)),
        SegClass(id=2, name="tree", rgb=(0, 128, 0)),
        SegClass(id=3, name="low_vegetation", rgb=(128, 128, 0)),
        SegClass(id=4, name="moving_car", rgb=(64, 0, 128)),
        SegClass(id=5, name="static_car", rgb=(192, 0, 192)),
        SegClass(id=6, name="human", rgb=(64, 64, 0)),
        SegClass(id=7, name="clutter", rgb=(0, 0, 0)),
    )
)
COLOURED = LabelEncoding(
    num_classes=8,
    colours={**{entry.rgb: entry.id for entry in CLASSES}, (255, 255, 255): NODATA_ID},
)
SERVER = {"test": "they are kept on the benchmark's server, see uavid.nl"}

_OFFICIAL = Layout(
    name="official",
    image="{split}/seq{sequence}/Images/{frame}.png",
    label=("{split}/seq{sequence}/Labels/{frame}.png",),
    encoding=COLOURED,
    scene="seq{sequence}_{frame}",
    fields={"sequence": "[0-9]+", "frame": "[0-9]+"},
    folders={"uavid_train": "train", "uavid_val": "val", "uavid_test": "test"},
    splits=("official", "v1"),
)

UAVID = KnownSet(
    name="uavid",
    title="UAVid",
    classes=CLASSES,
    size="420 frames of 3840 x 2160 or 4096 x 2160",
    resolution="oblique",
    licence="CC BY-NC-SA 4.0",
    citation="Lyu et al., UAVid, ISPRS Journal 165, 2020",
    get="get uavid_v1.5_official_release_image.zip from uavid.nl",
    layouts=(
        _OFFICIAL,
        replace(
            _OFFICIAL,
            name="geoseg-tiles",
            image="{split}/images/seq{sequence}_{frame}_{chip}.png",
            label=("{split}/masks/seq{sequence}_{frame}_{chip}.png",),
            encoding=LabelEncoding(num_classes=8),
            fields={"sequence": "[0-9]+", "frame": "[0-9]+", "chip": "[0-9]+_[0-9]+"},
            folders={"train": "train", "val": "val"},
            tiled=True,
        ),
    ),
    splits={
        "official": Splits(
            about="version 1.5, by video: 20, 7 and 15 sequences of ten frames",
            counts={"train": 200, "val": 70, "test": 150},
            unlabelled=SERVER,
        ),
        "v1": Splits(
            about="version 1, by video: 15, 5 and 10 sequences of ten frames",
            counts={"train": 150, "val": 50, "test": 100},
            unlabelled=SERVER,
        ),
    },
)
