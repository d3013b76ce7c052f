"""The protocols of published scores: which images, which labels, which classes in the means.

What is said to be "code" is that of the named repository, read for this table; "inferred" is what
the authors do not say, but the level of their figures speaks for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cvmh.errors import ConfigError

# Eroded labels that a data set lacks are made here as those of ISPRS were: what lies within so
# many pixels of another class does not count.
EROSION_RADIUS = 3


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a protocol does with a data set.

    Args:
        splits: the table that divides the data set; None takes it as it was opened.
        split: the part of it that is scored.
        labels: "full", "eroded" (borders of classes ignored), or "any": those that there are.
        left_out: classes that the means leave out, where the data set has them.
        uncounted: classes whose labels do not count in overall accuracy and kappa.
        tta: average over flips and turns; None leaves that to whoever scores.
        note: in what this differs from what the authors did, or what is not certain.
    """

    splits: str | None = None
    split: str = "test"
    labels: Literal["any", "full", "eroded"] = "any"
    left_out: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    tta: bool | None = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A protocol: what it does with the known data sets that it is for, and with others.

    Args:
        name: as in ``--protocol``.
        about: what it is, in a line.
        source: where its facts come from.
        rules: by the name of the data set; empty for a protocol that is for all of them.
        otherwise: what it does with data sets of one's own.
    """

    name: str
    about: str
    source: str
    otherwise: Rule
    rules: Mapping[str, Rule] = field(default_factory=dict)

    def rule_for(self, dataset: str, *, is_known: bool) -> Rule:
        """Return what to do with a data set.

        Args:
            dataset: its name.
            is_known: whether it is a published set, with splits of its own.

        Raises:
            ConfigError: the protocol is not for this data set.
        """
        if not is_known or not self.rules:
            return self.otherwise
        if dataset not in self.rules:
            fitting = [name for name, other in PROTOCOLS.items() if other.fits(dataset)]
            raise ConfigError(
                f"protocol '{self.name}' is for {', '.join(self.rules)}, not for {dataset}; "
                f"take {' or '.join(fitting)}"
            )
        return self.rules[dataset]

    def fits(self, dataset: str) -> bool:
        """Return whether the protocol is for a known data set."""
        return not self.rules or dataset in self.rules


CLUTTER = ("clutter",)
_GEOSEG = Rule(
    splits="geoseg",
    labels="eroded",
    left_out=CLUTTER,
    tta=True,
    note="GeoSeg scores patches of 1024 pixels, and its mean F1 passes over a class that is never "
    "right, which counts 0 here",
)
_MMSEG = Rule(
    splits="mmseg",
    labels="eroded",
    note="mmseg calls the official test images val, selects on them, and scores patches of 512 "
    "pixels; its figures with several scales and flips are not these",
)
_SSRS = Rule(
    splits="ssrs",
    labels="eroded",
    left_out=CLUTTER,
    note="SSRS adds up windows of 256 pixels 32 apart, keeps the best of many tests on the test "
    "images, and reads label colours that it does not know as impervious",
)
_PAPER = Rule(
    splits="cvmh-paper",
    labels="full",
    left_out=CLUTTER,
    note="inferred: full labels (no black borders in the figures, and the level of the scores) "
    "and clutter in OA",
)
_ISPRS = Rule(
    splits="official",
    labels="eroded",
    left_out=CLUTTER,
    note="the benchmark lists F1 of five classes and OA; a mean IoU was added by later papers",
)

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="full",
            about="all classes, all labelled pixels",
            source="cvmh",
            otherwise=Rule(tta=None),
        ),
        Protocol(
            name="cvmh-paper",
            about="the CVMH-UNet paper: full labels, means without clutter",
            source="arXiv 2410.05624: splits in section IV, means of five classes recomputed from "
            "tables I and II",
            rules={"potsdam": _PAPER, "vaihingen": _PAPER},
            otherwise=replace(_PAPER, splits=None),
        ),
        Protocol(
            name="geoseg",
            about="GeoSeg and UNetFormer: eroded labels, means without clutter, TTA",
            source="code of WangLibo1995/GeoSeg: vaihingen_test.py, potsdam_test.py and "
            "loveda_test.py (means over [:-1] of ISPRS, OA of the whole matrix), tools/metric.py, "
            "README (patches of eroded labels; -t)",
            rules={
                "potsdam": replace(
                    _GEOSEG, note=f"its -t lr averages two flips, here all eight; {_GEOSEG.note}"
                ),
                "vaihingen": replace(
                    _GEOSEG,
                    note="its -t d4 averages flips, a quarter turn and five scales, here eight "
                    f"flips and turns of one scale; {_GEOSEG.note}",
                ),
                "loveda": Rule(
                    splits="official",
                    split="val",
                    tta=True,
                    note="its published LoveDA figures are of the labels on the server, trained on "
                    "train and val; its -t d4 averages a flip and four scales",
                ),
            },
            otherwise=replace(_GEOSEG, splits=None),
        ),
        Protocol(
            name="mmseg",
            about="mmsegmentation: eroded labels of the ISPRS sets, all classes in the means",
            source="code of open-mmlab/mmsegmentation: configs/_base_/datasets/potsdam.py and its "
            "neighbours, tools/dataset_converters, mmseg/evaluation/metrics/iou_metric.py",
            rules={
                "potsdam": _MMSEG,
                "vaihingen": _MMSEG,
                "loveda": Rule(splits="official", split="val", note="trained on train alone"),
                "isaid": Rule(
                    splits="official",
                    split="val",
                    note="mmseg scores patches of 896 pixels that overlap by 384, so pixels in "
                    "overlaps count several times there; the background is a class like others",
                ),
            },
            otherwise=replace(_MMSEG, splits=None),
        ),
        Protocol(
            name="ssrs",
            about="SSRS and RS3Mamba: eroded labels, means of the first five classes",
            source="code of sstary/SSRS: RS3Mamba/utils_Mamba.py (metrics, id lists), "
            "train_Mamba.py; Potsdam's list from its other folders",
            rules={
                "potsdam": _SSRS,
                "vaihingen": _SSRS,
                "loveda": Rule(
                    splits="ssrs",
                    left_out=("forest", "agriculture"),
                    note="urban images only; the code takes means over [:5] here too, which leaves "
                    "out forest and agriculture: whether its papers' figures do is not said",
                ),
            },
            otherwise=replace(_SSRS, splits=None),
        ),
        Protocol(
            name="isprs",
            about="the ISPRS benchmark: eroded labels, F1 of five classes, OA of all",
            source="ISPRS 2D Semantic Labeling Contest: borders eroded by a disc of 3 pixels do "
            "not count; splits as published with the test labels",
            rules={"potsdam": _ISPRS, "vaihingen": _ISPRS},
            otherwise=replace(_ISPRS, splits=None),
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by its name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol '{name}'; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
