"""The published rows that the report shows, source by source, as printed there."""

from cvmh.report.published import Published

CVMH_PAPER = "Cao et al. 2024, arXiv 2410.05624, tables I and II"
GEOSEG = "GeoSeg README (its own runs)"
MMSEG = "mmsegmentation, configs/hrnet/metafile.yaml"
SSRS = "SSRS train_Mamba.py, issue 20 (users get 82.6)"
SECOND_HAND = "a table in the literature, second hand"
RE_RUN = "an independent re-run of six networks, second hand"
RSSEG = "rssegmentation README (January 2026)"
URBANSSF = "UrbanSSF README (ISPRS Journal 2025)"
ZJU = "zjujournals, LoveDA test table, second hand"

FROM_SCRATCH = "all trained alike, very likely from scratch and on full labels"
ON_TEST = "pretrained; checkpoint chosen on the test images"
ON_SERVER = "scored by the challenge's server"

# Method: IoU of impervious, building, low vegetation, tree, car; mF1, mIoU, OA.
PAPER = {
    "vaihingen": {
        "BANet": (71.57, 80.84, 52.02, 70.66, 45.54, 77.33, 64.13, 77.47),
        "ABCNet": (77.52, 88.09, 56.94, 75.23, 61.46, 83.11, 71.85, 84.80),
        "UNetFormer": (76.75, 87.18, 57.20, 74.49, 57.54, 82.33, 70.63, 83.74),
        "A2-FPN": (78.56, 87.12, 59.12, 75.12, 62.81, 83.67, 72.55, 84.41),
        "MAResU-Net": (80.27, 89.33, 59.87, 75.50, 65.28, 84.67, 74.05, 85.19),
        "MANet": (79.28, 88.10, 59.43, 76.14, 67.62, 84.76, 74.11, 85.37),
        "CMTFNet": (81.17, 89.31, 61.00, 75.86, 67.91, 85.38, 75.05, 85.04),
        "RS3Mamba": (79.78, 88.18, 58.70, 75.65, 63.58, 84.06, 73.18, 84.30),
        "CM-UNet": (79.77, 89.10, 59.43, 75.62, 66.56, 84.72, 74.10, 84.55),
        "CVMH-UNet": (81.92, 90.25, 62.11, 77.13, 68.44, 85.98, 75.97, 85.82),
    },
    "potsdam": {
        "BANet": (73.80, 80.25, 63.48, 58.86, 74.23, 82.19, 70.12, 82.56),
        "ABCNet": (81.94, 90.11, 71.89, 73.64, 82.75, 88.78, 80.07, 88.61),
        "UNetFormer": (82.00, 89.41, 71.08, 71.18, 82.41, 88.23, 79.22, 88.16),
        "A2-FPN": (82.54, 90.55, 71.78, 72.76, 82.82, 88.77, 80.09, 88.69),
        "MAResU-Net": (82.07, 90.73, 71.76, 72.36, 83.87, 88.81, 80.16, 88.75),
        "MANet": (82.36, 90.95, 71.66, 72.59, 83.34, 88.85, 80.23, 89.03),
        "CMTFNet": (82.49, 90.48, 71.81, 73.23, 83.07, 88.86, 80.22, 88.65),
        "RS3Mamba": (82.17, 89.83, 71.28, 72.49, 82.76, 88.54, 79.71, 87.99),
        "CM-UNet": (82.37, 90.66, 71.45, 72.94, 83.19, 88.79, 80.12, 88.48),
        "CVMH-UNet": (83.40, 90.70, 72.91, 73.97, 83.99, 89.35, 80.99, 88.96),
    },
}
# Data set, method: mF1, OA, mIoU.
GEOSEG_ROWS: tuple[tuple[str, str, float | None, float | None, float], ...] = (
    ("vaihingen", "UNetFormer", 90.30, 91.10, 82.54),
    ("vaihingen", "FT-UNetFormer", 91.17, 91.74, 83.98),
    ("potsdam", "UNetFormer", 92.64, 91.19, 86.52),
    ("potsdam", "FT-UNetFormer", 93.22, 91.87, 87.50),
    ("uavid", "UNetFormer", None, None, 67.63),
    ("loveda", "UNetFormer", None, None, 52.97),
)
# Data set, the split that mmseg scores, then mIoU at one scale and at several with flips, of
# FCN-HRNet W18s, W18 and W48.
MMSEG_ROWS = (
    ("potsdam", "test", ((77.64, 78.80), (78.26, 79.24), (78.39, 79.34))),
    ("vaihingen", "test", ((71.81, 73.10), (72.57, 74.09), (72.50, 73.52))),
    ("loveda", "val", ((49.28, 49.42), (50.81, 50.95), (51.42, 51.64))),
    ("isaid", "val", ((62.30, 62.97), (65.06, 65.60), (67.80, 68.53))),
)
# Data set, method: OA, mF1, mIoU, as printed.
PRINTED_ROWS = (
    ("vaihingen", "CM-UNet", 93.81, 92.01, 85.48),
    ("vaihingen", "UNetMamba", 92.46, 90.91, 83.43),
    ("vaihingen", "UNetFormer", 91.17, 89.48, 81.97),
    ("vaihingen", "DC-Swin", 92.28, 90.66, 83.07),
    ("vaihingen", "ABCNet", 91.94, 90.36, 82.49),
    ("potsdam", "RS3Mamba", 90.49, 91.69, 85.01),
    ("potsdam", "CM-UNet", 91.86, 93.05, 87.21),
    ("potsdam", "UNetFormer", 90.65, 91.71, 85.05),
    ("potsdam", "ABCNet", 91.30, 92.70, 86.50),
)
# Method: mF1, mIoU, OA on Potsdam.
RE_RUN_ROWS = (
    ("CMTFNet", 92.47, 86.16, 90.58),
    ("UNetFormer", 91.76, 84.96, 89.87),
    ("RS3Mamba", 92.31, 85.90, 90.21),
    ("PPMamba", 92.46, 86.15, 90.56),
    ("UNetMamba", 92.13, 85.64, 89.82),
    ("MSPAMamba", 92.98, 87.06, 90.96),
)
# Method, source, then mIoU by data set; whose protocols are not known, or none of cvmh's.
MIOU_ROWS: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("LoG-CAN", RSSEG, {"vaihingen": 83.0, "potsdam": 86.4}),
    ("SACANet", RSSEG, {"vaihingen": 83.7, "potsdam": 86.8}),
    ("DOCNet", RSSEG, {"vaihingen": 84.0, "potsdam": 87.1}),
    ("LOGCAN++", RSSEG, {"vaihingen": 83.9, "potsdam": 87.7}),
    ("UrbanSSF-T", URBANSSF, {"vaihingen": 83.3, "potsdam": 85.4, "uavid": 65.7}),
    ("UrbanSSF-S", URBANSSF, {"vaihingen": 84.5, "potsdam": 86.9, "uavid": 69.8}),
    ("UrbanSSF-L", URBANSSF, {"vaihingen": 85.0, "potsdam": 87.6, "uavid": 71.0}),
    ("LightFormer", "arXiv 2504.10834, abstract", {"vaihingen": 83.9}),
    ("PyramidMamba", "JAG 2025, abstract", {"vaihingen": 84.8, "potsdam": 88.0, "loveda": 54.8}),
    ("SAM2-ARAFNet", "Scientific Reports 2026, abstract", {"vaihingen": 85.43, "potsdam": 87.44}),
    ("MM-DINO (frozen DINOv3)", "its abstract", {"vaihingen": 83.93, "potsdam": 86.49}),
    ("MM-DINO with DSM", "its abstract", {"vaihingen": 84.32, "potsdam": 86.54}),
    ("MMFNet with DSM", "preprints.org 202508.0078", {"vaihingen": 83.50, "potsdam": 86.06}),
    ("FMTUNet with DSM", "FMTUNet README", {"vaihingen": 84.31, "potsdam": 86.32}),
    ("ADVMSeg (DINOv3)", "Remote Sensing 18(9) 1295", {"potsdam": 81.4, "gid15": 63.1}),
    ("UNetMamba", "its author, issue 28", {"loveda": 53.35}),
    ("MTP", "MTP README", {"loveda": 54.17}),
    ("RVSA-B", "RVSA issue 12", {"loveda": 52.44}),
    ("LoveNAS Swin-B", "LoveNAS README", {"loveda": 53.76}),
    ("D2LS (train and val)", "D2LS issue 20 (ICCV 2025)", {"loveda": 55.3}),
    ("UNetFormer", ZJU, {"loveda": 52.4}),
    ("SegFormer", ZJU, {"loveda": 50.4}),
    ("DC-Swin", ZJU, {"loveda": 50.6}),
    ("SatMamba", "SatMamba paper", {"openearthmap": 66.46}),
)
BENCHMARK = "dineth14/Mamba-Segmentation README (IGARSS 2026)"


