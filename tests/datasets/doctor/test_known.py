"""Faults of known data sets, and the real sets."""

import os
from pathlib import Path

import numpy as np
import pytest

from cvmh.classes import ISPRS
from cvmh.datasets.doctor import examine
from cvmh.datasets.synthetic import make_scene

DATA = os.environ.get("CVMH_TEST_DATA")
TILES = ("2_11", "3_10", "2_10", "2_13")


@pytest.fixture
def potsdam(tmp_path, write):
    """Return a folder with four small tiles of Potsdam, with labels in colours."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(ISPRS)] = ISPRS.colours
    for folder in ("2_Ortho_RGB", "5_Labels_for_participants"):
        (tmp_path / "potsdam" / folder).mkdir(parents=True)
    for seed, tile in enumerate(TILES, start=6):
        scene = make_scene(seed, height=192, width=192, gsd=0.25)
        root, labels = tmp_path / "potsdam", "5_Labels_for_participants"
        write(root / "2_Ortho_RGB" / f"top_potsdam_{tile}_RGB.tif", scene.image)
        label = palette[scene.labels].transpose(2, 0, 1)
        write(root / labels / f"top_potsdam_{tile}_label.tif", label)
    return tmp_path / "potsdam"


def of_code(diagnosis, code):
    return [finding for finding in diagnosis.findings if finding.code == code]


def test_the_layout_is_recognised_and_what_is_missing_is_told_before_the_rest(potsdam):
    diagnosis = examine("potsdam", potsdam)
    (finding,) = of_code(diagnosis, "not-opened")
    assert "is not complete" in finding.what and finding.severity == "error"
    assert diagnosis.examination.data.layout == "isprs-rgb"
    assert len(diagnosis.examination.images) == 4
    assert not of_code(diagnosis, "unknown-value")


def test_a_colour_that_is_no_class_is_counted_and_its_class_suggested(potsdam, write):
    path = potsdam / "5_Labels_for_participants" / "top_potsdam_3_10_label.tif"
    label = np.full((3, 192, 192), 255, dtype=np.uint8)
    label[:, 40:44, 50:60] = np.array([255, 204, 0], dtype=np.uint8)[:, None, None]
    write(path, label)
    (finding,) = of_code(examine("potsdam", potsdam), "unknown-value")
    assert "(255, 204, 0)" in finding.what
    assert "class 'car', whose colour is (255, 255, 0)" in finding.fix
    assert finding.counts["pixels"] == 40
    (place,) = finding.places
    assert (place.file, place.row, place.column) == (path, 40, 50)


def test_a_label_that_went_through_lossy_compression_can_be_rounded(potsdam, write):
    path = potsdam / "5_Labels_for_participants" / "top_potsdam_3_10_label.tif"
    scene = make_scene(7, height=192, width=192, gsd=0.25)
    palette = np.zeros((256, 3), dtype=int)
    palette[: len(ISPRS)] = ISPRS.colours
    noise = np.random.default_rng(0).integers(-9, 10, (192, 192, 3))
    noisy = np.clip(palette[scene.labels] + noise, 0, 255).astype(np.uint8)
    write(path, noisy.transpose(2, 0, 1))
    (finding,) = of_code(examine("potsdam", potsdam), "unknown-values")
    assert finding.places[0].file == path
    assert "data.round_colours=true" in finding.fix


def test_neighbours_in_published_splits_are_only_a_note(potsdam, write):
    for number, tile in enumerate(TILES[:2] + TILES[3:]):
        path = potsdam / "2_Ortho_RGB" / f"top_potsdam_{tile}_RGB.tif"
        image = make_scene(number + 6, height=192, width=192, gsd=0.25).image
        place = (0.25, 0, 400_000 + 48 * number, 0, -0.25, 5_800_000)
        write(path, image, crs="EPSG:32633", transform=place)
    (finding,) = of_code(examine("potsdam", potsdam), "touching-splits")
    assert finding.severity == "note" and finding.counts == {"pairs": 1}


@pytest.mark.real
@pytest.mark.skipif(not DATA, reason="CVMH_TEST_DATA names no folder of real rasters")
@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("amazon_forest", []),
        ("naip_landcover6", ["alpha-is-data"]),
        ("nb_landcover4", ["overlapping-splits"]),
        ("oam_buildings", []),
    ],
)
@pytest.mark.slow
def test_the_real_sets_give_their_known_faults_and_no_others(name, codes):
    diagnosis = examine("folder", Path(DATA) / "data" / name)
    assert [finding.code for finding in diagnosis.findings] == codes


@pytest.mark.real
@pytest.mark.skipif(not DATA, reason="CVMH_TEST_DATA names no folder of real rasters")
def test_the_overlap_of_real_scenes_is_measured():
    diagnosis = examine("folder", Path(DATA) / "data" / "nb_landcover4")
    (finding,) = of_code(diagnosis, "overlapping-splits")
    assert finding.counts["width"] == pytest.approx(94, abs=1)
    assert finding.counts["height"] == pytest.approx(22, abs=1)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="CVMH_TEST_DATA names no folder of real rasters")
def test_a_real_split_of_neighbouring_chips_is_told(tmp_path):
    source = Path(DATA) / "data" / "naip_landcover6"
    for part in ("images", "masks", "classes.json"):
        (tmp_path / part).symlink_to(source / part)
    rows = (source / "split.csv").read_text().splitlines()[1:]
    published = [",".join(row.split(",")[0:6:5]) for row in rows]
    (tmp_path / "split.csv").write_text("\n".join(["stem,split", *published]) + "\n")
    found = of_code(examine("folder", tmp_path), "touching-splits")
    assert sum(finding.counts["pairs"] for finding in found) > 100


def test_the_eroded_labels_are_examined_too(potsdam, write):
    folder = potsdam / "5_Labels_for_participants_no_Boundary"
    folder.mkdir()
    paths = [folder / f"top_potsdam_{tile}_label_noBoundary.tif" for tile in TILES[:3]]
    strange, small, cut = paths
    label = np.zeros((3, 192, 192), dtype=np.uint8)
    label[:, 8:10, 30:35] = 7
    write(strange, label)
    write(small, label[:, :100] * 0)
    write(cut, label * 0)
    cut.write_bytes(cut.read_bytes()[:600])
    diagnosis = examine("potsdam", potsdam)
    (unknown,) = of_code(diagnosis, "unknown-value")
    assert unknown.counts["pixels"] == 10 and "(7, 7, 7)" in unknown.what
    (place,) = unknown.places
    assert (place.file, place.row, place.column) == (strange, 8, 30)
    (size,) = of_code(diagnosis, "size-mismatch")
    assert size.places[0].file == small and size.counts == {"rows": -92, "columns": 0}
    (damaged,) = of_code(diagnosis, "damaged-file")
    assert damaged.places[0].file == cut
