"""What protocols score of a data set, and what they refuse."""

from dataclasses import replace

import numpy as np
import pytest

from cvmh.classes import ISPRS, ClassTable
from cvmh.datasets import LabelledImage, SegmentationData
from cvmh.datasets.summary import fingerprint
from cvmh.errors import ConfigError, DataError
from cvmh.geo.raster import write_raster
from cvmh.metrics import PROTOCOLS
from cvmh.models.bundle import BundleCard
from cvmh.report.cases import ALL, LabelKind, make_cases

TABLES = {
    "official": {"2_10": "train", "2_11": "train", "2_12": "val", "2_13": "test"},
    "ssrs": {"2_10": "train", "2_11": "test", "2_12": "val"},
    "geoseg": {"2_10": "val", "2_11": "train", "2_12": "train", "2_13": "test"},
    "mmseg": {"2_10": "train", "2_11": "train", "2_12": "val", "2_13": "test"},
    "cvmh-paper": {"2_10": "train", "2_11": "train", "2_12": "val", "2_13": "test"},
}


def make_card(**facts):
    return BundleCard(
        model="any",
        classes=facts.pop("classes", ISPRS),
        band_names=("red", "green", "blue"),
        dtype="uint8",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        **facts,
    )


@pytest.fixture
def open_table(tmp_path):
    """Open four tiles of Potsdam by a split table; nothing is on the disk."""

    def open_potsdam(table="official", *, eroded=True, full=True, name="potsdam"):
        images = []
        for stem, split in TABLES[table].items():
            small = tmp_path / f"{stem}_noBoundary.tif" if eroded else None
            label = tmp_path / f"{stem}_label.tif" if full else small
            images.append(
                LabelledImage(
                    stem=stem,
                    image=tmp_path / f"{stem}.tif",
                    label=label,
                    split=split,
                    eroded=small,
                )
            )
        return SegmentationData(
            name=name,
            root=tmp_path,
            classes=ISPRS,
            images=tuple(images),
            layout="isprs-rgb",
            splits=table,
        )

    return open_potsdam


@pytest.fixture
def make_one(open_table):
    def make(name, card=None, data=None, **options):
        options.setdefault("reopen", open_table)
        (case,) = make_cases(card or make_card(), data or open_table(), [name], **options)
        return case

    return make


def test_a_protocol_scores_the_test_images_of_its_own_table(make_one):
    assert [image.stem for image in make_one("ssrs").images] == ["2_11"]
    assert [image.stem for image in make_one("geoseg").images] == ["2_13"]
    assert make_one("ssrs").facts.splits == "ssrs"


def test_a_split_that_is_asked_for_is_taken_by_every_protocol(make_one):
    case = make_one("geoseg", split="val")
    assert ([image.stem for image in case.images], case.split) == (["2_10"], "val")


def test_a_protocol_of_another_table_needs_a_way_to_open_it(make_one):
    with pytest.raises(ConfigError, match=r"by table 'ssrs', but .* with data.splits=ssrs"):
        make_one("ssrs", reopen=None)


def test_a_table_that_the_files_do_not_fit_is_named_with_its_protocol(make_one):
    def fail(table):
        raise ConfigError(f"data.splits of potsdam in layout mmseg must be mmseg, got '{table}'")

    with pytest.raises(ConfigError, match=r"protocol 'ssrs' divides potsdam by table 'ssrs': data"):
        make_one("ssrs", reopen=fail)


def test_the_eroded_labels_of_the_set_are_taken_where_it_has_them(make_one, open_table):
    assert make_one("isprs").kind is LabelKind.ERODED
    assert make_one("isprs").facts.labels_from == "of the data set"
    without = make_one("isprs", data=open_table(eroded=False))
    assert without.kind is LabelKind.MADE
    assert without.facts.labels_from == "made here with a disc of 3 pixels"


def test_a_protocol_of_full_labels_refuses_a_set_of_eroded_ones(make_one, open_table):
    data = open_table("cvmh-paper", full=False)
    with pytest.raises(
        DataError, match=r"'cvmh-paper' needs a full label .* 1 of 1 have only erod"
    ):
        make_one("cvmh-paper", data=data)