def find_published(dataset: str) -> tuple[Published, ...]:
    """Return the rows of a data set, by protocol, unknown ones last; in each, best mIoU first."""
    rows = [row for row in PUBLISHED if row.dataset == dataset]
    return tuple(sorted(rows, key=lambda row: (row.protocol or "~", -(row.miou or 0))))


def _rows() -> tuple[Published, ...]:
    return (*_paper(), *_geoseg(), *_mmseg(), *_ssrs(), *_printed(), *_re_run(), *_miou())


def _paper() -> list[Published]:
    return [
        Published(
            dataset=dataset,
            method=method,
            source=CVMH_PAPER,
            protocol="cvmh-paper",
            caveat=FROM_SCRATCH,
            classes=figures[:5],
            mf1=figures[5],
            miou=figures[6],
            oa=figures[7],
        )
        for dataset, methods in PAPER.items()
        for method, figures in methods.items()
    ]


def _geoseg() -> list[Published]:
    return [
        Published(
            dataset=dataset,
            method=method,
            source=GEOSEG,
            protocol="geoseg",
            caveat=ON_SERVER if dataset in ("loveda", "uavid") else ON_TEST,
            mf1=mf1,
            oa=oa,
            miou=miou,
        )
        for dataset, method, mf1, oa, miou in GEOSEG_ROWS
    ]


