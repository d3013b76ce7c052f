"""A stopped prediction goes on where it was, and leaves the same bytes as one that never stopped.

Stopped after every number of finished stripes, in every kind of plan; the uninterrupted run is the
truth.
"""

import os

import numpy as np
import pytest
import torch

from cvmh.errors import OutputError
from cvmh.geo.tiling import split_columns
from cvmh.predict import predict_raster
from cvmh.predict.journal import Journal

TILE = 32
UTM = {"crs": "EPSG:32633", "transform": (10, 0, 500_000, 0, -10, 5_400_000)}
# What a report says of the result, as opposed to how it came about.
FACTS = ("tiles_run", "tiles_skipped", "class_pixels", "class_areas", "seams", "pixels_valid")


class Stopped(Exception):
    """Whatever ends a process."""


class Context(torch.nn.Module):
    """Sees three pixels to each side, so that tiles disagree; may fail at a later pass."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(6, 3, 7, 7, generator=generator) * 0.3)
        self.passes_left = None

    def forward(self, x):
        if self.passes_left is not None:
            self.passes_left -= 1
            if self.passes_left < 0:
                raise Stopped
        return torch.nn.functional.conv2d(x, self.weight, padding=3)


@pytest.fixture
def bundle(make_bundle):
    return make_bundle(network=Context(), tile=TILE)


@pytest.fixture
def scene(make_scene, noise):
    """Return a scene with holes in some tiles, and a stripe of tiles without any data."""
    array = noise(3, 130, 110)
    array[:, 45:84] = 0
    array[:, :20, 60:] = 0
    array[:, 100:, 30:41] = 0
    return make_scene(array, nodata=0, tiled=True, blockxsize=16, blockysize=16, **UTM)


@pytest.fixture
def stop_after(monkeypatch):
    """Return a function that lets only so many more stripes be finished, None for all."""
    append = Journal.append

    def stop(count):
        left = count

        def counted(self, *arguments):
            nonlocal left
            if left == 0:
                raise Stopped
            append(self, *arguments)
            left = None if left is None else left - 1

        monkeypatch.setattr(Journal, "append", counted)

    return stop


@pytest.fixture
def split(monkeypatch):
    """Return a function that splits every scene into spans of so many columns."""

    def into(widest):
        monkeypatch.setattr(
            "cvmh.predict.prepare.split_scene",
            lambda raster, bands, plan, **_: (split_columns(plan.width, widest=widest), 0),
        )

    return into


@pytest.fixture
def run(scene, bundle, tmp_path):
    """Return a function that predicts into a folder; gives what the report says of the result."""

    def predict(**options):
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        given = {"scores": folder / "scores.tif", "confidence": folder / "confidence.tif"}
        report = predict_raster(scene, folder / "mask.tif", bundle, **{**given, **options})
        return report

    return predict


@pytest.fixture
def taken(tmp_path):
    """Return a function that takes all files of the folder away and gives their bytes."""

    def take():
        files = {path.name: path for path in (tmp_path / "out").iterdir()}
        content = {name: path.read_bytes() for name, path in files.items()}
        for path in files.values():
            path.unlink()
        return content

    return take


def facts(report):
    return {name: getattr(report, name) for name in FACTS}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def stop_everywhere(run, taken, stop_after, tmp_path, **options):
    """Stop a prediction after each number of finished stripes, and continue each time."""
    expected = facts(run(**options))
    truth = taken()
    assert expected["seams"]["pixels"] == 0 or 0 < expected["seams"]["share"] < 1
    num_finished = 0
    while True:
        stop_after(num_finished)
        try:
            run(**options)
        except Stopped:
            assert names_in(tmp_path / "out") == [".mask.tif.part"] * (num_finished > 0)
        else:
            break
        stop_after(None)
        report = run(**options)
        assert report.stripes_kept == num_finished
        assert facts(report) == expected, num_finished
        found = taken()
        assert found.keys() == truth.keys()
        assert all(found[name] == truth[name] for name in truth), num_finished
        num_finished += 1
    stop_after(None)
    taken()
    return num_finished


@pytest.mark.parametrize(("overlap", "num_stripes"), [(0, 5), (0.25, 6), (0.5, 8), (0.8, 18)])
def test_a_stop_after_any_stripe_changes_no_byte(
    run, taken, stop_after, tmp_path, overlap, num_stripes
):
    assert stop_everywhere(run, taken, stop_after, tmp_path, overlap=overlap) == num_stripes


@pytest.mark.parametrize("overlap", [0.25, 0.6])
def test_a_stop_after_any_stripe_of_any_span_changes_no_byte(
    run, taken, stop_after, split, tmp_path, overlap
):
    run(overlap=overlap)
    whole = taken()
    split(45)
    stops = stop_everywhere(run, taken, stop_after, tmp_path, overlap=overlap)
    assert stops % 3 == 0 and stops >= 18
    run(overlap=overlap)
    assert taken() == whole


def test_float16_scores_and_averaged_turns_continue_too(run, taken, stop_after, tmp_path):
    stop_everywhere(run, taken, stop_after, tmp_path, overlap=0.3, scores_type="float16", tta=True)


def test_work_that_was_begun_in_spans_goes_on_in_them_though_memory_would_do_now(
    run, taken, stop_after, split, monkeypatch
):
    run()
    truth = taken()
    with monkeypatch.context() as patch:
        patch.setattr(
            "cvmh.predict.prepare.split_scene",
            lambda raster, bands, plan, **_: (split_columns(plan.width, widest=40), 0),
        )
        stop_after(8)
        with pytest.raises(Stopped):
            run()
    stop_after(None)
    assert run().stripes_kept == 8
    assert taken() == truth


def test_a_network_that_fails_at_any_pass_changes_no_byte(run, taken, bundle, monkeypatch):
    monkeypatch.setattr("cvmh.predict.infer.PIXELS_IN_CACHE", 3 * TILE * TILE)
    expected = facts(run())
    truth = taken()
    num_passes, kept = 0, []
    while True:
        bundle.network.passes_left = num_passes
        try:
            run()
        except Stopped:
            pass
        else:
            break
        bundle.network.passes_left = None
        report = run()
        kept.append(report.stripes_kept)
        assert facts(report) == expected
        assert taken() == truth
        num_passes += 1
    assert num_passes >= 6
    assert kept == sorted(kept) and kept[0] == 0 and kept[-1] >= 3


def test_one_stop_after_another_changes_no_byte(run, taken, stop_after):
    expected = facts(run(overlap=0.6))
    truth = taken()
    for _ in range(20):
        stop_after(1)
        try:
            report = run(overlap=0.6)
        except Stopped:
            continue
        break
    assert report.stripes_kept > 5
    assert facts(report) == expected
    assert taken() == truth


def test_a_torn_journal_is_continued_from_its_last_whole_record(run, taken, stop_after, tmp_path):
    expected = facts(run())
    truth = taken()
    journal = tmp_path / "out" / ".mask.tif.part" / "journal"
    for share in (0.2, 0.5, 0.8, 0.99):
        stop_after(5)
        with pytest.raises(Stopped):
            run()
        whole = journal.read_bytes()
        journal.write_bytes(whole[: int(len(whole) * share)])
        stop_after(None)
        report = run()
        assert report.stripes_kept < 5
        assert facts(report) == expected
        assert taken() == truth


@pytest.mark.parametrize("name", ["mask.tif", "scores.tif", "confidence.tif", "aux", "report"])
def test_a_stop_while_the_outputs_are_completed_changes_no_byte(
    run, taken, monkeypatch, tmp_path, name
):
    """All stripes are finished: what is left is to publish each output."""
    run()
    truth = taken()
    with monkeypatch.context() as patch:
        if name == "report":
            patch.setattr("cvmh.predict.scene.make_report", raise_stopped)
        elif name == "aux":
            patch.setattr("cvmh.geo.mask.write_legend", raise_stopped)
        else:
            publish = __import__("cvmh.geo.writer").geo.writer.publish
            patch.setattr(
                "cvmh.geo.writer.publish",
                lambda made, path: raise_stopped() if path.name == name else publish(made, path),
            )
        with pytest.raises(Stopped):
            run()
    assert ("mask.tif" in names_in(tmp_path / "out")) == (name == "report")
    assert run().stripes_kept == 6
    assert taken() == truth


def raise_stopped(*_, **__):
    raise Stopped


CHANGES = {
    "tile": {"tile": 48},
    "overlap": {"overlap": 0.3},
    "tta": {"tta": True},
    "precision": {"precision": "bf16"},
    "nodata": {"nodata": 7.0},
    "bands": {"bands": (3, 2, 1)},
    "scores": {"scores_type": "float16"},
    "confidence": {"confidence": None},
}


@pytest.mark.parametrize("name", CHANGES)
def test_work_of_other_settings_is_named_and_kept_until_it_may_be_discarded(
    run, taken, stop_after, tmp_path, name
):
    run(warn=lambda _: None, **CHANGES[name])
    truth = taken()
    stop_after(2)
    with pytest.raises(Stopped):
        run()
    stop_after(None)
    before = (tmp_path / "out" / ".mask.tif.part" / "journal").read_bytes()
    with pytest.raises(OutputError) as caught:
        run(warn=lambda _: None, **CHANGES[name])
    message = str(caught.value)
    assert f"({name} " in message and "--overwrite" in message and "\n" not in message
    assert (tmp_path / "out" / ".mask.tif.part" / "journal").read_bytes() == before
    assert run(warn=lambda _: None, overwrite=True, **CHANGES[name]).stripes_kept == 0
    assert taken() == truth


def test_a_scene_that_changed_meanwhile_is_begun_anew(run, stop_after, scene):
    stop_after(2)
    with pytest.raises(Stopped):
        run()
    stop_after(None)
    os.utime(scene, (1, 1))
    assert run().stripes_kept == 0


def test_other_weights_are_not_continued(run, stop_after, bundle):
    stop_after(2)
    with pytest.raises(Stopped):
        run()
    stop_after(None)
    with torch.no_grad():
        bundle.network.weight[0, 0, 0, 0] += 1
    with pytest.raises(OutputError, match=r"begun with other settings and not finished \(bundle "):
        run()


def test_what_came_to_lie_in_the_way_meanwhile_is_not_replaced(run, taken, stop_after, tmp_path):
    """Only what the stopped call was allowed to write may be written by that which goes on."""
    picture = tmp_path / "out" / "picture.png"
    stop_after(2)
    with pytest.raises(Stopped):
        run()
    stop_after(None)
    picture.write_text("mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"picture\.png exists"):
            run(preview=picture, resume=resume)
    assert picture.read_text() == "mine"
    report = run(preview=picture, overwrite=True)
    assert report.stripes_kept == 2 and picture.read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_replacement_goes_on_without_being_allowed_again(
    run, taken, stop_after, tmp_path
):
    run()
    truth = taken()
    (tmp_path / "out" / "mask.tif").write_text("old")
    stop_after(2)
    with pytest.raises(Stopped):
        run(overwrite=True)
    assert (tmp_path / "out" / "mask.tif").read_text() == "old"
    stop_after(None)
    assert run(resume=True).stripes_kept == 2
    assert taken() == truth


def test_a_damaged_scene_leaves_nothing_to_continue(make_scene, bundle, tmp_path):
    values = np.random.default_rng(0).integers(1, 255, (3, 400, 300), "uint8")
    scene = make_scene(values, compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    whole = scene.read_bytes()
    place = len(whole) * 3 // 4
    scene.write_bytes(whole[:place] + b"\0" * 5000 + whole[place + 5000 :])
    with pytest.raises(OSError, match="is damaged or cut off"):
        predict_raster(scene, tmp_path / "mask.tif", bundle)
    assert names_in(tmp_path) == ["scene.tif"]
