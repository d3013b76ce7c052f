"""The command line as a whole: what it offers, how quickly it answers, and its exit codes."""

import os
import re
import statistics
import subprocess
import sys

import click
import pytest

from cvmh.cli.main import VERBS, cli
from cvmh.version import VERSION

# A promise to users and their scripts: change it on purpose, and say so in CHANGES.md.
COMMON = {"--help", "--verbose", "-h", "-v"}
OPTIONS = {
    "data doctor": {"--html", "--json", "--layout", "--overwrite", "--strict"},
    "data list": {"--json"},
    "data prepare": {"--anyway", "--output", "--set", "-o"},
    "data split": {"--block", "--gap", "--overwrite", "--seed", "--test", "--val"},
    "data synth": {"--gsd", "--scenes", "--seed", "--size"},
    "demo": {"--out", "--overwrite", "--seed"},
    "evaluate": {
        "--boundary",
        "--data",
        "--dataset",
        "--out",
        "--overwrite",
        "--protocol",
        "--set",
        "--split",
        "--tta",
    },
    "info": {"--checkpoint", "--json"},
    "models": {"--json"},
    "predict": {
        "--aoi",
        "--bands",
        "--batch",
        "--checkpoint",
        "--confidence",
        "--device",
        "--dry-run",
        "--force",
        "--json",
        "--max-memory",
        "--min-area",
        "--no-resample",
        "--nodata",
        "--output",
        "--overlap",
        "--overwrite",
        "--precision",
        "--preview",
        "--progress",
        "--prune",
        "--report",
        "--resample",
        "--resume",
        "--scores",
        "--scores-type",
        "--simplify",
        "--tile",
        "--tta",
        "--vectors",
        "-o",
    },
    "train": {
        "--config",
        "--data",
        "--dataset",
        "--devices",
        "--init",
        "--model",
        "--nodes",
        "--offline",
        "--out",
        "--resume",
        "--seed",
        "--set",
        "--strategy",
    },
}


def verbs(group=cli, prefix="", parent=None):
    """Yield every verb and subverb with its context."""
    context = click.Context(group, parent=parent, **group.context_settings)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from verbs(command, f"{prefix}{name} ", context)
        else:
            yield f"{prefix}{name}", command, click.Context(command, parent=context)


def test_the_verbs_and_their_options_are_those_that_were_promised():
    found = {
        name: {
            option
            for parameter in command.get_params(context)
            if isinstance(parameter, click.Option)
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for name, command, context in verbs()
    }
    assert found == {name: options | COMMON for name, options in OPTIONS.items()}


@pytest.mark.parametrize("verb", ["", *VERBS, "data synth", "data list", "data prepare"])
def test_every_verb_explains_itself(cvmh, verb):
    outcome = cvmh(*verb.split(), "--help")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout.startswith(f"Usage: cvmh {verb}".rstrip())


def test_the_help_lists_the_verbs_in_the_order_of_the_work(cvmh):
    listed = re.findall(r"^  ([a-z]+)  ", cvmh("-h").stdout.partition("Commands:")[2], re.MULTILINE)
    assert listed == ["demo", "data", "train", "evaluate", "predict", "info", "models"]


def test_the_version_is_printed(cvmh):
    assert cvmh("--version") == (0, f"cvmh {VERSION}\n", "")


HELP = "import sys; sys.argv = ['cvmh', '--help']; from cvmh.cli.main import main; "


def test_the_help_imports_no_heavy_library(start_python):
    code = "import atexit; atexit.register(lambda: print(*sys.modules, sep='\\n')); main()"
    stdout, stderr = start_python("-c", HELP + code).communicate(timeout=60)
    assert "predict" in stdout and not stderr
    heavy = {"torch", "numpy", "rasterio", "lightning", "matplotlib", "pydantic", "yaml", "rich"}
    assert "click" in stdout.split() and not heavy & set(stdout.split())


@pytest.mark.skipif(os.name == "nt", reason="needs the accounts of a child process")
def test_the_help_comes_at_once():
    seconds = []
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", HELP + "main()"], stdout=subprocess.PIPE)
        process.stdout.read()
        process.stdout.close()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        seconds.append(used.ru_utime + used.ru_stime)
    assert statistics.median(seconds) < 0.3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["paint"], "No such command 'paint'"),
        (["predict", "scene.tif"], "Missing option '-o'"),
        (["predict", "-o", "mask.tif"], "Missing argument 'SCENE...'"),
        (["predict", "a.tif", "-o", "m.tif", "--tile", "0"], "0 is not in the range x>=1"),
        (["predict", "a.tif", "-o", "m.tif", "--bands", "red"], "separated by commas"),
        (["predict", "a.tif", "-o", "m.tif", "--colour"], "No such option"),
        (["predict", "a.tif", "-o", "m.tif"], "train one with 'cvmh train' or 'cvmh demo'"),
        (["predict", "a/x.tif", "b/x.tif", "-o", "{stem}.tif"], "two scenes have the same name"),
        (["train"], "say what to train on: --dataset NAME, or --config FILE"),
        (["train", "--dataset", "folder", "--resume"], "--resume needs the run folder"),
        (["info"], "Missing argument 'FILE'"),
    ],
)
def test_misuse_is_explained_and_exits_with_2(cvmh, visible, arguments, sentence):
    outcome = cvmh(*arguments)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert sentence in outcome.stderr and "Traceback" not in outcome.stderr
    assert not visible()


def test_an_error_is_one_line_and_exits_with_1(cvmh):
    assert cvmh("info", "nowhere.tif") == (1, "", "cvmh: error: nowhere.tif does not exist\n")


def test_the_traceback_of_an_error_needs_to_be_asked_for_twice(cvmh):
    assert "Traceback" not in cvmh("info", "nowhere.tif", "-v").stderr
    outcome = cvmh("info", "nowhere.tif", "-vv")
    assert outcome.code == 1
    assert outcome.stderr.startswith("Traceback") and "RasterError" in outcome.stderr
    assert outcome.stderr.endswith("cvmh: error: nowhere.tif does not exist\n")


def test_a_fault_of_the_program_is_one_line_that_asks_for_a_report(cvmh, monkeypatch):
    def fail(path, checkpoint):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("cvmh.report.info.describe", fail)
    outcome = cvmh("info", "scene.tif")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith("cvmh: unexpected ZeroDivisionError: by zero; this is a fault")
    assert outcome.stderr.count("\n") == 1
