"""Faults that are planted into a copy of a clean set; each must be found, with file and number."""

import json

import numpy as np
import pytest

from cvmh.datasets.doctor import CHECKS, examine
from cvmh.errors import ConfigError


def files(finding, root):
    return [place.file.relative_to(root).as_posix() for place in finding.places]


def test_a_clean_set_gives_nothing(clean):
    diagnosis = examine("folder", clean)
    assert diagnosis.findings == ()
    assert len(diagnosis.examination.images) == 6
    assert len(CHECKS) >= 15


def test_a_file_that_is_cut_off_is_damaged(patient):
    content = patient.image(7).read_bytes()
    patient.image(7).write_bytes(content[: len(content) // 2])
    finding = patient.found("damaged-file")
    assert files(finding, patient.root) == ["images/scene_0007.tif"]
    assert finding.severity == "error" and "damaged or cut off" in finding.what


def test_an_empty_file_is_damaged(patient):
    patient.label(8).write_bytes(b"")
    finding = patient.found("damaged-file")
    assert files(finding, patient.root) == ["masks/scene_0008.tif"]
    assert "0 bytes" in finding.what


def test_a_label_of_one_value_over_an_image_with_structure_is_told(patient):
    patient.change(patient.label(7), np.zeros((256, 256), dtype=np.uint8), nodata=None)
    finding = patient.found("single-valued-label")
    assert files(finding, patient.root) == ["masks/scene_0007.tif"]
    assert finding.counts == {"pixels": 256 * 256}


def test_a_label_that_ignores_everything_is_told(patient):
    patient.change(patient.label(9), np.full((256, 256), 255, dtype=np.uint8))
    finding = patient.found("empty-label")
    assert files(finding, patient.root) == ["masks/scene_0009.tif"]
    assert finding.counts == {"pixels": 256 * 256}


@pytest.mark.parametrize(("split", "numbers"), [("train", range(6, 11)), ("val", [11])])
def test_a_split_of_which_all_is_ignored_is_an_error(patient, split, numbers):
    for number in numbers:
        patient.change(patient.label(number), np.full((256, 256), 255, dtype=np.uint8))
    finding = patient.found("nothing-labelled")
    assert finding.severity == "error" and f"split '{split}'" in finding.what


def test_hidden_files_are_no_images(patient):
    for file in (patient.image(7), patient.label(7)):
        file.with_name(f"._{file.name}").write_bytes(b"left by a Mac")
    assert patient.findings() == ()


def test_rows_are_told_by_their_line_in_the_file(patient):
    rows = [f"scene_{number:04d},train" for number in range(6, 11)]
    patient.rewrite_splits([*rows, "scene_0011,val", "", "scene_0006,train", "scene_0007.tif,val"])
    twice, ending = (f for f in patient.findings() if f.code == "split-table")
    assert twice.counts["line"] == 9 and "'scene_0006' is listed twice" in twice.what
    assert ending.counts["line"] == 10 and "a stem has no ending" in ending.what


def test_an_id_that_is_no_class_is_counted(patient):
    label = patient.read(patient.label(6))
    label[0, 10:13, 20:27] = 99
    patient.change(patient.label(6), label)
    finding = patient.found("unknown-value")
    (place,) = finding.places
    assert (place.file, place.row, place.column) == (patient.label(6), 10, 20)
    assert finding.counts == {"pixels": 21, "files": 1, "value": 99}


def test_fractions_and_nan_in_a_label_are_counted(patient):
    label = patient.read(patient.label(6)).astype(np.float32)
    label[0, 3, 4:9], label[0, 20, 30] = 1.5, np.nan
    patient.change(patient.label(6), label)
    told = {f.what: f.counts["pixels"] for f in patient.findings() if f.code == "unknown-value"}
    assert told == {
        "the value 1.5 in 5 pixels of 1 label is no class": 5,
        "NaN in 1 pixel of 1 label is no class": 1,
    }


def test_ids_counted_from_one_are_told(patient):
    for number in range(6, 12):
        label = patient.read(patient.label(number)).astype(int)
        patient.change(
            patient.label(number), np.where(label == 255, 255, label + 1).astype(np.uint8)
        )
    finding = patient.found("off-by-one")
    assert "ids 1..6 where 0..5 are expected" in finding.what
    assert finding.fix == "subtract 1 from every id"
    sixes = sum((patient.read(patient.label(n)) == 6).sum() for n in range(6, 12))
    assert finding.counts["pixels"] == sixes and finding.counts["zeros"] == 0
    assert "unknown-value" not in [other.code for other in patient.findings()]


def test_a_zero_for_unlabelled_before_ids_from_one_is_told(patient):
    zeros = 0
    for number in range(6, 12):
        label = patient.read(patient.label(number)).astype(int)
        moved = np.where(label == 255, 0, label + 1).astype(np.uint8)
        zeros += int((moved == 0).sum())
        patient.change(patient.label(number), moved, nodata=None)
    finding = patient.found("off-by-one")
    assert finding.counts["zeros"] == zeros > 0
    assert "write 255 for it and subtract 1" in finding.fix
    assert "if it is a class, add the last one to classes.json" in finding.fix


def test_zero_that_was_reduced_twice_is_told(patient):
    wrapped = 0
    for number in range(6, 12):
        label = patient.read(patient.label(number))
        twice = label - np.uint8(1)
        wrapped += int((twice == 254).sum())
        patient.change(patient.label(number), twice)
    finding = patient.found("reduced-twice")
    assert finding.counts == {"pixels": wrapped, "files": 6}
    assert "'clutter' occurs nowhere" in finding.what


@pytest.mark.parametrize(("down", "right"), [(6, -3), (0, 9), (-4, 0)])
def test_labels_that_are_all_shifted_are_told_with_the_shift(patient, down, right):
    for number in range(6, 12):
        label = patient.read(patient.label(number))
        patient.change(patient.label(number), np.roll(label, (down, right), (1, 2)))
    finding = patient.found("shifted-labels")
    assert finding.counts == {"rows": down, "columns": right}
    assert finding.severity == "error" and len(finding.places) == 6


def test_one_shifted_label_is_told_with_the_shift(patient):
    label = patient.read(patient.label(8))
    patient.change(patient.label(8), np.roll(label, (-5, 7), (1, 2)))
    finding = patient.found("shifted-label")
    assert finding.counts == {"rows": -5, "columns": 7}
    assert "5 px above and 7 px to the right" in finding.what
    assert files(finding, patient.root) == ["masks/scene_0008.tif"]


def test_a_label_of_another_size_is_told(patient):
    patient.change(patient.label(10), patient.read(patient.label(10))[:, :-3, :-1])
    finding = patient.found("size-mismatch")
    assert finding.counts == {"rows": -3, "columns": -1}
    assert files(finding, patient.root) == ["masks/scene_0010.tif"]


def test_a_label_in_another_crs_is_told(patient):
    patient.change(patient.label(7), crs="EPSG:32633")
    finding = patient.found("crs-mismatch")
    assert "EPSG:32633" in finding.what and "EPSG:32632" in finding.what
    assert files(finding, patient.root) == ["masks/scene_0007.tif"]


def test_a_label_whose_georeference_is_moved_is_told(patient):
    patient.change(patient.label(7), move=(2, -3))
    finding = patient.found("transform-mismatch")
    assert finding.counts == {"rows": 2.0, "columns": -3.0}
    assert files(finding, patient.root) == ["masks/scene_0007.tif"]


def test_the_same_image_twice_is_a_warning_within_a_split_and_an_error_across(patient):
    patient.change(patient.image(7), patient.read(patient.image(6)))
    finding = patient.found("duplicate")
    assert finding.severity == "warning" and "the same pixel by pixel" in finding.what
    assert files(finding, patient.root) == ["images/scene_0006.tif", "images/scene_0007.tif"]
    patient.change(patient.image(11), patient.read(patient.image(9)))
    finding = patient.found("leaking-duplicate")
    assert finding.severity == "error"
    assert files(finding, patient.root) == ["images/scene_0009.tif", "images/scene_0011.tif"]


def test_a_mirrored_and_compressed_copy_is_found(patient, write):
    mirrored = patient.read(patient.image(6))[:, :, ::-1]
    patient.image(11).unlink()
    write(patient.image(11).with_suffix(".jpg"), mirrored, QUALITY=95)
    finding = patient.found("leaking-duplicate")
    assert "turned or mirrored" in finding.what
    assert files(finding, patient.root) == ["images/scene_0006.tif", "images/scene_0011.jpg"]


def test_pixels_that_two_splits_share_are_found_at_any_offset(patient):
    first, second = patient.read(patient.image(8)), patient.read(patient.image(11))
    second[:, 31:131, 17:94] = first[:, 100:200, 150:227]
    patient.change(patient.image(11), second)
    finding = patient.found("shared-pixels")
    assert finding.severity == "error" and finding.counts["pairs"] == 1
    places = {place.file: (place.row, place.column) for place in finding.places}
    # The overlap of both images at the offset of the pixels that they share.
    assert places == {patient.image(8): (69, 133), patient.image(11): (0, 0)}
    assert finding.counts["rows"] == 187 and finding.counts["columns"] == 123


def test_splits_that_overlap_on_the_ground_are_told_in_square_metres(patient):
    patient.move_beside(11, 9, down=0, right=200)
    finding = patient.found("overlapping-splits")
    # 56 columns of 256 rows at 0.25 m; the scale of the projection is within 0.1 %.
    assert finding.counts["square_metres"] == pytest.approx(56 * 256 / 16, rel=2e-3)
    assert finding.counts["share"] == pytest.approx(56 / 256, abs=1e-3)
    assert files(finding, patient.root) == ["images/scene_0009.tif", "images/scene_0011.tif"]


def test_splits_that_touch_are_told(patient):
    patient.move_beside(11, 9, down=256, right=0)
    finding = patient.found("touching-splits")
    assert finding.severity == "warning" and finding.counts == {"pairs": 1}


def test_a_class_without_training_pixels_is_told(patient):
    cars = 0
    for number in range(6, 11):
        label = patient.read(patient.label(number))
        label[label == 4] = 0
        patient.change(patient.label(number), label)
    cars = int((patient.read(patient.label(11)) == 4).sum())
    finding = patient.found("class-not-trained")
    assert "'car'" in finding.what and finding.counts == {"pixels_elsewhere": cars}
    assert finding.severity == "error"


def test_a_class_without_validation_pixels_is_told(patient):
    label = patient.read(patient.label(11))
    label[label == 4] = 0
    patient.change(patient.label(11), label)
    assert "'car'" in patient.found("class-not-validated").what


def test_a_rare_class_is_a_note(patient):
    left = 7
    for number in range(6, 11):
        label = patient.read(patient.label(number))
        cars = np.flatnonzero(label == 4)
        label.flat[cars[left:]] = 0
        left = max(0, left - len(cars))
        patient.change(patient.label(number), label)
    finding = patient.found("rare-class")
    assert finding.severity == "note" and finding.counts["pixels"] == 7


def test_a_constant_band_of_the_whole_set_is_told(patient):
    for number in range(6, 12):
        image = patient.read(patient.image(number))
        image[1] = 77
        patient.change(patient.image(number), image)
    finding = patient.found("constant-band")
    assert "band green has the same value 77" in finding.what or "band_2" in finding.what
    assert finding.counts == {"band": 2}


def test_a_constant_band_of_one_image_is_told(patient):
    image = patient.read(patient.image(10))
    image[2] = 200
    patient.change(patient.image(10), image)
    finding = patient.found("constant-band")
    assert files(finding, patient.root) == ["images/scene_0010.tif"]


def test_an_image_without_data_is_told(patient):
    patient.change(patient.image(6), np.zeros((3, 256, 256), dtype=np.uint8))
    finding = patient.found("empty-image")
    assert files(finding, patient.root) == ["images/scene_0006.tif"]


def test_an_image_in_another_scale_is_told(patient):
    for number in range(6, 12):
        image = patient.read(patient.image(number)).astype(np.float32)
        patient.change(patient.image(number), image / 255 if number == 9 else image)
    finding = patient.found("odd-scale")
    assert files(finding, patient.root) == ["images/scene_0009.tif"]
    assert finding.counts["ratio"] == pytest.approx(1 / 255, rel=0.5)


def test_a_split_from_another_sensor_is_told(patient):
    image = patient.read(patient.image(11)).astype(int)
    patient.change(patient.image(11), np.clip(image // 4 + 190, 1, 255).astype(np.uint8))
    assert "in split 'val'" in patient.found("odd-split").what


def test_a_wide_dtype_that_holds_bytes_is_told(patient):
    for number in range(6, 12):
        patient.change(patient.image(number), patient.read(patient.image(number)).astype(np.uint16))
    finding = patient.found("wide-dtype")
    assert "uint16" in finding.what and finding.counts["highest"] <= 255


def test_images_of_other_bands_or_dtypes_are_told(patient):
    patient.change(patient.image(8), patient.read(patient.image(8)).astype(np.uint16))
    patient.change(patient.image(9), patient.read(patient.image(9))[:1])
    finding = patient.found("mixed-bands")
    assert files(finding, patient.root) == ["images/scene_0008.tif", "images/scene_0009.tif"]
    assert "3 of uint16 instead of 3 of uint8" in finding.what


def test_pixels_that_are_not_numbers_are_counted(patient):
    for number in range(6, 12):
        image = patient.read(patient.image(number)).astype(np.float32)
        if number == 7:
            image[1, 50:52, 60:65] = np.nan
        patient.change(patient.image(number), image)
    finding = patient.found("not-a-number")
    (place,) = finding.places
    assert (place.file, place.row, place.column) == (patient.image(7), 50, 60)
    assert finding.counts == {"pixels": 10}


def test_nan_that_is_declared_as_nodata_is_no_fault(patient):
    for number in range(6, 12):
        image = patient.read(patient.image(number)).astype(np.float32)
        image[:, :20] = np.nan
        patient.change(patient.image(number), image, nodata=np.nan)
    assert "not-a-number" not in [finding.code for finding in patient.findings()]


def test_images_with_a_palette_are_told(patient):
    palette = {value: (value, 0, 0, 255) for value in range(256)}
    for number in range(6, 12):
        patient.change(
            patient.image(number), patient.read(patient.image(number))[0], palette=palette
        )
    finding = patient.found("palette-image")
    assert finding.counts == {"files": 6}


def test_data_that_is_tagged_as_alpha_is_a_note(patient):
    for number in range(6, 12):
        image = patient.read(patient.image(number))
        four = np.concatenate([image, image[:1]])
        colours = ("red", "green", "blue", "alpha")
        patient.change(patient.image(number), four, colours=colours)
    finding = patient.found("alpha-is-data")
    assert finding.severity == "note" and finding.counts == {"band": 4, "files": 6}


def test_labels_that_are_pictures_are_told(patient):
    colours = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0]])
    table = np.vstack([colours, [[255, 0, 0]], np.zeros((250, 3), dtype=int)]).astype(np.uint8)
    for number in range(6, 12):
        label = patient.read(patient.label(number))[0]
        patient.change(patient.label(number), table[label].transpose(2, 0, 1), nodata=None)
    finding = patient.found("label-bands")
    assert finding.counts == {"files": 6}
    assert "of the pixels have a class's colour in classes.json" in finding.fix


def test_eroded_labels_are_noted(patient):
    for number in range(6, 12):
        label = patient.read(patient.label(number))[0]
        at_border = np.zeros(label.shape, dtype=bool)
        for axis in (0, 1):
            for step in range(-3, 4):
                at_border |= np.roll(label, step, axis) != label
        patient.change(patient.label(number), np.where(at_border, 255, label).astype(np.uint8))
    finding = patient.found("eroded-labels")
    assert finding.severity == "note" and finding.counts["touching"] < finding.counts["parted"]


def test_labels_stored_with_loss_are_told(patient, write):
    label = patient.read(patient.label(7))
    patient.label(7).unlink()
    write(patient.label(7).with_suffix(".jpg"), label * 40)
    assert files(patient.found("lossy-label"), patient.root) == ["masks/scene_0007.jpg"]
    finding = patient.found("unknown-values")
    assert finding.counts["values"] > 12 and "compressed with loss" in finding.fix


def test_images_and_labels_without_partner_are_told(patient):
    patient.label(8).unlink()
    patient.image(9).unlink()
    assert files(patient.found("missing-label"), patient.root) == ["images/scene_0008.tif"]
    assert files(patient.found("missing-image"), patient.root) == ["masks/scene_0009.tif"]


def test_an_unlisted_image_is_told(patient):
    patient.rewrite_splits([f"scene_{n:04d},train" for n in range(6, 10)] + ["scene_0011,val"])
    assert files(patient.found("unlisted-image"), patient.root) == ["images/scene_0010.tif"]


def test_a_stem_in_two_splits_and_one_without_file_are_told(patient):
    rows = [f"scene_{n:04d},train" for n in range(6, 11)]
    patient.rewrite_splits([*rows, "scene_0011,val", "scene_0006,val", "scene_0099,val"])
    told = [f for f in patient.findings() if f.code == "split-table"]
    assert [finding.counts["line"] for finding in told] == [8, 9]
    assert "in splits 'train' and 'val'" in told[0].what
    assert "'scene_0099' is listed, but no file has its name" in told[1].what


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_images_is_told(patient, split):
    patient.rewrite_splits([f"scene_{n:04d},{split}" for n in range(6, 12)])
    other = {"train": "val", "val": "train"}[split]
    assert patient.found("missing-split").what == f"no image is in split '{other}'"


def test_a_missing_class_table_does_not_end_the_examination(patient):
    (patient.root / "classes.json").unlink()
    label = patient.read(patient.label(6))
    patient.change(patient.label(6), label[:, :-1])
    assert patient.found("class-table").counts == {"highest": 5}
    assert patient.found("size-mismatch").counts["rows"] == -1


def test_a_missing_split_table_and_folder_are_told(patient):
    (patient.root / "split.csv").unlink()
    assert patient.found("split-table").what == "split.csv is missing"
    for number in range(6, 12):
        patient.label(number).unlink()
    (patient.root / "masks").rmdir()
    assert patient.found("missing-folder").what == "folder masks/ does not exist"


def test_a_folder_that_is_not_there_is_one_finding(tmp_path):
    (finding,) = examine("folder", tmp_path / "nowhere").findings
    assert finding.code == "not-opened" and "does not exist" in finding.what


def test_an_unknown_data_set_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no data set 'potsdamm'"):
        examine("potsdamm", tmp_path)


def test_findings_come_with_the_most_severe_first(patient):
    (patient.root / "classes.json").write_text(json.dumps([{"id": 0}]))
    patient.rewrite_splits([f"scene_{n:04d},train" for n in range(6, 11)])
    severities = [finding.severity for finding in patient.findings()]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
