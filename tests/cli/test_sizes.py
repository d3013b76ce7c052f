import click
import pytest

from cvmh.cli.sizes import MemorySize


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("800M", 800 * 2**20),
        ("800m", 800 * 2**20),
        ("1.5G", 3 * 2**29),
        ("4 GiB", 4 * 2**30),
        ("4GB", 4 * 2**30),
        ("64K", 2**16),
        ("2T", 2**41),
        (" 7G ", 7 * 2**30),
    ],
)
def test_sizes_of_memory_are_read_as_people_write_them(text, size):
    assert MemorySize().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "G", "0", "0G", "-1G", "1X", "1.G", "1e9", "one", "4 4G"])
def test_what_is_no_size_is_explained(text):
    with pytest.raises(click.BadParameter, match="such as 800M or 4G"):
        MemorySize().convert(text, None, None)
