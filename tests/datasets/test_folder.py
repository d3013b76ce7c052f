import shutil
from pathlib import Path

import pytest

from cvmh.classes import ClassTable
from cvmh.config import DataSettings
from cvmh.datasets import open_data, open_folder
from cvmh.datasets.doctor import examine
from cvmh.errors import ConfigError, CvmhError, DataError


@pytest.fixture
def root(make_folder, draw):
    return make_folder({"b": ("train", *draw(0)), "a": ("val", *draw(1)), "c": ("train", *draw(2))})


def message_of(action, kind=DataError):
    with pytest.raises(CvmhError) as caught:
        action()
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_images_labels_classes_and_splits_are_found(root, classes):
    data = open_folder(root)
    assert (data.name, data.root, data.classes) == ("set", root, classes)
    assert [(image.stem, image.split) for image in data.images] == [
        ("b", "train"),
        ("a", "val"),
        ("c", "train"),
    ]
    for image in data.images:
        assert image.image == root / "images" / f"{image.stem}.tif"
        assert image.label == root / "masks" / f"{image.stem}.tif"
    assert [image.stem for image in data.of_split("train")] == ["b", "c"]


def test_no_pixel_is_read(root):
    for path in root.glob("*/*.tif"):
        path.write_bytes(b"not a raster")
    assert len(open_folder(root).images) == 3


@pytest.mark.parametrize("part", [".", "images", "masks"])
def test_a_missing_folder_is_named_with_what_belongs_there(root, part):
    shutil.rmtree(root / part)
    message = message_of(lambda: open_folder(root))
    assert f"data set folder {root / part} does not exist" in message
    assert "images/, masks/, classes.json and split.csv" in message


def test_a_file_in_the_place_of_a_folder_is_refused(root):
    shutil.rmtree(root / "masks")
    (root / "masks").write_text("")
    assert str(root / "masks") in message_of(lambda: open_folder(root))


def test_a_missing_class_table_is_named(root):
    (root / "classes.json").unlink()
    message = message_of(lambda: open_folder(root), ConfigError)
    assert f"{root / 'classes.json'} is missing" in message


def test_a_missing_split_file_says_which_columns_to_write(root):
    (root / "split.csv").unlink()
    message = message_of(lambda: open_folder(root))
    assert f"{root / 'split.csv'} is missing; write it with the columns stem,split" in message


@pytest.mark.parametrize(
    "text",
    ["", "stem,split\n", "name,split\na,train\n", "a,train\nb,val\n", "stem\tsplit\na\ttrain\n"],
)
def test_a_split_file_without_its_columns_or_rows_is_refused(root, text):
    (root / "split.csv").write_text(text)
    message = message_of(lambda: open_folder(root))
    assert str(root / "split.csv") in message
    assert "must have the columns stem,split and at least one row" in message


def test_the_header_that_came_is_named(root):
    (root / "split.csv").write_text("Name;Split\na;train\n")
    message = message_of(lambda: open_folder(root))
    assert message.endswith("but its first line is 'Name;Split', without stem")


@pytest.mark.parametrize("row", ["a", "a,", "a, ", ",train"])
def test_a_row_without_a_stem_or_a_split_is_refused(root, row):
    (root / "split.csv").write_text(f"stem,split\nb,train\n{row}\n")
    message = message_of(lambda: open_folder(root))
    assert str(root / "split.csv") in message
    assert "line 3" in message


