"""What users hand in by mistake: one clear line on stderr, exit code 1, and no output."""

import json
from pathlib import Path

import numpy as np
import pytest

from cvmh.geo.raster import write_raster

VRT = """<VRTDataset rasterXSize="64" rasterYSize="64">
  {}
</VRTDataset>"""
VRT_BAND = """<VRTRasterBand dataType="Byte" band="{0}"><ColorInterp>{1}</ColorInterp>
  <SimpleSource><SourceFilename relativeToVRT="1">gone.tif</SourceFilename>
  <SourceBand>{0}</SourceBand></SimpleSource></VRTRasterBand>"""


def missing(path, make_scene):
    pass


def empty(path, make_scene):
    path.write_bytes(b"")


def truncated(path, make_scene):
    make_scene(path.name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def text(path, make_scene):
    path.write_text("not a raster at all")


def vrt_without_its_source(path, make_scene):
    bands = enumerate(("Red", "Green", "Blue"), start=1)
    path.write_text(VRT.format("\n".join(VRT_BAND.format(*band) for band in bands)))


def two_bands(path, make_scene):
    make_scene(path.name, num_bands=2)


def sixteen_bits(path, make_scene):
    make_scene(path.name, dtype="uint16")


SCENES = {
    missing: "scene.tif does not exist",
    empty: "scene.tif is empty (0 bytes); fetch or copy the file again",
    truncated: "scene.tif is damaged or cut off",
    text: "scene.tif is not a raster that can be opened",
    vrt_without_its_source: "gone.tif, which is missing",
    two_bands: "blue",
    sixteen_bits: "scene.tif must be uint8 as in training, got uint16",
}


COMPILED = "cvmh: compiling the scan for this machine"


def check(outcome, sentence):
    assert (outcome.code, outcome.stdout) == (1, "")
    # The verb ``train`` names its run folder before it looks at the data, and the first scan on a
    # machine says that it is compiled.
    lines = outcome.stderr.splitlines()
    (line,) = [line for line in lines if not line.startswith(("cvmh: run folder ", COMPILED))]
    assert line.startswith("cvmh: error: ") and sentence in line
    assert "cvmh: unexpected" not in line


@pytest.mark.parametrize("spoil", SCENES, ids=lambda spoil: spoil.__name__)
def test_a_scene_that_cannot_be_predicted_is_named(
    cvmh, make_scene, tiny_bundle, tmp_path, visible, spoil
):
    spoil(tmp_path / "scene.tif", make_scene)
    before = visible()
    outcome = cvmh("predict", "scene.tif", "-o", "mask.tif", "--checkpoint", tiny_bundle)
    check(outcome, SCENES[spoil])
    assert visible() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "bundle net.safetensors does not exist; train one with"),
        (b"", "net.safetensors is not a bundle"),
        (b"PK\x03\x04 an old checkpoint", "net.safetensors is not a bundle"),
        (b"\x02\0\0\0\0\0\0\0{}", "no cvmh header, so it is not a bundle"),
    ],
    ids=["missing", "empty", "other file", "other safetensors"],
)
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_bundle_that_is_none_is_named(
    cvmh, make_scene, easy_data, tmp_path, visible, verb, content, sentence
):
    make_scene()
    if content is not None:
        (tmp_path / "net.safetensors").write_bytes(content)
    before = visible()
    arguments = {
        "predict": ("scene.tif", "-o", "mask.tif", "--checkpoint", "net.safetensors"),
        "evaluate": ("net.safetensors", "--data", easy_data, "--out", "scores"),
    }
    check(cvmh(verb, *arguments[verb]), sentence)
    assert visible() == before


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("nowhere/mask.tif", "the folder nowhere of mask.tif does not exist"),
        ("mask.png", "mask.png will be a GeoTIFF, so its name must end in .tif or .tiff"),
        ("scene.tif", "would replace its own scene"),
    ],
)
def test_a_mask_that_cannot_be_written_there_is_refused(
    cvmh, make_scene, tiny_bundle, visible, output, sentence
):
    make_scene()
    check(
        cvmh("predict", "scene.tif", "-o", output, "--checkpoint", tiny_bundle, "--overwrite"),
        sentence,
    )
    assert visible() == {"scene.tif"}


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--device", "abacus"), "abacus"),
        (("--precision", "fp8"), "fp8"),
        (("--bands", "1,2,9"), "9"),
    ],
)
def test_an_option_that_does_not_fit_is_named(
    cvmh, make_scene, tiny_bundle, visible, option, sentence
):
    make_scene()
    outcome = cvmh("predict", "scene.tif", "-o", "m.tif", "--checkpoint", tiny_bundle, *option)
    check(outcome, sentence)
    assert visible() == {"scene.tif"}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody may write")
