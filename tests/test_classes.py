import json

import pytest

from cvmh.classes import ISPRS, ClassTable
from cvmh.errors import ConfigError

ROAD = {"id": 0, "name": "road", "rgb": [255, 0, 0]}
ROOF = {"id": 1, "name": "roof", "rgb": [0, 255, 0]}


def assert_refused(action, *fragments):
    with pytest.raises(ConfigError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_a_table_survives_a_file(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(ISPRS.to_json()), encoding="utf-8")
    assert ClassTable.read(path) == ISPRS


def test_a_table_is_written_as_plain_lists_and_numbers():
    assert ClassTable.from_json([ROAD, ROOF]).to_json() == [ROAD, ROOF]


def test_entries_are_ordered_by_id():
    table = ClassTable.from_json([ROOF, ROAD])
    assert table.names == ["road", "roof"]
    assert table.colours == [(255, 0, 0), (0, 255, 0)]
    assert [entry.id for entry in table] == [0, 1]
    assert len(table) == 2


def test_the_entry_of_ignored_pixels_is_left_out():
    ignored = {"id": 255, "name": "ignore", "rgb": [0, 0, 0]}
    assert ClassTable.from_json([ROAD, ignored, ROOF]).names == ["road", "roof"]


def test_255_classes_fit_and_256_do_not():
    rows = [{"id": i, "name": f"class {i}", "rgb": [i % 256, 0, 0]} for i in range(255)]
    assert len(ClassTable.from_json(rows)) == 255
    rows.append({"id": 256, "name": "one too many", "rgb": [0, 0, 0]})
    assert_refused(lambda: ClassTable.from_json(rows), "at most 255")


@pytest.mark.parametrize(
    ("entries", "fragment"),
    [
        ([], "got []"),
        ([ROOF], "without a gap, at most 255, got [1]"),
        ([ROAD, {**ROOF, "id": 2}], "got [0, 2]"),
        ([ROAD, {**ROOF, "id": 0}], "got [0, 0]"),
        ([{**ROAD, "id": -1}, ROAD], "got [-1, 0]"),
        ([ROAD, {**ROOF, "name": "road"}], "names must differ"),
        ([{**ROAD, "rgb": [0, 0, 256]}], "'road' must be three numbers 0..255"),
        ([{**ROAD, "rgb": [-1, 0, 0]}], "'road' must be three numbers 0..255"),
        ([{**ROAD, "rgb": [0, 0]}], "{id, name, rgb}"),
        ([{**ROAD, "rgb": "red"}], "{id, name, rgb}"),
        ([{**ROAD, "id": "first"}], "{id, name, rgb}"),
        ([{"id": 0, "name": "road"}], "{id, name, rgb}"),
        ({"road": ROAD}, "{id, name, rgb}"),
        (None, "{id, name, rgb}"),
        (7, "{id, name, rgb}"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line_that_names_the_file(tmp_path, entries, fragment):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    assert_refused(lambda: ClassTable.read(path), str(path), fragment)


def test_a_missing_file_says_what_to_write_there(tmp_path):
    path = tmp_path / "classes.json"
    assert_refused(lambda: ClassTable.read(path), f"{path} is missing", "[{id, name, rgb}, ...]")


@pytest.mark.parametrize("content", [b"", b"road, roof", b"[{", b"\xff\xfe\x00"])
def test_a_file_that_is_not_json_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "classes.json"
    path.write_bytes(content)
    assert_refused(lambda: ClassTable.read(path), str(path), "not a readable JSON file")
