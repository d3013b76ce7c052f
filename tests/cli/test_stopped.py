"""What is left when a command is stopped: by the user, by the system, or by a full disk."""

import json
import signal
import sys

import pytest

CVMH = ("-m", "cvmh.cli.main")
# So many tiles of so little that a prediction takes minutes.
ENDLESS = ("--tile", "32", "--overlap", "0.89", "--batch", "1", "--progress", "json")
# So many that it takes some seconds.
LONG = ("--tile", "32", "--overlap", "0.8", "--progress", "json")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX"),
]


def start_predicting(start_python, bundle, *options, after=0.0):
    """Return the process of a prediction of which more than a share is done."""
    process = start_python(
        *(*CVMH, "predict", "scene.tif", "-o", "mask.tif", "--checkpoint", bundle),
        *(options or ENDLESS),
    )
    for line in process.stderr:
        if line.startswith("{"):
            told = json.loads(line)
            if told["done"] > after * told["total"]:
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_prediction_is_continued_with_the_same_bytes(
    make_scene, tiny_bundle, start_python, cvmh, visible, tmp_path, number
):
    make_scene(height=300, width=200)
    command = ("predict", "scene.tif", "--checkpoint", tiny_bundle, *LONG, "-o", "mask.tif")
    assert cvmh(*command).code == 0
    truth = content(tmp_path, "mask.tif")
    process = start_predicting(start_python, tiny_bundle, *LONG, after=0.3)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert visible() == {"scene.tif"}
    outcome = cvmh(*command, "--resume", "--report", "report.json")
    assert outcome.code == 0, outcome.stderr
    assert json.loads((tmp_path / "report.json").read_text())["stripes_kept"] > 0
    assert content(tmp_path, "mask.tif") == truth
    assert not list(tmp_path.glob(".*"))


def content(folder, *names):
    """Return the bytes of masks and of what lies beside them, and take them away."""
    files = [file for name in names for file in folder.glob(f"{name.removesuffix('.tif')}.*")]
    found = {file.name: file.read_bytes() for file in files}
    for file in files:
        file.unlink()
    assert found
    return found


def test_two_processes_do_not_write_one_mask(
    make_scene, tiny_bundle, start_python, cvmh, visible, tmp_path
):
    make_scene(height=400, width=400)
    process = start_predicting(start_python, tiny_bundle)
    before = {path: path.is_dir() for path in tmp_path.iterdir()}
    for options in ((), ("--overwrite",), ("--resume",), ("--tile", "64", "--overwrite")):
        outcome = cvmh(
            *("predict", "scene.tif", "-o", "mask.tif", "--checkpoint", tiny_bundle), *options
        )
        assert (outcome.code, outcome.stdout) == (1, "")
        assert outcome.stderr.splitlines()[-1].startswith(
            "cvmh: error: another process is writing mask.tif; wait for it"
        )
    assert {path: path.is_dir() for path in tmp_path.iterdir()} == before
    assert process.poll() is None


# Forks a process for each prediction, so that the libraries are loaded once; the arguments are the
# command and its bundle. Ten are killed, five of them at random moments and five as soon as a
# random number of stripes is in the journal, and each is continued.
KILLED = """
import json, os, random, signal, sys, time
os.environ["NUMBA_NUM_THREADS"] = "1"
from pathlib import Path
import torch
import cvmh.predict
from cvmh.cli.main import main
from cvmh.models.bundle import load_bundle
from cvmh.predict.journal import Journal

def start(*options, killed_at=None):
    child = os.fork()
    if child:
        return child
    append = Journal.append
    def append_and_die(self, *arguments):
        append(self, *arguments)
        if len(self) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
    Journal.append = append_and_die
    sys.argv = ["cvmh", *json.loads(sys.argv[1]), *options]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        main()
    except SystemExit as exit_:
        os._exit(exit_.code or 0)
    finally:
        os._exit(70)

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def outputs():
    names = sorted(Path().glob("out/*"))
    return {path.name: path.read_bytes() for path in names if path.is_file()}

def clear():
    for path in Path().glob("out/*"):
        path.unlink()

torch.set_num_threads(1)
Path("out").mkdir()
# Compiled code is loaded when it is first called; only threads must not be there before a fork.
with torch.inference_mode():
    load_bundle(sys.argv[2]).network(torch.zeros(1, 3, 64, 64))
started = time.perf_counter()
assert end(start()) == 0
seconds = time.perf_counter() - started
truth, moments = outputs(), random.Random(4)
clear()
for number in range(10):
    stripes = moments.randrange(1, 10) if number % 2 else None
    moment = 0 if stripes else seconds * moments.uniform(0.2, 1)
    child = start(killed_at=stripes)
    if not stripes:
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
    was_killed = end(child) == -signal.SIGKILL
    seen = sorted(outputs())
    code = end(start("--resume", "--report", "report.json"))
    kept = json.loads(Path("report.json").read_text())["stripes_kept"] if code == 0 else None
    Path("report.json").unlink(missing_ok=True)
    print(json.dumps([moment, stripes, was_killed, code, kept, seen, outputs() == truth,
                      sorted(path.name for path in Path("out").glob(".*"))]), flush=True)
    clear()
"""