@pytest.mark.parametrize(
    "content",
    [
        b"stem,split\n\xff\xfe,train\n",
        "stem,split\na,train\n".encode("utf-16"),
        "stem,split\na,train\n".encode("utf-16-le"),
    ],
    ids=["no text", "utf-16", "utf-16 without a mark"],
)
def test_a_split_file_that_is_not_utf_8_is_told_to_be_saved_anew(root, content):
    (root / "split.csv").write_bytes(content)
    assert message_of(lambda: open_folder(root)) == (
        f"{root / 'split.csv'} must be text in UTF-8, but is not (UTF-16 from a spreadsheet?); "
        "save it anew as 'CSV UTF-8'"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfstem,split\r\na,val\r\nb,train\r\n",
        b"split,area,stem\nval,7,a\n\ntrain,,b\n",
        b'"stem","split"\n"a","val"\n"b","train"',
        b"stem, split\na, val\nb , train \n",
        b"stem;split\r\na;val\r\nb;train\r\n",
        b"\xef\xbb\xbfStem,SPLIT\r\na,val\r\nb,train\r\n",
        b"\nstem,split\n\na,val\nb,train\n",
    ],
    ids=["bom", "other columns", "quotes", "blanks", "semicolons", "capitals", "blank lines"],
)
def test_a_split_file_may_look_as_spreadsheets_write_it(root, content):
    (root / "split.csv").write_bytes(content)
    found = [(image.stem, image.split) for image in open_folder(root).images]
    assert found == [("a", "val"), ("b", "train")]


@pytest.mark.parametrize(("part", "kind"), [("images", "image"), ("masks", "mask")])
def test_a_stem_without_its_file_is_named(root, part, kind):
    (root / part / "a.tif").unlink()
    message = message_of(lambda: open_folder(root))
    assert (
        f"split.csv lists 'a', but {kind}s/ holds no {kind} of that name (.tif"
        in message.replace(str(root) + "/", "")
    )


def test_a_file_of_another_kind_is_no_image(root):
    (root / "images" / "a.tif").rename(root / "images" / "a.txt")
    assert "lists 'a', but images/" in message_of(lambda: open_folder(root))


def test_a_stem_with_an_ending_is_told_to_have_none(root):
    (root / "split.csv").write_text("stem,split\na.tif,train\n")
    message = message_of(lambda: open_folder(root))
    assert "lists 'a.tif', but" in message and message.endswith("leave the ending out")


def test_a_folder_that_cannot_be_looked_into_is_named(root, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    message = message_of(lambda: open_folder(root))
    assert message == f"folder {root / 'masks'} cannot be read (Permission denied)"
    assert {f.code for f in examine("folder", root).findings} >= {"unreadable-folder"}


def test_two_files_of_one_stem_are_refused(root):
    shutil.copy(root / "images" / "a.tif", root / "images" / "a.PNG")
    message = message_of(lambda: open_folder(root))
    assert str(root / "images") in message
    assert "holds both a.PNG and a.tif; keep one" in message


def test_a_stem_that_is_listed_twice_is_refused(root):
    (root / "split.csv").write_text("stem,split\na,train\na,val\n")
    assert message_of(lambda: open_folder(root)) == f"{root / 'split.csv'} lists 'a' twice"


def test_files_that_no_row_lists_are_left_out(root):
    (root / "split.csv").write_text("stem,split\nb,train\n")
    (root / "images" / "a.tif.aux.xml").write_text("")
    assert [image.stem for image in open_folder(root).images] == ["b"]


def test_image_and_label_may_be_of_different_kinds(make_folder, draw):
    root = make_folder({"a": ("train", *draw(0))}, suffix=".jpg", label_suffix=".png")
    (only,) = open_folder(root).images
    assert (only.image.name, only.label.name) == ("a.jpg", "a.png")


def test_an_empty_split_is_refused_and_the_others_named(root):
    data = open_folder(root)
    message = message_of(lambda: data.of_split("test"))
    assert message == f"{root}: no image is in split 'test'; there are: train, val"


def test_open_data_finds_the_layout_by_name(root):
    assert open_data(DataSettings(root=root)) == open_folder(root)
    assert isinstance(open_data(DataSettings(root=root)).classes, ClassTable)


def test_open_data_names_the_layouts_that_it_knows():
    message = message_of(lambda: open_data(DataSettings(dataset="lovda")), ConfigError)
    assert message == "there is no data set 'lovda'; did you mean 'loveda'?"
    message = message_of(lambda: open_data(DataSettings()), ConfigError)
    assert message == "data set 'folder' needs the folder it is in; give --data ROOT"
