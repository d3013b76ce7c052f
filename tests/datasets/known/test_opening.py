"""What is said when a known data set is not there, half there, or asked for wrongly."""

import shutil

import numpy as np
import pytest

from cvmh.config import DataSettings
from cvmh.datasets import KNOWN, find_known, open_data, open_known, survey
from cvmh.errors import ConfigError, DataError


def message_of(action, kind=DataError):
    with pytest.raises(kind) as caught:
        action()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def open_(name, root, **options):
    return open_known(KNOWN[name], root, **options)


@pytest.fixture
def copy(fake_set, tmp_path):
    """Return a function that copies a fake, for a test that changes it."""
    return lambda name, layout: shutil.copytree(fake_set(name, layout), tmp_path / "copy")


def test_without_a_folder_it_is_said_where_to_get_the_data_and_what_is_expected():
    message = message_of(lambda: open_data(DataSettings(dataset="loveda")), ConfigError)
    assert message.startswith("LoveDA is not downloaded for you: get Train.zip, Val.zip and Test")
    assert "zenodo.org/records/5706578" in message and "--data ROOT" in message
    assert "{folder}/{part}/images_png/{tile}.png" in message
    assert message.endswith("or is laid out as for geoseg, mmseg, see data/README.md")


def test_a_wrong_folder_is_told_with_what_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "notes.txt").touch()
    message = message_of(lambda: open_("potsdam", tmp_path))
    assert message.startswith(f"{tmp_path} holds no ISPRS Potsdam: there are holiday/, notes.txt; ")
    assert "2_Ortho_RGB/top_potsdam_{tile}_RGB.tif" in message and "data/README.md" in message
    (tmp_path / "4_Ortho_RGBIR.zip").touch()
    assert "4_Ortho_RGBIR.zip, holiday/, notes.txt; unpack the archives; it must" in message_of(
        lambda: open_("potsdam", tmp_path)
    )
    empty = tmp_path / "holiday"
    assert "holds no LoveDA: it is empty" in message_of(lambda: open_("loveda", empty))
    missing = tmp_path / "nowhere"
    message = message_of(lambda: open_("isaid", missing))
    assert message.startswith(f"folder {missing} does not exist; it must be a folder that holds {{")
    file = tmp_path / "notes.txt"
    assert "is a file, not a folder" in message_of(lambda: open_("isaid", file))


def test_the_other_data_set_is_not_taken_for_this_one(fake_set):
    message = message_of(lambda: open_("vaihingen", fake_set("potsdam", "isprs-rgb")))
    assert "holds no ISPRS Vaihingen: there are 2_Ortho_RGB/, 5_Labels_all/" in message


def test_a_half_downloaded_set_is_told_with_the_first_names(copy):
    root = copy("potsdam", "isprs-rgb")
    for tile in ("2_13", "3_13", "4_13", "5_13"):
        (root / "2_Ortho_RGB" / f"top_potsdam_{tile}_RGB.tif").unlink()
    (root / "5_Labels_all" / "top_potsdam_7_12_label.tif").unlink()
    (root / "5_Labels_all_noBoundary" / "top_potsdam_7_12_label_noBoundary.tif").unlink()
    message = message_of(lambda: open_("potsdam", root))
    assert "(layout isprs-rgb, splits official) is not complete: " in message
    assert "labels of 1 of 21 images of split train are missing (7_12)" in message
    assert "images of 4 of 14 images of split test" not in message
    assert "4 of 14 images of split test are missing (2_13, 3_13, 4_13, ...)" in message
    assert "data.partial=true" in message
    data = open_("potsdam", root, partial=True)
    assert (len(data.images), len(data.of_split("test"))) == (33, 10)


def test_a_published_split_that_needs_no_more_is_proposed(copy):
    root = copy("vaihingen", "torchgeo")
    for area in "2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38".split():
        (root / f"top_mosaic_09cm_area{area}.tif").unlink()
    message = message_of(lambda: open_("vaihingen", root))
    assert "labels of 17 of 17 images of split test are missing (10, 12, 14, ...)" in message
    assert "follow another published split with data.splits=ssrs, or take what is" in message
    assert len(open_("vaihingen", root, splits="ssrs").images) == 16


