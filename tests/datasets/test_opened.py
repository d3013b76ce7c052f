import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from cvmh.datasets.opened import OpenRasters
from cvmh.errors import RasterError


@pytest.fixture
def paths(tmp_path, write):
    return [
        write(tmp_path / f"{value}.tif", np.full((1, 8, 8), value, np.uint8)) for value in range(5)
    ]


def values_of(rasters, paths):
    return [int(rasters.get(path).read()[0, 0, 0]) for path in paths]


def count_open(paths):
    files = {path.stat().st_ino for path in paths}
    links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return sum(link.stat().st_ino in files for link in links)


def test_a_raster_is_opened_once(paths):
    rasters = OpenRasters()
    assert rasters.get(paths[0]) is rasters.get(paths[0])
    assert rasters.get(paths[0]) is not rasters.get(paths[1])
    rasters.close()


def test_those_used_last_stay_open(paths):
    rasters = OpenRasters(most=2)
    first, second = rasters.get(paths[0]), rasters.get(paths[1])
    rasters.get(paths[0])
    rasters.get(paths[2])
    assert rasters.get(paths[0]) is first
    assert rasters.get(paths[1]) is not second
    assert values_of(rasters, paths * 3) == [0, 1, 2, 3, 4] * 3
    rasters.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted on Linux")
def test_no_more_files_are_open_than_asked(paths):
    rasters = OpenRasters(most=3)
    before = count_open(paths)
    for path in paths * 2:
        rasters.get(path)
    assert count_open(paths) - before == 3
    rasters.close()
    assert count_open(paths) == before == 0


def test_a_process_that_was_forked_opens_its_own(paths):
    rasters = OpenRasters()
    values_of(rasters, paths)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    mine = rasters.get(paths[0])

    def look():
        answers.put((rasters.get(paths[0]) is not mine, values_of(rasters, paths)))

    process = context.Process(target=look)
    process.start()
    assert answers.get() == (True, [0, 1, 2, 3, 4])
    process.join()
    assert rasters.get(paths[0]) is mine
    assert values_of(rasters, paths) == [0, 1, 2, 3, 4]
    rasters.close()


def test_open_files_are_not_sent_to_another_process(paths):
    rasters = OpenRasters(most=2)
    values_of(rasters, paths)
    sent = pickle.loads(pickle.dumps(rasters))
    assert sent.most == 2
    assert values_of(sent, paths) == [0, 1, 2, 3, 4]
    rasters.close()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RasterError, match=r"gone\.tif does not exist"):
        OpenRasters().get(tmp_path / "gone.tif")
