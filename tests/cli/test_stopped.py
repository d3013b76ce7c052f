"""What is left when a command is stopped: by the user, by the system, or by a full disk."""

import json
import signal
import sys

import pytest

CVMH = ("-m", "cvmh.cli.main")
# So many tiles of so little that a prediction takes minutes.
ENDLESS = ("--tile", "32", "--overlap", "0.89", "--batch", "1", "--progress", "json")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX"),
]


def start_predicting(start_python, bundle):
    """Return the process of a prediction that is under way."""
    process = start_python(
        *CVMH, "predict", "scene.tif", "-o", "mask.tif", "--checkpoint", bundle, *ENDLESS
    )
    for line in process.stderr:
        if line.startswith("{") and 0 < json.loads(line)["done"]:
            break
    assert process.poll() is None
    return process


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_stopped_prediction_exits_with_its_code_and_leaves_nothing_in_sight(
    make_scene, tiny_bundle, start_python, visible, number, code, word
):
    make_scene(height=400, width=400)
    process = start_predicting(start_python, tiny_bundle)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    last = stderr.splitlines()[-1]
    assert last.startswith(f"cvmh: {word}") and "Traceback" not in stderr
    assert visible() == {"scene.tif"}


def test_a_killed_prediction_leaves_no_mask_and_the_next_one_succeeds(
    make_scene, tiny_bundle, start_python, cvmh, visible, tmp_path
):
    make_scene(height=400, width=400)
    process = start_predicting(start_python, tiny_bundle)
    process.kill()
    process.wait(timeout=60)
    assert visible() == {"scene.tif"}
    make_scene()
    command = ("predict", "scene.tif", "-o", "mask.tif", "--checkpoint", tiny_bundle)
    outcome = cvmh(*command, "--overwrite")
    assert outcome.code == 0, outcome.stderr
    assert visible() == {"scene.tif", "mask.tif"}
    assert not list(tmp_path.glob(".*"))


def test_an_interrupted_training_exits_with_130_and_can_be_resumed(
    make_config, start_python, cvmh, tmp_path
):
    config = make_config(train={"epochs": 10_000})
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    process = start_python(*CVMH, "train", "--config", "run.yaml", "--out", "run")
    for line in process.stderr:
        if line.startswith("epoch 2 "):
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.endswith("cvmh: interrupted\n") and "Traceback" not in stderr
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert "not finished; continue it with --resume" in cvmh("info", "run").stdout
    outcome = cvmh("train", "--resume", "--out", "run", "--set", "train.epochs=4")
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / "run" / "best.safetensors").exists()


# Files may grow to so many bytes; each line of stdin is a limit and a command.
WITH_LIMITS = """
import json, resource, signal, sys
from click.testing import CliRunner
from cvmh.cli.main import cli

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit, arguments in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    result = CliRunner().invoke(cli, arguments)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(json.dumps([limit, result.exit_code, result.stderr]), flush=True)
"""


def test_a_full_disk_is_named_and_nothing_looks_finished(
    make_scene, make_config, tiny_bundle, start_python, visible, tmp_path
):
    """The limits let the parts of a run fail one after the other: settings, bundle, checkpoint."""
    make_scene(height=100, width=100)
    (tmp_path / "run.yaml").write_text(make_config().to_yaml())
    predict = ["predict", "scene.tif", "-o", "mask.tif", "--checkpoint", str(tiny_bundle)]
    cases = [(limit, predict) for limit in (0, 200, 1000)]
    cases += [
        (limit, ["train", "--config", "run.yaml", "--out", f"run{limit}"])
        for limit in (100, 20_000, 150_000)
    ]
    stdout, stderr = start_python("-c", WITH_LIMITS, json.dumps(cases)).communicate(timeout=120)
    outcomes = [json.loads(line) for line in stdout.splitlines()]
    assert len(outcomes) == len(cases), stderr
    for limit, code, told in outcomes:
        last = told.splitlines()[-1]
        assert code == 1, (limit, told)
        assert last.startswith("cvmh: error: ") and "cannot be written" in last, (limit, told)
        assert told.count("cvmh: error") == 1 and "Traceback" not in told
    assert "mask.tif" not in visible()
    assert not list(tmp_path.glob("run*/best.safetensors"))
    assert not list(tmp_path.glob("run*/*.ckpt"))