def test_where_only_numbers_are_published_too_few_images_are_counted(fake_set):
    message = message_of(lambda: open_("uavid", fake_set("uavid", "official")))
    assert "196 of 200 images of split train are missing; 68 of 70 images of split val" in message
    message = message_of(lambda: open_("deepglobe", fake_set("deepglobe", "official")))
    assert "is not complete: 773 of 803 images are missing; fetch the rest" in message


def test_a_list_file_names_what_is_missing(copy):
    root = copy("openearthmap", "official")
    (root / "aachen" / "images" / "aachen_10.tif").unlink()
    message = message_of(lambda: open_("openearthmap", root))
    assert "1 of 3 images of split train are missing (aachen_10)" in message
    assert "images that come from xBD are put in by data/compile_xbd.py" in message
    (root / "val.txt").unlink()
    message = message_of(lambda: open_("openearthmap", root))
    assert "the list of split val, val.txt, is missing" in message


def test_a_list_file_that_is_no_text_names_nothing(copy):
    root = copy("openearthmap", "official")
    (root / "train.txt").write_bytes(b"\xff\xfe aachen_10.tif")
    assert "images of split train are missing" in message_of(lambda: open_("openearthmap", root))


def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("cvmh.datasets.known.opening.survey", refuse)
    message = message_of(lambda: open_("gid15", tmp_path))
    assert message == f"{tmp_path} cannot be read ([Errno 13] Permission denied: '{tmp_path}')"


def test_a_label_that_is_missing_is_told(copy):
    root = copy("gid15", "torchgeo")
    label = root / "GID/ann_dir/train/GF2_PMS1__L1A0000564539-MSS1_15label.png"
    label.unlink()
    message = message_of(lambda: open_("gid15", root))
    name = "GF2_PMS1__L1A0000564539-MSS1"
    assert f"labels of 1 of 2 images of split train are missing ({name})" in message


def test_a_survey_says_the_same_without_an_error(copy, tmp_path):
    root = copy("potsdam", "isprs-rgb")
    (root / "2_Ortho_RGB" / "top_potsdam_2_13_RGB.tif").unlink()
    found = survey(KNOWN["potsdam"], root)
    assert (found.layout.name, found.base, found.num_scenes) == ("isprs-rgb", root, 37)
    (missing,) = found.missing
    assert (missing.split, missing.part, missing.names) == ("test", "image", ("2_13",))
    assert survey(KNOWN["loveda"], root) is None


@pytest.mark.parametrize(
    ("name", "layout", "reason"),
    [
        ("loveda", "torchgeo", "they are kept on the challenge's server"),
        ("uavid", "official", "they are kept on the benchmark's server"),
        ("gid15", "torchgeo", "they were kept for the contest"),
        ("isaid", "official", "they are kept on the benchmark's server"),
        ("openearthmap", "official", "they are kept on the benchmark's server"),
    ],
)
def test_a_split_without_labels_says_so(fake_set, name, layout, reason):
    data = open_(name, fake_set(name, layout), partial=True)
    message = message_of(lambda: data.of_split("test"))
    assert message.startswith(f"split 'test' of {name} has no labels ({reason}")
    assert "test" not in {image.split for image in data.images}


