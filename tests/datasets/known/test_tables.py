"""The tables of the known data sets against the published numbers."""

from pathlib import Path

import pytest

from cvmh.classes import NODATA_ID
from cvmh.datasets import KNOWN

TABLES = [
    (known.name, name)
    for known in KNOWN.values()
    for name, splits in known.splits.items()
    if splits.tiles is not None
]
PAPER_TRAIN = (
    "2_10 2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 6_7 6_8 6_9 6_10 6_11 6_12 "
    "7_7 7_8 7_9 7_11 7_12"
).split()


def sizes(name, splits):
    return [len(tiles) for tiles in KNOWN[name].splits[splits].tiles.values()]


def development(name, splits):
    """Return the tiles that are trained on and those that are held out of them, together."""
    tiles = KNOWN[name].splits[splits].tiles
    return sorted([*tiles["train"], *tiles["val"]])


@pytest.mark.parametrize(("name", "splits"), TABLES)
def test_no_image_is_in_two_splits(name, splits):
    tiles = [tile for tiles in KNOWN[name].splits[splits].tiles.values() for tile in tiles]
    assert len(set(tiles)) == len(tiles)
    assert list(KNOWN[name].splits[splits].tiles) == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("name", "splits", "train_and_val", "test"),
    [
        ("potsdam", "official", 24, 14),
        ("potsdam", "mmseg", 24, 14),
        ("potsdam", "cvmh-paper", 23, 14),
        ("potsdam", "geoseg", 23, 14),
        ("potsdam", "ssrs", 18, 6),
        ("vaihingen", "official", 16, 17),
        ("vaihingen", "mmseg", 16, 17),
        ("vaihingen", "geoseg", 16, 17),
        ("vaihingen", "ssrs", 12, 4),
        ("vaihingen", "cvmh-paper", 12, 4),
        ("loveda", "official", 2522 + 1669, 1796),
        ("loveda", "urban", 1156 + 677, 820),
        ("loveda", "rural", 1366 + 992, 976),
        ("loveda", "ssrs", 1156, 677),
    ],
)
def test_the_splits_have_the_published_sizes(name, splits, train_and_val, test):
    train, val, tested = sizes(name, splits)
    assert (train + val, tested) == (train_and_val, test)


def test_the_sizes_of_splits_that_come_from_folders_are_those_published():
    assert KNOWN["uavid"].splits["official"].expected == {"train": 200, "val": 70, "test": 150}
    assert sum(KNOWN["landcoverai"].splits["official"].expected.values()) == 10674
    assert sum(KNOWN["isaid"].splits["official"].expected.values()) == 2806
    assert sum(KNOWN["openearthmap"].splits["official"].expected.values()) == 5000
    assert sizes("loveda", "official") == [2522, 1669, 1796]


def test_the_split_of_the_paper_is_the_published_one_without_the_wrong_tile():
    assert development("potsdam", "cvmh-paper") == sorted(PAPER_TRAIN)
    assert development("potsdam", "geoseg") == sorted(PAPER_TRAIN)
    assert development("potsdam", "official") == sorted([*PAPER_TRAIN, "7_10"])
    assert KNOWN["potsdam"].splits["ssrs"].tiles["test"] == tuple(
        "2_11 3_10 4_10 5_11 6_11 7_12".split()
    )


def test_the_areas_of_ssrs_are_those_of_the_official_training_split():
    ssrs = [*development("vaihingen", "ssrs"), *KNOWN["vaihingen"].splits["ssrs"].tiles["test"]]
    assert sorted(ssrs) == development("vaihingen", "official")
    assert sorted(development("vaihingen", "geoseg")) == development("vaihingen", "official")
    every = {tile for tiles in KNOWN["vaihingen"].splits["mmseg"].tiles.values() for tile in tiles}
    assert "9" not in every


def test_urban_and_rural_make_the_whole_of_loveda():
    splits = KNOWN["loveda"].splits
    for split in ("train", "val", "test"):
        parts = [*splits["rural"].tiles[split], *splits["urban"].tiles[split]]
        assert sorted(parts) == sorted(splits["official"].tiles[split])
    assert splits["ssrs"].tiles["test"] == splits["urban"].tiles["val"]


@pytest.mark.parametrize("known", KNOWN.values(), ids=list(KNOWN))
def test_the_parts_of_a_table_fit_together(known):
    assert len({layout.name for layout in known.layouts}) == len(known.layouts)
    for layout in known.layouts:
        assert layout.label or layout.eroded
        assert set(layout.splits) <= set(known.splits)
        encoding = layout.encoding
        assert encoding.num_classes == len(known.classes)
        codes = encoding.colours or encoding.values
        if codes is not None:
            assert set(codes.values()) - {NODATA_ID} == set(range(len(known.classes)))
    for text in (known.licence, known.citation, known.get, known.size, known.resolution):
        assert text


@pytest.mark.parametrize("known", KNOWN.values(), ids=list(KNOWN))
def test_a_colour_in_a_label_is_the_colour_of_its_class(known):
    colours = {entry.rgb: entry.id for entry in known.classes}
    for layout in known.layouts:
        for colour, number in (layout.encoding.colours or {}).items():
            if number != NODATA_ID and colour in colours:
                assert colours[colour] == number
        if layout.encoding.colours:
            assert set(colours) <= set(layout.encoding.colours)


def test_a_held_out_image_does_not_depend_on_which_others_there_are():
    splits = KNOWN["deepglobe"].splits["by-image"]
    found = [splits.split_of(str(number), "train") for number in range(3000)]
    assert found == [splits.split_of(str(number), "train") for number in range(3000)]
    assert found.count("val") == pytest.approx(300, abs=60)
    assert found.count("test") == pytest.approx(300, abs=60)
    assert splits.split_of("12", None) is None


@pytest.mark.parametrize("known", KNOWN.values(), ids=list(KNOWN))
def test_the_page_about_data_says_what_the_table_says(known):
    page = (Path(__file__).parents[3] / "data" / "README.md").read_text()
    _, _, rest = page.partition(f"`--dataset {known.name}`")
    section = rest.partition("\n### ")[0]
    for layout in known.layouts:
        assert f"| {layout.name} | " in section
        assert layout.image in section or "the same" in section
    for name, splits in known.splits.items():
        assert name in section
        for count in splits.counts.values():
            assert str(count) in section
        for tile in (splits.tiles or {}).get("val", ()):
            assert known.name == "loveda" or tile in section
    for entry in known.classes:
        assert known.name in ("vaihingen", "gid15", "isaid") or entry.name in section
