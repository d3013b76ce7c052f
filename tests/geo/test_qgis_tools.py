import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from matplotlib.image import imread

from cvmh.classes import ISPRS
from cvmh.geo.mask import MaskWriter
from cvmh.geo.raster import Raster

TOOLS = Path(__file__).parents[2] / "tools" / "qgis"
GRID = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000)}
# Says what it was asked, writes what QGIS will open, and behaves as OPTIONS tell it.
STAND_IN = """#!{python}
import json, os, shutil, signal, sys, time
arguments = sys.argv[1:]
def stop(*_):
    with open({told!r}, "a") as file:
        print(json.dumps("stopped"), file=file)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
with open({told!r}, "a") as file:
    print(json.dumps([arguments, os.environ.get("PYTHONPATH")]), file=file)
for done in range(1, 5):
    line = dict(stage="predict", done=done, total=4, unit="tiles", eta_s=None)
    print(json.dumps(line), file=sys.stderr, flush=True)
if "--fail" in arguments:
    print("Error: the scene has no bands", file=sys.stderr)
    sys.exit(1)
if "--wait" in arguments:
    time.sleep(60)
if "--mask" in arguments:
    shutil.copy(arguments[arguments.index("--mask") + 1], arguments[arguments.index("-o") + 1])
print("mask written")
"""
unix_only = pytest.mark.skipif(os.name == "nt", reason="a shell script")


@pytest.fixture
def told(tmp_path):
    """Return a function that gives what the stand-in was asked so far."""

    def read():
        path = tmp_path / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


@pytest.fixture
def stand_in(tmp_path):
    """Return the path of a program that is called like cvmh."""
    path = tmp_path / "programs" / "cvmh"
    path.parent.mkdir()
    path.write_text(STAND_IN.format(python=sys.executable, told=str(tmp_path / "told")))
    path.chmod(0o755)
    return path


@pytest.fixture
def predict_folder(tmp_path, stand_in):
    """Return a function that runs the script for folders."""

    def run(*arguments):
        return subprocess.run(
            ["bash", TOOLS / "predict_folder.sh", *arguments],
            env={**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@unix_only
def test_a_folder_becomes_masks_and_polygons(predict_folder, told, tmp_path):
    scenes = tmp_path / "my scenes"
    scenes.mkdir()
    for name in ("b [1].tif", "a.TIF", "c.tiff", "d.vrt", "notes.txt", "a.tif.aux.xml"):
        (scenes / name).touch()
    run = predict_folder("my scenes", "my masks", "my model.safetensors", "--aoi", "my area.gpkg")
    assert run.returncode == 0, run.stderr
    ((arguments, _),) = told()
    end = arguments.index("-o")
    assert arguments[0] == "predict"
    names = ("a.TIF", "b [1].tif", "c.tiff", "d.vrt")
    assert sorted(arguments[1:end]) == [f"my scenes/{name}" for name in names]
    assert arguments[end:] == [
        *("-o", "my masks/{stem}.tif"),
        *("--vectors", "my masks/{stem}.gpkg"),
        *("--checkpoint", "my model.safetensors"),
        *("--resume", "--aoi", "my area.gpkg"),
    ]
    assert (tmp_path / "my masks").is_dir()


@unix_only
def test_the_exit_code_of_the_command_is_that_of_the_script(predict_folder, tmp_path):
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "a.tif").touch()
    assert predict_folder("scenes", "masks", "m.safetensors", "--fail").returncode == 1


@unix_only
@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [((), "usage: predict_folder.sh"), (("empty", "masks", "m"), "no .tif")],
)
def test_a_wrong_call_is_explained_and_does_nothing(
    predict_folder, told, tmp_path, arguments, fragment
):
    (tmp_path / "empty").mkdir()
    run = predict_folder(*arguments)
    assert run.returncode == 2 and fragment in run.stderr
    assert not told() and not (tmp_path / "masks").exists()


def test_both_scripts_for_folders_call_the_same_command():
    shell = (TOOLS / "predict_folder.sh").read_text()
    batch = (TOOLS / "predict_folder.bat").read_bytes().decode()
    # Without them cmd.exe may miss a label.
    assert batch.count("\n") == batch.count("\r\n")

    def options(text):
        call = text[text.index("cvmh predict ", text.index("mkdir")) :].replace("\\\n", " ")
        return [word for word in call.splitlines()[0].split() if word.startswith("-")]

    assert options(shell) == options(batch)
    assert options(batch) == ["-o", "--vectors", "--checkpoint", "--resume"]


@pytest.fixture
def mask(make_raster, tmp_path):
    """Return the path of a mask of two halves, class 1 above class 3."""
    ids = np.repeat(np.uint8([1, 3]), 20)[:, None].repeat(60, axis=1)
    scene = make_raster(array=np.full((1, 40, 60), 77, "uint8"), **GRID)
    with Raster(scene) as raster, MaskWriter(tmp_path / "mask.tif", raster, ISPRS) as writer:
        writer.write_rows(ids)
    return tmp_path / "mask.tif"