def test_labels_of_a_split_that_is_published_without_are_used_if_somebody_has_them(copy):
    root = copy("uavid", "official")
    for folder in (root / "uavid_test").iterdir():
        shutil.copytree(root / "uavid_val" / "seq16" / "Labels", folder / "Labels")
    data = open_("uavid", root, partial=True)
    assert len(data.of_split("test")) == 2 and not data.unlabelled


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dataset": "postdam"}, "there is no data set 'postdam'; did you mean 'potsdam'?"),
        ({"dataset": "Potsdam"}, "there is no data set 'Potsdam'; did you mean 'potsdam'?"),
        ({"dataset": "xyzzy"}, "there is no data set 'xyzzy'; known: folder, potsdam, vaihingen"),
        (
            {"dataset": "potsdam", "layout": "zip"},
            "data.layout of potsdam must be one of isprs-rgb, torchgeo, ssrs",
        ),
        (
            {"dataset": "potsdam", "splits": "random"},
            "data.splits of potsdam must be one of official, cvmh-paper, geoseg, mmseg, ssrs, got",
        ),
        (
            {"dataset": "vaihingen", "layout": "ssrs", "splits": "official"},
            "data.splits of vaihingen in layout ssrs must be one of ssrs, cvmh-paper, got 'offici",
        ),
        (
            {"layout": "mmseg"},
            "data.layout is for known data sets (potsdam, vaihingen, ",
        ),
        ({"labels": "eroded"}, "got 'eroded' with data set 'folder'; leave it out"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, sentence):
    given = DataSettings(root=tmp_path, **settings)
    assert sentence in message_of(lambda: open_data(given), ConfigError)


def test_labels_that_are_asked_for_must_be_there(fake_set):
    message = message_of(lambda: open_("potsdam", fake_set("potsdam", "torchgeo"), labels="eroded"))
    assert message.startswith("data.labels=eroded needs an eroded label of each image of potsdam")
    message = message_of(lambda: open_("potsdam", fake_set("potsdam", "mmseg"), labels="full"))
    assert message.startswith("data.labels=full needs a full label of each image of potsdam")


def test_colours_can_be_rounded(fake_set):
    root = fake_set("potsdam", "torchgeo")
    data = open_data(DataSettings(dataset="potsdam", root=root, round_colours=True))
    lossy = np.array([[9, 225, 131], [222, 227, 120], [221, 227, 3]], dtype="uint8")[:, None]
    ids, unknown = data.encoding.decode(lossy)
    assert (ids.tolist(), unknown.any()) == ([[2, 0, 5]], False)
    exact, unknown = open_data(DataSettings(dataset="potsdam", root=root)).encoding.decode(lossy)
    assert unknown.all() and (exact == 255).all()
    given = DataSettings(dataset="potsdam", root=fake_set("potsdam", "mmseg"), round_colours=True)
    assert "those of potsdam in layout mmseg hold numbers" in message_of(
        lambda: open_data(given), ConfigError
    )


def test_cars_of_other_yellows_are_cars(fake_set):
    yellows = np.array([[252, 255, 255], [255, 255, 204], [0, 0, 0]], dtype="uint8")[:, None]
    potsdam = open_("potsdam", fake_set("potsdam", "isprs-rgb")).encoding
    assert potsdam.decode(yellows)[0].tolist() == [[4, 4, 255]]
    assert potsdam.decode(yellows)[1].tolist() == [[False, False, True]]
    geoseg = open_("vaihingen", fake_set("vaihingen", "geoseg")).encoding
    assert geoseg.decode(yellows)[0].tolist() == [[255, 4, 4]]


def test_a_known_set_is_found_by_its_name():
    assert find_known("loveda") is KNOWN["loveda"]


def test_the_names_of_the_bands_are_numbers_to_read(fake_set):
    data = open_("vaihingen", fake_set("vaihingen", "torchgeo"))
    assert data.bands_named(("nir", "red", "green")) == (1, 2, 3)
    assert data.bands_named(("green", "nir")) == (3, 1)
    message = message_of(lambda: data.bands_named(("red", "green", "blue")))
    assert message.startswith(
        "data set vaihingen in layout torchgeo must have the bands red, green"
    )
    assert message.endswith("but has nir, red, green, not blue")


def test_hidden_files_are_no_images(copy):
    root = copy("deepglobe", "official")
    before = open_("deepglobe", root, partial=True).images
    for file in ("._119_sat.jpg", "._119_mask.png"):
        (root / "train" / file).write_bytes(b"left by a Mac")
    assert open_("deepglobe", root, partial=True).images == before