def test_ten_kills_at_random_moments_change_no_byte(
    make_scene, tiny_bundle, start_python, tmp_path
):
    make_scene(height=800, width=200)
    command = ["predict", "scene.tif", "-o", "out/mask.tif", "--checkpoint", str(tiny_bundle)]
    command += ["--tile", "64", "--overlap", "0.6", "--progress", "off"]
    command += ["--scores", "out/scores.tif", "--confidence", "out/confidence.tif"]
    process = start_python("-c", KILLED, json.dumps(command), tiny_bundle)
    stdout, stderr = process.communicate(timeout=180)
    outcomes = [json.loads(line) for line in stdout.splitlines()]
    assert len(outcomes) == 10, stderr
    for moment, stripes, was_killed, code, kept, seen, is_same, hidden in outcomes:
        assert code == 0, stderr
        assert is_same, (moment, stripes)
        assert stripes is None or kept == stripes
        assert not hidden
        # The mask comes last, so none of a killed run is ever seen without the others.
        assert "mask.tif" not in seen or {"scores.tif", "confidence.tif"} <= set(seen), moment
        assert was_killed or (stripes is None and "mask.tif" in seen)


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


def test_a_prediction_goes_on_once_there_is_room_and_leaves_the_same_bytes(
    make_scene, tiny_bundle, start_python, tmp_path
):
    """Limits from nothing to nearly enough; after each, the same command without one."""
    make_scene(height=600, width=300)
    predict = ["predict", "scene.tif", "-o", "mask.tif", "--checkpoint", str(tiny_bundle)]
    predict += ["--tile", "64", "--scores", "scores.tif", "--progress", "off"]
    unlimited = 1 << 40
    cases = [(unlimited, predict)]
    for limit in (0, 700, 3000, 20_000, 60_000, 120_000, 200_000):
        cases += [(limit, predict), (unlimited, [*predict, "--resume"])]
    stdout, stderr = start_python("-c", FULL_DISK, json.dumps(cases)).communicate(timeout=120)
    outcomes = [json.loads(line) for line in stdout.splitlines()]
    assert len(outcomes) == len(cases), stderr
    truth, kept = outcomes[0][3], []
    assert truth.keys() >= {"mask.tif", "scores.tif", "mask.tif.aux.xml", "mask.qml"}
    for (limit, code, told, files), again in zip(outcomes[1::2], outcomes[2::2], strict=True):
        assert code == 1 and "mask.tif" not in files, (limit, told)
        last = told.splitlines()[-1]
        assert last.startswith("cvmh: error: ") and "cannot be written" in last, (limit, told)
        assert told.count("cvmh: error") == 1 and "unexpected" not in told, (limit, told)
        assert again[1] == 0, again[2]
        assert again[3] == truth, limit
        kept.append(".mask.tif.part" in files)
    # With hardly any room nothing is left behind; with some, what was finished is.
    assert not kept[0] and kept[-1]


# As above; after each command the digests of what lies in the folder, which a success clears.
FULL_DISK = """
import hashlib, json, resource, signal, sys
from pathlib import Path
from click.testing import CliRunner
from cvmh.cli.main import cli

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit, arguments in json.loads(sys.argv[1]):
    unlimited = limit == 1 << 40
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if unlimited else limit, hard))
    result = CliRunner().invoke(cli, arguments)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    files = [path for path in Path().iterdir() if path.name != "scene.tif"]
    found = {path.name: path.is_file() and hashlib.md5(path.read_bytes()).hexdigest()
             for path in files}
    print(json.dumps([limit, result.exit_code, result.stderr, found]), flush=True)
    if result.exit_code == 0:
        [path.unlink() for path in files]
"""