def test_a_mask_is_drawn_with_its_legend(in_qgis, mask, tmp_path):
    picture = tmp_path / "picture.png"
    run = in_qgis(TOOLS / "render.py", mask, picture, "--width", 800)
    assert run.returncode == 0, run.stderr
    pixels = np.rint(255 * imread(picture)[..., :3]).astype(int)
    assert pixels.shape[1] == pytest.approx(800, abs=2)
    is_blue, is_green = (
        (pixels == rgb).all(axis=2) for rgb in (ISPRS.colours[1], ISPRS.colours[3])
    )
    # The map, then the legend, in which there are all classes.
    map_width = int(800 * 124 / 173)
    rows = np.flatnonzero(is_blue[:, :map_width].any(axis=1))
    assert rows.max() < np.flatnonzero(is_green[:, :map_width].any(axis=1)).min() + 2
    assert 0.9 < is_blue[:, :map_width].sum() / is_green[:, :map_width].sum() < 1.1
    for colour in ISPRS.colours[1:]:
        assert (pixels[:, map_width:] == colour).all(axis=2).any(), colour


def test_a_scene_is_drawn_beside_its_mask(in_qgis, mask, tmp_path):
    sizes = []
    for name, options in (("a.png", []), ("b.png", ["--scene", tmp_path / "scene.tif"])):
        run = in_qgis(TOOLS / "render.py", mask, tmp_path / name, *options, "--opacity", "0.5")
        assert run.returncode == 0, run.stderr
        sizes.append(imread(tmp_path / name).shape)
    assert sizes[0][0] > 1.5 * sizes[1][0]


def test_what_cannot_be_drawn_is_named(in_qgis, tmp_path):
    run = in_qgis(TOOLS / "render.py", tmp_path / "missing.tif", tmp_path / "picture.png")
    assert run.returncode == 1
    assert "missing.tif cannot be opened as a raster" in run.stderr


@pytest.fixture
def run_tool(in_qgis, qgis_process, tmp_path, mask, stand_in):
    """Return a function that runs the tool in the toolbox of a QGIS that has it."""
    settings = tmp_path / "settings"
    scripts = settings / "profiles" / "default" / "processing" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(TOOLS / "cvmh_predict.py", scripts)
    (tmp_path / "my model.safetensors").touch()

    def run(*parameters, command=stand_in):
        given = (
            f"INPUT={tmp_path / 'scene.tif'}",
            f"MODEL={tmp_path / 'my model.safetensors'}",
            f"COMMAND={command}",
            f"OUTPUT={tmp_path / 'new.tif'}",
        )
        arguments = ("run", "script:cvmh_predict", "--", *given, *parameters)
        return in_qgis(qgis_process, *arguments, settings=settings, PYTHONPATH="/of/qgis")

    return run


def test_the_toolbox_calls_the_command_and_hears_it(run_tool, told, mask, tmp_path):
    vectors = tmp_path / "new.gpkg"
    run = run_tool(f"VECTORS={vectors}", f'OPTIONS=--mask "{mask}" --tta')
    assert run.returncode == 0, run.stderr
    ((arguments, python_path),) = told()
    assert arguments == [
        *("predict", str(tmp_path / "scene.tif"), "-o", str(tmp_path / "new.tif")),
        *("--checkpoint", str(tmp_path / "my model.safetensors")),
        *("--overwrite", "--progress", "json"),
        *("--vectors", str(vectors), "--mask", str(mask), "--tta"),
    ]
    assert python_path is None
    assert "100" in run.stdout and "predict: 4 of 4 tiles" in run.stdout
    assert "mask written" in run.stdout
    assert f"OUTPUT:\t{tmp_path / 'new.tif'}" in run.stdout


def test_polygons_are_made_only_when_asked_for(run_tool, told):
    assert run_tool().returncode == 0
    assert "--vectors" not in told()[0][0]


def test_a_failure_of_the_command_fails_in_the_toolbox_with_its_own_words(run_tool):
    run = run_tool("OPTIONS=--fail")
    assert run.returncode != 0
    assert "the scene has no bands" in run.stdout + run.stderr


def test_a_missing_command_is_explained(run_tool):
    run = run_tool(command="/nowhere/cvmh")
    assert run.returncode != 0
    assert "give the full path in COMMAND" in run.stdout + run.stderr


CANCEL = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from qgis.core import QgsProcessingFeedback
import cvmh_predict

class Impatient(QgsProcessingFeedback):
    def setProgressText(self, text):
        self.cancel()

cvmh_predict.run([sys.argv[2], "predict", "--wait"], Impatient())
print("came back", flush=True)
os._exit(0)
"""


@unix_only
def test_cancelling_in_qgis_stops_the_command(in_qgis, stand_in, told, tmp_path):
    (tmp_path / "cancel.py").write_text(CANCEL)
    run = in_qgis(tmp_path / "cancel.py", TOOLS, stand_in, PYTHONDONTWRITEBYTECODE="1")
    assert run.stdout == "came back\n", run.stderr
    assert told()[-1] == "stopped"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("--tta  --overlap auto", ["--tta", "--overlap", "auto"]),
        (
            r'--aoi "C:\my area\new.gpkg" --bands 1,2',
            ["--aoi", r"C:\my area\new.gpkg", "--bands", "1,2"],
        ),
        ("--aoi /tmp/a#b.gpkg", ["--aoi", "/tmp/a#b.gpkg"]),
    ],
)
def test_options_are_split_as_they_are_typed(in_qgis, tmp_path, text, words):
    script = tmp_path / "split.py"
    script.write_text(
        "import json, sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True\n"
        "import cvmh_predict; print(json.dumps(cvmh_predict.split(sys.argv[2])))"
    )
    assert json.loads(in_qgis(script, TOOLS, text).stdout) == words
