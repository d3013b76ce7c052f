"""iSAID: the 2806 images of DOTA, of very different sizes, with 15 kinds of objects."""

from cvmh.classes import NODATA_ID, ClassTable, SegClass
from cvmh.datasets.known.sets import KnownSet, Layout, Splits
from cvmh.datasets.labelled import LabelEncoding

CLASSES = ClassTable(
    (
        SegClass(id=0, name="background", rgb=(0, 0, 0)),
        SegClass(id=1, name="ship", rgb=(0, 0, 63)),
        SegClass(id=2, name="storage_tank", rgb=(0, 63, 63)),
        SegClass(id=3, name="baseball_diamond", rgb=(0, 63, 0)),
        SegClass(id=4, name="tennis_court", rgb=(0, 63, 127)),
        SegClass(id=5, name="basketball_court", rgb=(0, 63, 191)),
        SegClass(id=6, name="ground_track_field", rgb=(0, 63, 255)),
        SegClass(id=7, name="bridge", rgb=(0, 127, 63)),
        SegClass(id=8, name="large_vehicle", rgb=(0, 127, 127)),
        SegClass(id=9, name="small_vehicle", rgb=(0, 0, 127)),
        SegClass(id=10, name="helicopter", rgb=(0, 0, 191)),
        SegClass(id=11, name="swimming_pool", rgb=(0, 0, 255)),
        SegClass(id=12, name="roundabout", rgb=(0, 191, 127)),
        SegClass(id=13, name="soccer_ball_field", rgb=(0, 127, 191)),
        SegClass(id=14, name="plane", rgb=(0, 127, 255)),
        SegClass(id=15, name="harbor", rgb=(0, 100, 155)),
    )
)
_COLOURED = LabelEncoding(
    num_classes=16,
    colours={**{entry.rgb: entry.id for entry in CLASSES}, (255, 255, 255): NODATA_ID},
)
_LABEL = "{tile}_instance_color_RGB.png"

ISAID = KnownSet(
    name="isaid",
    title="iSAID",
    classes=CLASSES,
    size="2806 images of 800 to 13000 pixels a side",
    resolution="various",
    licence="academic use, no commercial use (labels iSAID, images DOTA)",
    citation="Waqas Zamir et al., iSAID, CVPR Workshops 2019; Xia et al., DOTA, CVPR 2018",
    get="get labels from captain-whu.github.io/iSAID and images from captain-whu.github.io/DOTA",
    layouts=(
        Layout(
            name="official",
            image="{split}/images/{tile}.png",
            label=(
                f"{{split}}/Semantic_masks/images/{_LABEL}",
                f"{{split}}/Semantic_masks/{_LABEL}",
            ),
            encoding=_COLOURED,
            fields={"tile": "P[0-9]+"},
            folders={"train": "train", "val": "val", "test": "test"},
        ),
        Layout(
            name="mmseg",
            image="img_dir/{split}/{tile}_{chip}.png",
            label=("ann_dir/{split}/{tile}_{chip}_instance_color_RGB.png",),
            encoding=LabelEncoding(num_classes=16),
            fields={"tile": "P[0-9]+", "chip": "[0-9]+_[0-9]+_[0-9]+_[0-9]+"},
            folders={"train": "train", "val": "val", "test": "test"},
            tiled=True,
        ),
    ),
    splits={
        "official": Splits(
            about="as published",
            counts={"train": 1411, "val": 458, "test": 937},
            unlabelled={"test": "they are kept on the benchmark's server"},
        ),
    },
)
