"""What is finished survives a torn end, a flipped bit and a second process."""

import numpy as np
import pytest

from cvmh.errors import OutputError
from cvmh.predict.journal import Journal, Piece, Record, folder_of

SETTINGS = {"scene": "a.tif", "tile": 64}
LAYOUT = {"spans": [[0, 90]]}


@pytest.fixture
def folder(tmp_path):
    return folder_of(tmp_path / "mask.tif")


def record(seed):
    """Return a record of odd shapes: three planes, in two pieces, sometimes none at all."""
    rng = np.random.default_rng(seed)
    pieces = []
    for column in (0, 40)[: seed % 3]:
        height, width = rng.integers(1, 9, 2).tolist()
        ids = rng.integers(0, 6, (height, width), "uint8")
        scores = rng.random((6, height, width)).astype("float16")
        pieces.append(Piece(column, (ids, ids + 1, scores)))
    facts = {"tiles": seed, "class_pixels": [seed, 0], "pairs": [[seed]], "borders": []}
    return Record(facts, tuple(pieces))


def same(one, other):
    assert one.facts == other.facts
    assert [piece.column for piece in one.pieces] == [piece.column for piece in other.pieces]
    for mine, theirs in zip(one.pieces, other.pieces, strict=True):
        for plane, expected in zip(mine.planes, theirs.planes, strict=True):
            assert plane.dtype == expected.dtype
            np.testing.assert_array_equal(plane, expected)


def begin(folder, count=4):
    """Write a journal of some records; return where each of them ends."""
    ends = []
    with Journal(folder, SETTINGS, LAYOUT) as journal:
        ends.append((folder / "journal").stat().st_size)
        for number in range(count):
            journal.append(0, number, record(number))
            ends.append((folder / "journal").stat().st_size)
    return ends


def opened(folder, **settings):
    return Journal(folder, {**SETTINGS, **settings}, {"spans": []})


def test_records_come_back_as_they_were_written(folder):
    begin(folder)
    with opened(folder) as journal:
        assert journal.layout == LAYOUT
        assert journal.keys() == [(0, 0), (0, 1), (0, 2), (0, 3)]
        assert (0, 3) in journal and (0, 4) not in journal and (1, 0) not in journal
        # In any order, and between appending.
        for number in (2, 0, 3, 1):
            same(journal.read(0, number), record(number))
            journal.append(1, number, record(number + 10))
            assert journal.facts(0, number) == record(number).facts
        same(journal.read(1, 2), record(12))


def test_a_record_torn_at_any_byte_is_cut_off_and_written_anew(folder):
    ends = begin(folder, count=3)
    path = folder / "journal"
    whole = path.read_bytes()
    for size in range(ends[-2], ends[-1]):
        path.write_bytes(whole[:size])
        with opened(folder) as journal:
            assert journal.keys() == [(0, 0), (0, 1)], size
            assert path.stat().st_size == ends[-2]
            journal.append(0, 2, record(2))
        assert path.read_bytes() == whole


def test_a_header_torn_at_any_byte_begins_a_journal_that_can_be_continued(folder):
    ends = begin(folder, count=2)
    path = folder / "journal"
    whole = path.read_bytes()
    for size in range(ends[0]):
        path.write_bytes(whole[:size])
        with Journal(folder, SETTINGS, LAYOUT) as journal:
            assert len(journal) == 0, size
            journal.append(0, 0, record(0))
            journal.append(0, 1, record(1))
        with opened(folder) as journal:
            assert journal.keys() == [(0, 0), (0, 1)], size


def test_no_flipped_bit_of_a_record_goes_unnoticed(folder):
    ends = begin(folder, count=3)
    path = folder / "journal"
    whole = path.read_bytes()
    for place in range(ends[-2], ends[-1]):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x80 if place % 2 else 0x01
        path.write_bytes(spoilt)
        with opened(folder) as journal:
            assert journal.keys() == [(0, 0), (0, 1)], place
            same(journal.read(0, 1), record(1))