def test_the_protocol_of_any_set_takes_eroded_labels_and_says_so(make_one, open_table):
    case = make_one("full", data=open_table(full=False))
    assert (case.facts.labels, case.facts.labels_from) == ("eroded", "of the data set")
    assert not case.has_full_labels


def test_labels_of_both_kinds_in_one_split_are_refused(make_one, open_table):
    data = open_table("mmseg")
    mixed = replace(
        data.images[3], stem="2_14", image=data.root / "2_14.tif", label=data.images[3].eroded
    )
    data = replace(data, images=(*data.images, mixed))
    with pytest.raises(DataError, match=r"'full' needs a full label .* 1 of 2 have only .* 2_14"):
        make_one("full", data=data)


def test_a_protocol_that_is_not_for_a_data_set_names_those_that_are(make_one, open_table):
    data = open_table(name="loveda")
    with pytest.raises(ConfigError, match=r"'isprs' is for potsdam, vaihingen, not for loveda; "):
        make_one("isprs", data=data)


def test_an_unknown_protocol_is_named_with_those_there_are(make_one):
    with pytest.raises(ConfigError, match=r"no protocol 'geoseq'; known: full, cvmh-paper, geoseg"):
        make_one("geoseq")


def test_an_empty_split_is_refused(make_one):
    with pytest.raises(DataError, match=r"no image is in split 'holdout'; there are: test, train"):
        make_one("full", split="holdout")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (ISPRS.names[:5], "the bundle lacks clutter"),
        (["road", *ISPRS.names[1:]], "the data set lacks road; the bundle lacks impervious"),
        (ISPRS.names[::-1], r"\(in another order\)"),
    ],
)
def test_other_classes_are_refused_and_named(make_one, names, sentence):
    classes = ClassTable(
        tuple(replace(ISPRS.classes[i], name=name) for i, name in enumerate(names))
    )
    with pytest.raises(ConfigError, match=sentence):
        make_one("full", card=make_card(classes=classes))


def test_no_protocol_scores_what_the_bundle_was_trained_on(make_one):
    card = make_card(dataset="potsdam", splits="official", train_split="train", val_split="val")
    with pytest.raises(
        ConfigError,
        match=r"'ssrs' would score .* trained on: 1 of 1 images: 2_11; train with data.splits=ssrs",
    ):
        make_one("ssrs", card=card)
    facts = make_one("geoseg", card=card).facts
    assert (facts.seen_in, facts.trained_on) == ("", "official train")
    assert facts.sentence.endswith("stitched scenes, trained on official train")


def test_a_score_on_the_training_images_says_what_it_is(make_one):
    card = make_card(dataset="potsdam", splits="official", train_split="train", val_split="val")
    case = make_one("full", card=card, split="train")
    assert case.facts.seen_in == "training"
    assert case.facts.sentence.endswith("TRAINING SPLIT of this bundle (2 of 2 images: 2_10, 2_11)")


def test_a_score_on_the_images_of_selection_says_what_it_is(make_one):
    card = make_card(dataset="potsdam", splits="geoseg", train_split="train", val_split="val")
    # Tile 2_10 is trained on by the official table, and selected on by that of GeoSeg.
    case = make_one("geoseg", card=card, split="val")
    assert (case.facts.seen_in, case.facts.seen) == ("selection", "1 of 1 images: 2_10")


def test_a_bundle_of_several_training_splits_was_trained_on_all_of_them(make_one):
    card = make_card(dataset="potsdam", splits="official", train_split="train+val")
    assert make_one("full", card=card, split="val").facts.seen_in == "training"


@pytest.mark.parametrize("facts", [{}, {"dataset": "other"}, {"dataset": "potsdam"}])
def test_nothing_is_claimed_of_a_bundle_that_does_not_say_what_it_was_trained_on(make_one, facts):
    card = make_card(
        **facts, **({"train_split": "train"} if facts.get("dataset") == "other" else {})
    )
    found = make_one("full", card=card, split="train").facts
    assert (found.seen_in, found.trained_on) == ("", "")


