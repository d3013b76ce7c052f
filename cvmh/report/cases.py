"""From the name of a protocol to the images and labels that it scores, checked before any work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from cvmh.datasets import LabelledImage, SegmentationData
from cvmh.datasets.known import KNOWN
from cvmh.errors import ConfigError, CvmhError, DataError
from cvmh.metrics import PROTOCOLS, Facts, Protocol, Rule, find_protocol
from cvmh.metrics.protocols import EROSION_RADIUS
from cvmh.models.bundle import BundleCard
from cvmh.report.seen import Seen, find_seen

# Opens the data set again, divided by another table.
Reopen = Callable[[str], SegmentationData]
# Asks for every protocol that can be scored.
ALL = "all"
# What the split of a set is called that follows no published table.
OWN_SPLIT = "own"
# So many names of images are told in a message.
NAMED = 4


class LabelKind(Enum):
    """Which label of an image is scored: the given one, the set's eroded one, or one made here."""

    GIVEN = "given"
    ERODED = "eroded"
    MADE = "made"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A protocol on a data set: what is scored, and what is said about it with the scores."""

    protocol: str
    data: SegmentationData
    split: str
    images: tuple[LabelledImage, ...]
    kind: LabelKind
    facts: Facts

    @property
    def has_full_labels(self) -> bool:
        """True if class borders are labelled, so that they can be scored."""
        return self.facts.labels == "full"


def make_cases(
    card: BundleCard,
    data: SegmentationData,
    names: Sequence[str],
    *,
    split: str | None = None,
    tta: bool = False,
    reopen: Reopen | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Case]:
    """Find out what each of several protocols scores; the name "all" stands for those that can be.

    Args:
        card: of the bundle that is to be scored.
        data: the data set.
        names: of protocols.
        split: scored instead of the protocols' own.
        tta: average over flips and turns in protocols that leave it open.
        reopen: opens the data set by another split table, where a protocol wants one.
        tell: receives a line for each protocol that "all" leaves out.

    Raises:
        ConfigError: a protocol is unknown, not for this data set, or would score what the bundle
            was trained on; or bundle and data set have different classes.
        DataError: a split is empty or lacks the labels that a protocol scores.
    """
    check_classes(card, data)

    def make(name: str) -> Case:
        return _make_case(card, data, find_protocol(name), split=split, tta=tta, reopen=reopen)

    if ALL not in names:
        return [make(name) for name in dict.fromkeys(names)]
    cases = []
    for name in PROTOCOLS:
        try:
            cases.append(make(name))
        except CvmhError as error:
            if name == "full":
                raise
            tell(f"protocol {name} is left out: {error}")
    return cases


def check_classes(card: BundleCard, data: SegmentationData) -> None:
    """Refuse a data set whose classes are not those of the bundle, in its order.

    Raises:
        ConfigError: they are not; the message names those that differ.
    """
    mine, theirs = card.classes.names, data.classes.names
    if mine == theirs:
        return
    missing = [name for name in mine if name not in theirs]
    strange = [name for name in theirs if name not in mine]
    parts = [
        f"{who} lacks {', '.join(names)}"
        for who, names in (("the data set", missing), ("the bundle", strange))
        if names
    ]
    raise ConfigError(
        f"the bundle knows the classes {', '.join(mine)}, but data set {data.root} has "
        f"{', '.join(theirs)} ({'; '.join(parts) or 'in another order'}); they must be the same, "
        "in one order: train on this data set, or start from the bundle with --init"
    )


def _make_case(
    card: BundleCard,
    data: SegmentationData,
    protocol: Protocol,
    *,
    split: str | None,
    tta: bool,
    reopen: Reopen | None,
) -> Case:
    is_known = data.name in KNOWN and data.layout != "folder"
    is_copy = _is_copy(data)
    rule = protocol.rule_for(data.name, is_known=is_known or is_copy)
    # A copy is divided as it was prepared, once and for all.
    divided = data if is_copy else _divided(data, protocol.name, rule.splits, reopen)
    name = split or rule.split
    images = divided.of_split(name)
    kind, labels, labels_from = _choose_labels(protocol.name, rule, images, divided, name)
    seen = find_seen(card, divided, images, reopen=reopen)
    if split is None and rule.splits is not None:
        _refuse_trained(protocol.name, rule, seen)
    facts = Facts(
        labels="eroded" if labels == "eroded" else "full",
        labels_from=labels_from,
        splits="" if divided.splits == OWN_SPLIT else divided.splits,
        splits_meant=_table_missed(divided, rule.splits) if is_copy else "",
        left_out=_present(rule.left_out, divided),
        uncounted=_present(rule.uncounted, divided),
        tta=tta if rule.tta is None else rule.tta,
        is_stitched=not (is_known and KNOWN[divided.name].layout(divided.layout).tiled),
        trained_on=f"{card.splits} {card.train_split}" if is_known and seen.is_known else "",
        seen_in=seen.where,
        seen=seen.told(NAMED) if seen.where else "",
        note=rule.note,
        source=protocol.source,
    )
    return Case(
        protocol=protocol.name, data=divided, split=name, images=images, kind=kind, facts=facts
    )


def _divided(
    data: SegmentationData, protocol: str, table: str | None, reopen: Reopen | None
) -> SegmentationData:
    if table is None or table == data.splits:
        return data
    if reopen is None:
        raise ConfigError(
            f"protocol '{protocol}' divides {data.name} by table '{table}', but it was opened with "
            f"'{data.splits}'; open it with data.splits={table}"
        )
    try:
        return reopen(table)
    except CvmhError as error:
        raise type(error)(
            f"protocol '{protocol}' divides {data.name} by table '{table}': {error}"
        ) from error


def _is_copy(data: SegmentationData) -> bool:
    """Return whether a folder says that it is a known set, divided by a published table."""
    is_folder = data.layout == "folder" and data.name in KNOWN
    return is_folder and data.splits in KNOWN[data.name].splits


def _table_missed(data: SegmentationData, wanted: str | None) -> str:
    """Return the table that a protocol wants where a copy follows another one, else nothing."""
    if wanted is None or KNOWN[data.name].is_one_table(wanted, data.splits):
        return ""
    return wanted


def _choose_labels(
    protocol: str, rule: Rule, images: Sequence[LabelledImage], data: SegmentationData, split: str
) -> tuple[LabelKind, str, str]:
    """Return which labels are scored, what they are, and where they come from."""
    full = sum(image.has_full_label for image in images)
    if rule.labels == "eroded" and all(image.eroded is not None for image in images):
        return LabelKind.ERODED, "eroded", "of the data set"
    if rule.labels == "any" and not full:
        return LabelKind.GIVEN, "eroded", "of the data set"
    if full < len(images):
        only = next(image.stem for image in images if not image.has_full_label)
        raise DataError(
            f"protocol '{protocol}' needs a full label of each image of split '{split}' of "
            f"{data.name}, but {len(images) - full} of {len(images)} have only eroded ones, such "
            f"as {only}; fetch the full labels, or take a protocol of eroded ones"
        )
    if rule.labels == "eroded":
        return LabelKind.MADE, "eroded", f"made here with a disc of {EROSION_RADIUS} pixels"
    return LabelKind.GIVEN, "full", ""


def _refuse_trained(protocol: str, rule: Rule, seen: Seen) -> None:
    if seen.where == "training":
        raise ConfigError(
            f"protocol '{protocol}' would score images that this bundle was trained on: "
            f"{seen.told(NAMED)}; train with data.splits={rule.splits}, or leave the protocol out"
        )


def _present(names: Sequence[str], data: SegmentationData) -> tuple[str, ...]:
    return tuple(name for name in names if name in data.classes.names)