def test_damage_in_the_middle_costs_what_follows_and_no_more(folder):
    ends = begin(folder, count=4)
    path = folder / "journal"
    whole = bytearray(path.read_bytes())
    whole[ends[1] + 30] ^= 1
    path.write_bytes(whole)
    with opened(folder) as journal:
        assert journal.keys() == [(0, 0)]


def test_damage_while_the_journal_is_in_use_is_told(folder):
    ends = begin(folder, count=2)
    with opened(folder) as journal:
        with (folder / "journal").open("r+b") as file:
            file.seek(ends[0] + 40)
            file.write(b"\0\0\0\0")
        with pytest.raises(OutputError, match="damaged while it was in use"):
            journal.read(0, 0)


def test_other_settings_are_named_and_leave_the_journal_as_it_is(folder):
    begin(folder)
    before = (folder / "journal").read_bytes()
    with pytest.raises(OutputError) as caught:
        opened(folder, tile=32, tta=True)
    message = str(caught.value)
    assert message.startswith(f"{folder.with_name('mask.tif')} was begun with other settings")
    assert "(tile 64, now 32; tta None, now True)" in message
    assert "scene" not in message.partition("(")[2] and "--overwrite" in message
    assert (folder / "journal").read_bytes() == before


def test_other_settings_may_discard_the_journal(folder):
    begin(folder)
    with Journal(folder, {"tile": 32}, LAYOUT, overwrite=True) as journal:
        assert len(journal) == 0
        journal.append(0, 0, record(5))
    with Journal(folder, {"tile": 32}, LAYOUT) as journal:
        assert journal.keys() == [(0, 0)]
        same(journal.read(0, 0), record(5))


def test_the_same_settings_continue_even_if_anything_may_be_overwritten(folder):
    begin(folder)
    with Journal(folder, SETTINGS, LAYOUT, overwrite=True) as journal:
        assert len(journal) == 4


def test_a_journal_without_a_record_binds_nobody_and_leaves_no_folder(folder):
    with Journal(folder, SETTINGS, LAYOUT):
        assert folder.exists()
    assert not folder.exists()
    folder.mkdir()
    (folder / "journal").write_bytes(b'{"settings": {"tile": 1}, "layout": {}}\n')
    with opened(folder) as journal:
        assert journal.layout == {"spans": []}


def test_a_file_that_is_no_journal_is_replaced(folder):
    folder.mkdir()
    for content in (b"", b"[1, 2]\n", b"\xff\xfe\n\n", b"null\n", b"{}\n" * 9):
        (folder / "journal").write_bytes(content)
        with opened(folder) as journal:
            assert len(journal) == 0
            journal.append(0, 0, record(1))
        with opened(folder) as journal:
            same(journal.read(0, 0), record(1))


def test_only_one_may_write_at_a_time_and_the_second_changes_nothing(folder):
    with Journal(folder, SETTINGS, LAYOUT) as journal:
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"another process is writing .*mask\.tif; wait"):
                Journal(folder, {"tile": 1}, LAYOUT, overwrite=overwrite)
        journal.append(0, 0, record(1))
    with opened(folder) as journal:
        assert journal.keys() == [(0, 0)]


def test_a_full_disk_keeps_what_was_finished(folder, monkeypatch):
    with Journal(folder, SETTINGS, LAYOUT) as journal:
        journal.append(0, 0, record(1))
        size = (folder / "journal").stat().st_size

        def fail():
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(journal, "_sync", fail)
        with pytest.raises(OutputError, match=r"No space left on device.*1 finished stripe"):
            journal.append(0, 1, record(2))
        assert (folder / "journal").stat().st_size == size
        assert (0, 1) not in journal
    with opened(folder) as journal:
        same(journal.read(0, 0), record(1))


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"mask\.tif cannot be written \(Not a directory\)"):
        Journal(folder_of(tmp_path / "file" / "mask.tif"), SETTINGS, LAYOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