def test_nothing_is_claimed_where_the_files_cannot_be_divided_as_in_training(make_one, open_table):
    def fail(table):
        raise DataError("not all of it is there")

    card = make_card(dataset="potsdam", splits="ssrs", train_split="train")
    assert make_one("full", card=card, reopen=fail).facts.seen_in == ""
    assert make_one("full", card=card, reopen=None).facts.seen_in == ""


def test_a_folder_that_has_changed_since_training_is_another_one(tmp_path, make_one):
    images = []
    for stem, split in (("a", "train"), ("b", "test")):
        for kind in ("image", "label"):
            write_raster(tmp_path / f"{stem}_{kind}.tif", np.zeros((1, 4, 4), np.uint8))
        images.append(
            LabelledImage(
                stem=stem,
                image=tmp_path / f"{stem}_image.tif",
                label=tmp_path / f"{stem}_label.tif",
                split=split,
            )
        )
    data = SegmentationData(name="mine", root=tmp_path, classes=ISPRS, images=tuple(images))
    card = make_card(
        dataset="mine",
        splits=data.splits,
        train_split="train",
        data_fingerprint=fingerprint(images[:1], data),
    )
    assert make_one("full", card=card, data=data, split="train").facts.seen_in == "training"
    write_raster(tmp_path / "a_image.tif", np.ones((1, 4, 4), np.uint8))
    assert make_one("full", card=card, data=data, split="train").facts.seen_in == ""


def test_all_are_the_protocols_that_can_be_scored_and_the_others_are_told(open_table):
    told = []
    card = make_card(dataset="potsdam", splits="official", train_split="train", val_split="val")
    cases = make_cases(card, open_table(), [ALL], reopen=open_table, tell=told.append)
    assert [case.protocol for case in cases] == [name for name in PROTOCOLS if name != "ssrs"]
    (line,) = told
    assert line.startswith("protocol ssrs is left out: protocol 'ssrs' would score images that")


def test_a_protocol_that_is_asked_for_twice_is_scored_once(open_table):
    cases = make_cases(make_card(), open_table(), ["full", "mmseg", "full"], reopen=open_table)
    assert [case.protocol for case in cases] == ["full", "mmseg"]


def test_a_set_of_ones_own_is_scored_by_the_rules_of_a_protocol_on_its_own_split(open_table):
    data = replace(open_table(eroded=False, name="mine"), layout="folder", splits="own")
    (case,) = make_cases(make_card(), data, ["geoseg"], split="val")
    assert [image.stem for image in case.images] == ["2_12"]
    assert (case.facts.left_out, case.facts.tta, case.facts.splits) == (("clutter",), True, "")
    assert case.kind is LabelKind.MADE


def test_scores_of_a_prepared_copy_name_its_split_table(open_table):
    data = replace(open_table(), layout="folder")
    (case,) = make_cases(make_card(), data, ["isprs"])
    assert "eroded labels (of the data set), split table official, means" in case.facts.sentence


def test_a_prepared_copy_by_another_table_than_the_protocols_is_marked(open_table):
    data = replace(open_table(), layout="folder")
    ssrs, mmseg = make_cases(make_card(), data, ["ssrs", "mmseg"])
    assert "split table official (NOT ssrs, THE PROTOCOL'S)" in ssrs.facts.sentence
    # These two are one table under two names.
    assert "split table official, means" in mmseg.facts.sentence


def test_a_prepared_copy_is_scored_by_the_rule_of_its_data_set(open_table):
    with pytest.raises(ConfigError, match=r"'isprs' is for potsdam, vaihingen, not for loveda"):
        make_cases(make_card(), replace(open_table(name="loveda"), layout="folder"), ["isprs"])


def test_chips_of_a_layout_are_not_called_stitched_scenes(make_one, open_table):
    assert make_one("full").facts.is_stitched
    chips = make_one("full", data=replace(open_table(), layout="mmseg")).facts
    assert not chips.is_stitched
    assert "tiles by themselves" in chips.sentence
