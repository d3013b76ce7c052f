import os
import stat

import pytest

from cvmh.errors import OutputError
from cvmh.files import lock, make_folder, without_secrets, write_complete


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", [b"", b"\x00\xff\r\n", b"x" * 3_000_000])
def test_bytes_arrive_as_they_are(tmp_path, content):
    write_complete(tmp_path / "a.bin", content)
    assert (tmp_path / "a.bin").read_bytes() == content
    assert names_in(tmp_path) == ["a.bin"]


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path):
    write_complete(tmp_path / "a.txt", "ä\n€\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\n\xe2\x82\xac\n"


def test_an_existing_file_is_replaced_and_not_written_into(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text("a longer old content")
    other.hardlink_to(path)
    write_complete(path, "new")
    assert path.read_text() == "new"
    assert other.read_text() == "a longer old content"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"os.{failing}", fail)
    with pytest.raises(OutputError) as caught:
        write_complete(path, "new")
    assert str(caught.value) == f"{path} cannot be written (No space left on device)"
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_complete(path, "new")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_complete(tmp_path / "a.txt", "x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "none" / "a.txt"
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        write_complete(path, "x")
    assert str(path) in str(caught.value)
    assert names_in(tmp_path) == []


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError):
        write_complete(tmp_path / "a", "x")
    assert names_in(tmp_path) == ["a"]


def test_a_locked_file_is_free_again_when_it_is_closed_or_its_process_ends(tmp_path, start_python):
    path = tmp_path / "a"
    with path.open("a+b") as mine, path.open("a+b") as other:
        assert lock(mine)
        assert not lock(other)
    code = "from pathlib import Path; from cvmh.files import lock; file = Path('a').open('a+b');"
    hold = "print(lock(file), flush=True); import time; time.sleep(60)"
    process = start_python("-c", code + hold)
    assert process.stdout.readline() == "True\n"
    with path.open("a+b") as mine:
        assert not lock(mine)
        process.kill()
        process.wait(timeout=60)
        assert lock(mine)


def test_folders_are_made_with_those_above_them_unless_a_file_is_in_the_way(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"folder .*b cannot be made \(Not a directory\)"):
        make_folder(tmp_path / "file" / "b")


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("https://user:word@host.org/a/b.tif?sig=abc&x=1#y", "https://host.org/a/b.tif"),
        ("s3://bucket/key.tif", "s3://bucket/key.tif"),
        ("in/what?.tif", "in/what?.tif"),
    ],
)
def test_passwords_and_signatures_of_addresses_are_not_kept(word, kept):
    assert without_secrets(word) == kept