def _mmseg() -> list[Published]:
    return [
        Published(
            dataset=dataset,
            method=f"FCN-HRNet {width}",
            source=MMSEG,
            protocol="mmseg",
            split=split,
            tta=tta,
            caveat="pretrained; several scales and flips" if tta else "pretrained; single scale",
            miou=miou,
        )
        for dataset, split, pairs in MMSEG_ROWS
        for width, pair in zip(("W18s", "W18", "W48"), pairs, strict=True)
        for tta, miou in zip((False, True), pair, strict=True)
    ]


def _ssrs() -> list[Published]:
    return [
        Published(
            dataset="vaihingen",
            method="RS3Mamba",
            source=SSRS,
            protocol="ssrs",
            caveat=ON_TEST,
            miou=82.78,
            mf1=90.34,
            oa=91.64,
        ),
        Published(
            dataset="loveda",
            method="RS3Mamba",
            source=SSRS,
            protocol="ssrs",
            caveat="urban images of the validation split; the classes of its mean are not certain",
            miou=50.58,
        ),
    ]


def _printed() -> list[Published]:
    return [
        Published(dataset=dataset, method=method, source=SECOND_HAND, oa=oa, mf1=mf1, miou=miou)
        for dataset, method, oa, mf1, miou in PRINTED_ROWS
    ]


def _re_run() -> list[Published]:
    return [
        Published(
            dataset="potsdam",
            method=method,
            source=RE_RUN,
            tta=True,
            caveat="one protocol for all, flips and turns averaged",
            mf1=mf1,
            miou=miou,
            oa=oa,
        )
        for method, mf1, miou, oa in RE_RUN_ROWS
    ]


def _miou() -> list[Published]:
    benchmark = [
        Published(
            dataset=dataset,
            method="VMamba-S, fixed decoder",
            source=BENCHMARK,
            split=split,
            caveat=caveat,
            miou=miou,
        )
        for dataset, split, caveat, miou in (
            ("potsdam", "test", "means of all six classes", 77.59),
            ("loveda", "val", "of the validation split", 55.66),
        )
    ]
    return benchmark + [
        Published(
            dataset=dataset,
            method=method,
            source=source,
            caveat="of the test split, as far as can be seen" if dataset == "loveda" else "",
            miou=miou,
        )
        for method, source, by_dataset in MIOU_ROWS
        for dataset, miou in by_dataset.items()
    ]


PUBLISHED = _rows()
