import json

import pytest

from cvmh.errors import OutputError
from cvmh.geo.raster import Raster
from cvmh.report import demo
from cvmh.report.demo import FILES, run_demo


def visible(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def small(monkeypatch):
    """Shrink the demonstration to seconds; what it does stays the same."""
    monkeypatch.setattr(demo, "SIZE", 96)
    monkeypatch.setattr(demo, "NUM_SCENES", 2)
    settings = {
        "model": {
            "name": "cvmh_unet_nano",
            "settings": {"widths": [8, 8, 16, 16], "num_frequencies": 2},
        },
        "data": {"tile": 64, "batch": 2, "crops_per_epoch": 4, "workers": 0},
        "train": {"epochs": 1},
    }
    monkeypatch.setattr(demo, "SETTINGS", settings)


@pytest.mark.slow
def test_the_demonstration_leaves_its_files_and_can_be_repeated(small, tmp_path):
    told = []
    for _ in range(2):
        result = run_demo(tmp_path, overwrite=True, tell=told.append)
        assert visible(tmp_path) == {*FILES, "training", "mask.tif.aux.xml", "mask.qml"}
        (entry,) = json.loads((tmp_path / "scores.json").read_text())
        assert entry == result.scores.to_json()
        labels, mask = (Raster(tmp_path / name).read() for name in ("labels.tif", "mask.tif"))
        assert sum(map(sum, entry["confusion"])) == (labels != 255).sum()
        assert ((mask == 255) == (labels == 255)).all()
        assert (tmp_path / "preview.png").read_bytes().startswith(b"\x89PNG")
    assert len(told) == 6


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_place_of_the_folder_is_refused(tmp_path, overwrite):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(OutputError, match="demo is a file; choose a folder"):
        run_demo(tmp_path / "demo", overwrite=overwrite)
    assert (tmp_path / "demo").read_text() == "mine"


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mask.tif").write_text("mine")
    with pytest.raises(OutputError, match=r"is not empty; choose another --out, or give"):
        run_demo(tmp_path)
    assert visible(tmp_path) == {"mask.tif"}


def test_overwriting_leaves_files_of_other_names_alone(small, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "mask.tif").write_text("old")

    def stop(*arguments, **options):
        raise OutputError("stopped")

    monkeypatch.setattr(demo, "write_synthetic", stop)
    with pytest.raises(OutputError, match="stopped"):
        run_demo(tmp_path, overwrite=True)
    assert visible(tmp_path) == {"notes.txt"}