@pytest.mark.parametrize(
    "options",
    [
        ("-o", "mask.tif", "--scores", "/proc/self/scores.tif"),
        ("-o", "mask.tif", "--preview", "/proc/self/picture.png"),
        ("-o", "mask.tif", "--vectors", "/proc/self/polygons.fgb"),
        ("-o", "mask.tif", "--report", "/proc/self/report.json"),
    ],
    ids=lambda options: options[-2],
)
def test_a_folder_that_cannot_be_written_is_named_before_any_work(
    cvmh, make_scene, tiny_bundle, visible, tmp_path, options
):
    make_scene()
    outcome = cvmh("predict", "scene.tif", *options, "--checkpoint", tiny_bundle)
    check(outcome, Path(options[-1]).name)
    assert "cannot be written" in outcome.stderr
    assert visible() == {"scene.tif"}
    assert not list(tmp_path.glob(".*"))


AREA = (
    '{"type":"FeatureCollection","features":[{"type":"Feature","properties":{},'
    '"geometry":{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}}]}'
)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--max-memory", "1M"), "use --max-memory"),
        (("--aoi", "area.geojson"), "area.geojson"),
        (("--aoi", "none.gpkg"), "none.gpkg"),
        (("--aoi", "scene.tif"), "scene.tif"),
        (("--nodata", "-9999"), "nodata -9999 cannot be a pixel of scene.tif"),
        (("--vectors", "polygons.shp"), "polygons.shp"),
        (("--scores", "mask.tif"), "two outputs would be the same file"),
        (("--device", "cpu,cuda"), "cuda"),
    ],
    ids=" ".join,
)
def test_what_does_not_fit_the_scene_or_the_network_is_one_sentence_and_nothing_is_left(
    cvmh, make_scene, tiny_bundle, visible, tmp_path, options, sentence
):
    make_scene(height=100, width=100)
    (tmp_path / "area.geojson").write_text(AREA)
    outcome = cvmh(
        *("predict", "scene.tif", "-o", "mask.tif", "--checkpoint", tiny_bundle, *options)
    )
    check(outcome, sentence)
    assert visible() == {"scene.tif", "area.geojson"}
    assert not list(tmp_path.glob(".*"))


def smaller_label(root):
    write_raster(root / "masks" / "s1.tif", np.zeros((64, 60), "uint8"))


def unknown_class(root):
    label = np.zeros((64, 64), "uint8")
    label[5, 7] = 9
    write_raster(root / "masks" / "s1.tif", label)


def no_masks(root):
    (root / "masks").rename(root / "labels")


def no_label(root):
    (root / "masks" / "s0.tif").unlink()


def no_class_table(root):
    (root / "classes.json").unlink()


def class_table_with_a_gap(root):
    entries = json.loads((root / "classes.json").read_text())
    (root / "classes.json").write_text(json.dumps([entries[0], entries[2]]))


def no_splits(root):
    (root / "split.csv").unlink()


def other_bands(root):
    write_raster(root / "images" / "s1.tif", np.ones((4, 64, 64), "uint8"))


def damaged_validation_image(root):
    (root / "images" / "s2.tif").write_bytes(b"II*\0")


def no_data_at_all(root):
    for number in (0, 1):
        write_raster(root / "images" / f"s{number}.tif", np.zeros((3, 64, 64), "uint8"), nodata=0)


DATA = {
    smaller_label: "s1.tif must be one band of 64 x 64 pixels like its image, got 1 of 64 x 60",
    unknown_class: "s1.tif holds class id 9 at row 5, column 7; its data set has ids 0..2",
    no_masks: "masks does not exist; a folder data set has images/, masks/",
    no_label: "masks/ holds no mask of that name",
    no_class_table: "classes.json is missing",
    class_table_with_a_gap: "class ids must run 0, 1, 2 ... without a gap",
    no_splits: "split.csv is missing; write it with the columns stem,split",
    other_bands: "all images must have the same bands",
    damaged_validation_image: "s2.tif is not a raster that can be opened",
    no_data_at_all: "has a valid pixel; check their nodata values",
}


@pytest.mark.parametrize("spoil", DATA, ids=lambda spoil: spoil.__name__)
def test_data_that_cannot_be_trained_on_are_named_and_no_run_is_begun(
    cvmh, make_data, visible, spoil
):
    spoil(make_data())
    check(cvmh("train", "--dataset", "folder", "--data", "data", "--out", "run"), DATA[spoil])
    assert visible() == {"data"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--set", "train.epoch=3"], "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        (["--set", "train.epochs=many"], "--set train.epochs=many: 'train.epochs': input should"),
        (["--set", "train.epochs"], "a setting must be written key=value, for example"),
        (["--set", "train=3"], "'train'"),
        (["--set", "=3"], "a setting must be written key=value"),
        (["--model", "cvmh_unet_nan"], "there is no network 'cvmh_unet_nan'; did you mean"),
        (["--set", "model.settings.width=[8]"], "unknown key 'width'; did you mean 'widths'?"),
        (["--config", "none.yaml"], "config file none.yaml does not exist"),
        (["--data", "nowhere"], "data set folder nowhere does not exist"),
        (["--dataset", "moon"], "there is no data set 'moon'; known: folder"),
        (["--set", "data.root="], "needs the folder it is in; give --data ROOT"),
        (["--set", "data.bands=[1,7]"], "data.bands must name bands 1..3"),
        (["--set", "train.precision=16"], "train.precision=16 needs a GPU; use 32 or bf16"),
        (["--out", "file/run"], "folder file/run cannot be made (Not a directory)"),
        (["--out", "file"], "file is not empty; choose another --out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_are_wrong_are_named_and_no_run_is_begun(
    cvmh, easy_data, tmp_path, visible, options, sentence
):
    (tmp_path / "file").write_text("mine")
    given = ["--dataset", "folder", "--data", easy_data, "--out", "run", *options]
    check(cvmh("train", *given), sentence)
    assert visible() == {"file"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("train: [unclosed", "config file run.yaml cannot be read as YAML"),
        ("- 1\n- 2\n", "config file run.yaml must hold 'key: value' lines, got a list"),
        ("trian: {epochs: 3}\n", "run.yaml: unknown key 'trian'; did you mean 'train'?"),
    ],
)
def test_a_config_file_that_is_wrong_is_named(cvmh, tmp_path, visible, content, sentence):
    (tmp_path / "run.yaml").write_text(content)
    check(cvmh("train", "--config", "run.yaml"), sentence)
    assert visible() == {"run.yaml"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "BUNDLE", "--split", "none"], "give --data ROOT"),
        (["evaluate", "BUNDLE", "--data", "nowhere"], "data set folder nowhere does not exist"),
        (["info", "."], ". is no run folder; it has no config.yaml and run.json"),
        (["info", "notes.txt"], "notes.txt is not a raster that can be opened"),
        (["data", "synth", "."], ". is not empty; choose a new folder for the data set"),
        (["data", "synth", "notes.txt/x"], "notes.txt/x/images cannot be made"),
        (["demo", "--out", "notes.txt"], "notes.txt is a file; choose a folder with --out"),
        (["demo", "--out", "."], ". is not empty; choose another --out, or give --overwrite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_verbs_name_what_is_wrong_too(
    cvmh, tiny_bundle, tmp_path, visible, arguments, sentence
):
    (tmp_path / "notes.txt").write_text("words")
    given = [tiny_bundle if argument == "BUNDLE" else argument for argument in arguments]
    check(cvmh(*given), sentence)
    assert visible() == {"notes.txt"}
